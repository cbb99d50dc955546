"""Pairs for training: read once as grey 8-bit pictures, kept in memory, cut and varied on the device."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from diffmf_cli.errors import UsageError
from diffmf_cli.images.pairs import pair_names, scan_folder
from diffmf_cli.training.recipe import Data

_DIM = 0.12  # the most that a nearly black visible picture has of its light

# Names of the folders of a source: of what gives structure and of what may give colour.
IR_FOLDERS = ("ir", "mri")
VIS_FOLDERS = ("vi", "vis", "ct", "pet", "spect")


@dataclass
class Pairs:
    """Registered grey pairs, uint8 `(H, W)` each, in a fixed order; `names` are `set/stem`."""

    names: list[str]
    ir: list[np.ndarray]
    vis: list[np.ndarray]

    def split(self, every: int, together: str = "") -> tuple["Pairs", "Pairs"]:
        """Training and validation pairs: about one in `every` validates (none where it is 0).

        Decided by the pair's name alone, so that it does not change with the other pairs.

        Args:
            every: one in so many.
            together: a regular expression; only the part of a name that it matches decides, so that
                neighbouring slices or video frames are held out together.
        """

        def decides(name: str) -> bytes:
            found = re.search(together, name) if together else None
            return (found.group() if found else name).encode()

        held = [bool(every) and crc32(decides(name)) % every == 0 for name in self.names]

        def part(keep: bool) -> Pairs:
            chosen = [i for i, h in enumerate(held) if h == keep]
            return Pairs(
                [self.names[i] for i in chosen], [self.ir[i] for i in chosen], [self.vis[i] for i in chosen]
            )

        return part(False), part(True)


def load_pairs(folders: Sequence[Path]) -> Pairs:
    """Reads folders that hold two folders with equal names: `ir/` and `vi/`, say, or `mri/` and `pet/`.

    Raises:
        UsageError: if a folder is missing, has no pairs, or a pair differs in size.
        ImageError: if a picture cannot be read.
    """
    pairs = Pairs([], [], [])
    for folder in folders:
        found = _from_folder(folder)
        pairs = Pairs(pairs.names + found.names, pairs.ir + found.ir, pairs.vis + found.vis)
    return pairs


def name_pairs(folder: Path) -> list[tuple[str, Path, Path]]:
    """Names (`set/stem`), infrared and visible paths of one source's pairs, in the order of infrared names.

    Raises:
        UsageError: if a folder is missing, has no pictures, or a name has no partner or two of them.
    """
    ir_folder, vis_folder = (
        next((folder / name for name in names if (folder / name).is_dir()), None)
        for names in (IR_FOLDERS, VIS_FOLDERS)
    )
    if ir_folder is None or vis_folder is None:
        raise UsageError(
            f"{folder}: training reads pairs from a folder {' or '.join(IR_FOLDERS)} and one of "
            f"{', '.join(VIS_FOLDERS)} in it"
        )
    found = pair_names(scan_folder(ir_folder).names, scan_folder(vis_folder).names)
    for double in found.ambiguous:
        raise UsageError(f"{folder}: {double.names[0]} and {double.names[1]} show one scene: rename one")
    for orphan in found.ir_orphans:
        raise UsageError(f"{ir_folder / orphan}: no picture of that name in {vis_folder}")
    if not found.pairs:
        raise UsageError(f"{ir_folder}: no pictures")
    source = f"{folder.parent.name}/{folder.name}"
    return [
        (f"{source}/{ir.stem}", ir_folder / ir, vis_folder / vis)
        for _, ir, vis in sorted(found.pairs, key=lambda pair: pair[1])
    ]


def _from_folder(folder: Path) -> Pairs:
    from diffmf_cli.images.color import luma
    from diffmf_cli.images.range import to_unit
    from diffmf_cli.images.read import read_image

    def grey(path: Path) -> np.ndarray:
        unit = to_unit(read_image(path).pixels)
        return np.rint(255 * (luma(unit) if unit.ndim == 3 else unit)).astype(np.uint8)

    pairs = Pairs([], [], [])
    for name, ir_path, vis_path in name_pairs(folder):
        ir, vis = grey(ir_path), grey(vis_path)
        if ir.shape != vis.shape:
            raise UsageError(f"{ir_path}: {ir.shape[::-1]} but {vis_path} is {vis.shape[::-1]}")
        pairs.names.append(name)
        pairs.ir.append(ir)
        pairs.vis.append(vis)
    return pairs


class CropSampler:
    """Draws random crops of training pairs; its random state is part of a checkpoint.

    All pairs lie on the device in one flat buffer; a batch is one gather.
    """

    def __init__(self, pairs: Pairs, recipe: Data, device: torch.device, seed: int) -> None:
        self.crop = crop = recipe.crop
        self.constants, self.flat_vis, self.dim_vis = recipe.constants, recipe.flat_vis, recipe.dim_vis
        big_enough = [i for i, a in enumerate(pairs.ir) if min(a.shape) >= crop]
        if not big_enough:
            raise UsageError(
                f"no training pair is as large as the crop: lower [data] crop = {crop} in the recipe"
            )
        chosen = [(pairs.ir[i], pairs.vis[i]) for i in big_enough]
        flat = [np.stack([ir.ravel(), vis.ravel()]) for ir, vis in chosen]
        self.pixels = torch.from_numpy(np.concatenate(flat, 1)).to(device)
        self.heights, self.widths = (np.array([ir.shape[axis] for ir, _ in chosen]) for axis in (0, 1))
        self.offsets = np.concatenate([[0], np.cumsum(self.heights * self.widths)[:-1]])
        self.random = np.random.default_rng(seed)
        self.noise = torch.Generator(device).manual_seed(seed)
        self.device = device

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on with the same crops."""
        return {"draws": self.random.bit_generator.state, "noise": self.noise.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self.random.bit_generator.state = state["draws"]
        self.noise.set_state(state["noise"].cpu())

    def draw(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """The random numbers of one batch: positions `(batch, 3)` int64 and variation `(batch, 10)` float32.

        Drawn on the host, in one order whatever the device, so that a seed gives the same crops everywhere.
        """
        r, c = self.random, self.crop
        which = r.integers(0, len(self.heights), batch)
        top = (r.random(batch) * (self.heights[which] - c + 1)).astype(np.int64)
        left = (r.random(batch) * (self.widths[which] - c + 1)).astype(np.int64)
        start = self.offsets[which] + top * self.widths[which] + left
        turn = r.integers(0, 8, batch)
        where = np.stack([start, self.widths[which], turn], 1)
        vary = r.random((batch, 10)).astype(np.float32)
        return where, vary

    def cut(self, where: Tensor, vary: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Crops as the network sees them, and as the loss compares them.

        Args:
            where: positions from `draw`, on the device.
            vary: variation from `draw`, on the device, uniform in [0, 1).

        Returns:
            `ir`, `vis` for the network and the clean `ir`, `vis` for the loss, each `(B, 1, crop, crop)` in
            [0, 1].
        """
        c = self.crop
        start, width, turn = where.unbind(1)
        line = torch.arange(c, device=self.device)
        u, v = line[:, None].expand(c, c), line[None, :].expand(c, c)

        def pick(bit: int, yes: Tensor, no: Tensor) -> Tensor:
            return torch.where(((turn >> bit) & 1).bool()[:, None, None], yes, no)

        # One of the eight symmetries of the square, by index.
        row, column = pick(0, v[None], u[None]), pick(0, u[None], v[None])
        row, column = pick(1, c - 1 - row, row), pick(2, c - 1 - column, column)
        index = start[:, None, None] + row * width[:, None, None] + column
        clean = self.pixels[:, index].float() / 255  # (2, B, c, c)
        # Cameras differ in response: gamma and gain, for one of two crops and each modality on its own.
        gamma = torch.exp(0.7 * (vary[:, 0:2] - 0.5))
        gain = 1 + 0.3 * (vary[:, 2:4] - 0.5)
        shaped = (clean.clamp_min(1e-4) ** gamma.T[..., None, None]) * gain.T[..., None, None]
        clean = torch.where((vary[:, 4] < 0.5)[None, :, None, None], shaped.clamp(0, 1), clean)
        # Flat pictures must stay flat, and must not weaken the other: some crops are two constants, some one.
        level = (1.2 * vary[:, 8:10].T - 0.1).clamp(0, 1)[..., None, None].expand_as(clean)
        chance = vary[:, 5]
        both = chance < self.constants
        seldom = 0.97 - self.flat_vis
        only_ir, only_vis = chance > 0.97, (chance > seldom) & (chance < 0.97)
        chosen = torch.stack([both | only_ir, both | only_vis])
        clean = torch.where(chosen[..., None, None], level, clean)
        # A frame without light still shows a little. The loss takes it as black: it must not weaken infrared.
        dim = ((chance > seldom - self.dim_vis) & (chance < seldom) & ~both)[:, None, None]
        seen_vis = torch.where(dim, clean[1] * (_DIM * vary[:, 9])[:, None, None], clean[1])
        clean = torch.stack([clean[0], torch.where(dim, 0.0, clean[1])])
        # Dark visible pictures carry sensor noise: it is added to what the network sees only.
        dark = seen_vis.mean((1, 2), keepdim=True) < 0.25
        strength = 0.03 * (vary[:, 6] - 0.6).clamp_min(0) / 0.4
        grain = torch.randn(clean[1].shape, device=self.device, generator=self.noise)
        noise = grain * strength[:, None, None] * dark
        seen_vis = (seen_vis + noise).clamp(0, 1)
        ir, vis = clean[0][:, None], clean[1][:, None]
        return ir, seen_vis[:, None], ir, vis
