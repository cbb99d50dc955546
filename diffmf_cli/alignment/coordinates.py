"""Where the infrared picture lies in the visible one by their places on Earth: `--align geo`."""

import numpy as np

from diffmf_cli.alignment.geometry import corner_distance, corners, project, resizing
from diffmf_cli.alignment.transform import Transform
from diffmf_cli.errors import DiffmfError, ImageError, UsageError
from diffmf_cli.images.geotiff import Georeference, reproject
from diffmf_cli.images.opencv import cv2
from diffmf_cli.images.read import Image

_MOST_BEND = 1.0  # visible pixels that two projections may differ by from what one matrix can do


def by_coordinates(ir: Image, vis: Image) -> Transform:
    """The transform of two GeoTIFFs that know where they lie; its score is 0, since no edge is compared.

    Raises:
        UsageError: One has no place, or only one says in which system.
        ImageError: They do not overlap, or no matrix takes one projection to the other.
    """
    for image in (ir, vis):
        if image.place is None:
            raise UsageError(
                f"{image.name} has no place on Earth: --align geo is for GeoTIFFs (with rasterio: "
                "pip install 'diffmf[geo]'), others take --align auto"
            )
    assert ir.place is not None
    assert vis.place is not None
    sizes = ir.pixels.shape[1::-1], vis.pixels.shape[1::-1]
    return between(ir.place, vis.place, *sizes, (ir.name, vis.name))


def differing_places(ir: Image, vis: Image) -> tuple[str, ...]:
    """A notice for two GeoTIFFs that are about to be laid on each other, but lie elsewhere on Earth."""
    if ir.place is None or vis.place is None:
        return ()
    try:
        there = by_coordinates(ir, vis)
    except DiffmfError as error:
        return (f"{error}; they are taken as registered",)
    off = corner_distance(there.matrix, resizing(there.ir_size, there.vis_size), there.ir_size)
    if off <= _MOST_BEND:
        return ()
    return (
        f"{ir.name} and {vis.name} are off by {off:.0f} pixels by their coordinates, which are not used: add "
        "--align geo",
    )


def between(
    ir: Georeference,
    vis: Georeference,
    ir_size: tuple[int, int],
    vis_size: tuple[int, int],
    names: tuple[str, str],
) -> Transform:
    """`by_coordinates` of pictures that need not have been read; sizes are width and height."""
    if bool(ir.crs) != bool(vis.crs):
        without = names[0] if not ir.crs else names[1]
        raise UsageError(f"{without} does not say in which coordinate system it lies: set it with gdal_edit")
    to_vis = np.linalg.inv(vis.matrix())
    if ir.crs == vis.crs:
        matrix, model = to_vis @ ir.matrix(), "affine"
    else:
        inner = np.stack(np.meshgrid(*(np.linspace(0, side - 1, 9) for side in ir_size)), -1).reshape(-1, 2)
        there = project(to_vis, reproject(project(ir.matrix(), inner), ir.crs, vis.crs))
        if not np.isfinite(there).all():
            raise ImageError(f"{names[0]} lies where the coordinate system of {names[1]} is not defined")
        # Coordinates of about one keep the fit well conditioned.
        scales = [np.diag([1 / max(size), 1 / max(size), 1]) for size in (ir_size, vis_size)]
        found, _ = cv2.findHomography(project(scales[0], inner), project(scales[1], there))
        matrix, model = np.linalg.inv(scales[1]) @ found @ scales[0], "homography"
        bend = float(np.linalg.norm(project(matrix, inner) - there, axis=1).max())
        if bend > _MOST_BEND:
            raise ImageError(
                f"the projections of {names[0]} and {names[1]} differ by {bend:.1f} pixels from any matrix: "
                "bring one to the system of the other with gdalwarp"
            )
    matrix = matrix / matrix[2, 2]
    placed = project(matrix, corners(ir_size))
    if (placed.max(0) < 0).any() or (placed.min(0) > np.array(vis_size) - 1).any():
        raise ImageError(f"{names[0]} and {names[1]} show different places on Earth: they do not overlap")
    return Transform(matrix, model, ir_size, vis_size, 0.0)
