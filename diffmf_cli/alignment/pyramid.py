"""A picture that is asked for in many sizes."""

import numpy as np

from diffmf_cli.images.opencv import cv2


class Pyramid:
    """A picture and its halves, so that a large one is gone through once and not for every size.

    Attributes:
        shape: height and width.
    """

    def __init__(self, picture: np.ndarray) -> None:
        self.shape = picture.shape
        self._levels = [picture]

    def resized(self, size: tuple[int, int]) -> np.ndarray:
        """The picture at `(width, height)`; shrinking averages."""
        while all(
            side >= 4 * wanted for side, wanted in zip(self._levels[-1].shape, size[::-1], strict=True)
        ):
            height, width = self._levels[-1].shape
            half = width // 2, height // 2
            self._levels.append(cv2.resize(self._levels[-1], half, interpolation=cv2.INTER_AREA))
        # The smallest of at least twice the size: what is averaged once more does not show.
        levels = self._levels[::-1]
        level = next(
            (one for one in levels if one.shape[1] >= 2 * size[0] and one.shape[0] >= 2 * size[1]), levels[-1]
        )
        return cv2.resize(level, size, interpolation=cv2.INTER_AREA)
