"""Infrared, visible and fused picture beside each other, labelled, in one picture: the option `--panel`."""

from collections.abc import Sequence

import numpy as np

from diffmf_cli.errors import check_choice
from diffmf_cli.images.opencv import cv2
from diffmf_cli.images.range import from_unit

# Names of the colour maps in OpenCV, of which these are common for temperatures or even in lightness.
PALETTES = ("gray", "inferno", "magma", "plasma", "viridis", "cividis", "turbo", "hot", "bone")
_LABEL = 0.06  # height of a label over that of the pictures
_INK, _PAPER = 235, 24


def colorize(ir: np.ndarray, palette: str) -> np.ndarray:
    """An infrared picture in false colours.

    Args:
        ir: `(H, W)` float32 in [0, 1].
        palette: One of PALETTES.

    Returns:
        `(H, W, 3)` uint8 RGB.

    Raises:
        UsageError: Unknown palette.
    """
    check_choice("palette", palette, PALETTES)
    grey = from_unit(ir, np.uint8)
    if palette == "gray":
        return np.dstack([grey] * 3)
    coloured = cv2.applyColorMap(grey, getattr(cv2, f"COLORMAP_{palette.upper()}"))
    return cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB)


def compose_panel(pictures: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Puts pictures side by side under their labels, at the height of the last one.

    Args:
        pictures: Label (ASCII, the letters that OpenCV draws) and picture: `(H, W)` or `(H, W, 3)` RGB;
            uint8, uint16, or float in [0, 1].

    Returns:
        `(H + label, sum of widths + gaps, 3)` uint8 RGB.
    """
    height = pictures[-1][1].shape[0]
    label = max(12, round(_LABEL * height))
    columns: list[np.ndarray] = []
    for text, picture in pictures:
        shown = _at_height(_rgb8(picture), height)
        if columns:
            columns.append(np.full((height + label, max(1, label // 6), 3), _PAPER, np.uint8))
        columns.append(np.vstack([_label(text, label, shown.shape[1]), shown]))
    return np.hstack(columns)


def _rgb8(picture: np.ndarray) -> np.ndarray:
    if picture.dtype == np.uint16:
        picture = (picture / 65535).astype(np.float32)
    if picture.dtype != np.uint8:
        picture = from_unit(picture.astype(np.float32), np.uint8)
    return np.dstack([picture] * 3) if picture.ndim == 2 else picture


def _at_height(picture: np.ndarray, height: int) -> np.ndarray:
    if picture.shape[0] == height:
        return picture
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    smaller = height < picture.shape[0]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def _label(text: str, height: int, width: int) -> np.ndarray:
    """`(height, width, 3)` with the text at its left, smaller where it would not fit."""
    strip = np.full((height, width, 3), _PAPER, np.uint8)
    font, margin = cv2.FONT_HERSHEY_SIMPLEX, max(2, height // 4)
    (natural, tall), _ = cv2.getTextSize(text, font, 1.0, 1)
    scale = min((height - margin) / tall, max(1, width - 2 * margin) / natural)
    thickness = max(1, round(scale * 1.5))
    base = (height + round(tall * scale)) // 2
    cv2.putText(strip, text, (margin, base), font, scale, (_INK,) * 3, thickness, cv2.LINE_AA)
    return strip
