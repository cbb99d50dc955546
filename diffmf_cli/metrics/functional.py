"""All fusion metrics as pure functions over grey pictures `(B, 1, H, W)` with values 0..255.

uint8 or floating tensors, on the CPU or on CUDA; every function computes in float64 and returns one value
per picture, `(B,)`, or for metrics of both sources a `BySource` of such values.
"""

from collections.abc import Callable, Iterable
from functools import partial

from torch import Tensor

from diffmf_cli.metrics.by_source import BySource
from diffmf_cli.metrics.catalogue import Convention, choose_convention, choose_metrics
from diffmf_cli.metrics.correlation import (
    correlation_coefficient,
    mean_squared_error,
    peak_signal_to_noise_ratio,
    standard_deviation,
    sum_of_correlations_of_differences,
)
from diffmf_cli.metrics.features import feature_mutual_information
from diffmf_cli.metrics.fidelity import visual_information_fidelity, visual_information_fidelity_for_fusion
from diffmf_cli.metrics.gradients import (
    average_gradient,
    edge_intensity,
    edge_transfer,
    fusion_artifacts,
    mean_edge_transfer,
    spatial_frequency,
    spatial_frequency_error,
)
from diffmf_cli.metrics.grey import as_grey
from diffmf_cli.metrics.information import (
    cross_entropy,
    entropy,
    mutual_information,
    nonlinear_correlation_information_entropy,
    normalized_mutual_information,
    tsallis_information,
)
from diffmf_cli.metrics.perception import chen_blum, chen_varshney
from diffmf_cli.metrics.phase import phase_congruency
from diffmf_cli.metrics.structure import (
    cvejic,
    edge_fusion_quality_index,
    fusion_quality_index,
    multi_scale_ssim,
    ssim,
    yang,
)
from diffmf_cli.metrics.wavelets import wavelet_details

# Metrics of the fused picture alone: f(fused).
OF_FUSED: dict[str, Callable[..., Tensor]] = {
    "EN": entropy,
    "SD": standard_deviation,
    "SF": spatial_frequency,
    "AG": average_gradient,
    "EI": edge_intensity,
}
# Metrics of the triple: f(ir, vis, fused).
OF_TRIPLE: dict[str, Callable[..., Tensor | BySource]] = {
    "MI": mutual_information,
    "SCD": sum_of_correlations_of_differences,
    "VIF": visual_information_fidelity,
    "Qabf": edge_transfer,
    "SSIM": ssim,
    "CC": correlation_coefficient,
    "MSE": mean_squared_error,
    "PSNR": peak_signal_to_noise_ratio,
    "Nabf": fusion_artifacts,
    "MS-SSIM": multi_scale_ssim,
    "VIFF": visual_information_fidelity_for_fusion,
    "FMI": feature_mutual_information,
    "FMI-grad": partial(feature_mutual_information, feature="gradient"),
    "FMI-dct": partial(feature_mutual_information, feature="dct"),
    "FMI-w": partial(feature_mutual_information, feature="wavelet"),
    "FMI-edge": partial(feature_mutual_information, feature="edge"),
    "CE": cross_entropy,
    "QMI": normalized_mutual_information,
    "QTE": tsallis_information,
    "QNCIE": nonlinear_correlation_information_entropy,
    "QG": mean_edge_transfer,
    "QM": wavelet_details,
    "QSF": spatial_frequency_error,
    "QP": phase_congruency,
    "QS": fusion_quality_index,
    "QW": partial(fusion_quality_index, weighted=True),
    "QE": edge_fusion_quality_index,
    "QY": yang,
    "QC": cvejic,
    "QCB": chen_blum,
    "QCV": chen_varshney,
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
        options = chosen.options(key)
        result = (
            OF_FUSED[key](fused, **options) if key in OF_FUSED else OF_TRIPLE[key](ir, vis, fused, **options)
        )
        if isinstance(result, BySource):
            values |= {key: result.value, f"{key}.ir": result.ir, f"{key}.vis": result.vis}
            values[f"{key}.worst"] = result.worst
        else:
            values[key] = result
    return values
