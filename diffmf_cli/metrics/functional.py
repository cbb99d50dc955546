"""All fusion metrics as pure functions over grey pictures `(B, 1, H, W)` with values 0..255.

uint8 or floating tensors, on the CPU or on CUDA; every function computes in float64 and returns one value
per picture, `(B,)`, or for metrics of both sources a `BySource` of such values.
"""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from diffmf_cli.metrics.by_source import BySource
from diffmf_cli.metrics.catalogue import METRICS, Convention, choose_convention, choose_metrics
from diffmf_cli.metrics.correlation import standard_deviation, sum_of_correlations_of_differences
from diffmf_cli.metrics.fidelity import visual_information_fidelity
from diffmf_cli.metrics.gradients import edge_transfer, spatial_frequency
from diffmf_cli.metrics.grey import as_grey
from diffmf_cli.metrics.information import entropy, mutual_information
from diffmf_cli.metrics.structure import ssim

__all__ = [
    "BySource",
    "edge_transfer",
    "entropy",
    "evaluate",
    "mutual_information",
    "spatial_frequency",
    "ssim",
    "standard_deviation",
    "sum_of_correlations_of_differences",
    "visual_information_fidelity",
]

_OF_FUSED: dict[str, Callable[..., Tensor]] = {
    "EN": entropy,
    "SD": standard_deviation,
    "SF": spatial_frequency,
}
_OF_TRIPLE: dict[str, Callable[..., Any]] = {
    "MI": mutual_information,
    "SCD": sum_of_correlations_of_differences,
    "VIF": visual_information_fidelity,
    "Qabf": edge_transfer,
    "SSIM": ssim,
}


def evaluate(
    ir: Tensor,
    vis: Tensor,
    fused: Tensor,
    metrics: str | Iterable[str] = "cddfuse",
    convention: str | Convention = "cddfuse",
) -> dict[str, Tensor]:
    """Evaluate fused pictures against their sources.

    Args:
        ir: `(B, 1, H, W)` grey, uint8 or floating, values 0..255.
        vis: The same shape and scale.
        fused: The same shape and scale. Round a network's output: `(255 * x).round()`.
        metrics: A preset ("card", "cddfuse", "full"), or metric keys as a list or separated by commas.
        convention: Which toolkit to follow where toolkits differ.

    Returns:
        Metric key to `(B,)` float64 on the pictures' device. For metrics of both sources also `KEY.ir` and
        `KEY.vis`, the part of each source alone, and `KEY.worst`, the smaller of both.

    Raises:
        ValueError: Shapes differ or values lie in 0..1.
        UsageError: Unknown metric or convention.

    Example:
        >>> evaluate(ir, vis, fused, metrics="EN,VIF")  # doctest: +SKIP
        {'EN': tensor([7.11]), 'VIF': tensor([0.71]), 'VIF.ir': ..., 'VIF.vis': ..., 'VIF.worst': ...}
    """
    keys = choose_metrics(metrics if isinstance(metrics, str) else ",".join(metrics))
    chosen = choose_convention(convention) if isinstance(convention, str) else convention
    ir, vis, fused = as_grey(ir, vis, fused)
    values: dict[str, Tensor] = {}
    for key in keys:
        options = chosen.options.get(key, {})
        if not METRICS[key].by_source:
            if key in _OF_FUSED:
                values[key] = _OF_FUSED[key](fused, **options)
            else:
                values[key] = _OF_TRIPLE[key](ir, vis, fused, **options)
            continue
        result: BySource = _OF_TRIPLE[key](ir, vis, fused, **options)
        values |= {key: result.value, f"{key}.ir": result.ir, f"{key}.vis": result.vis}
        values[f"{key}.worst"] = result.worst
    return values
