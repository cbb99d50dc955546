"""What the metrics are called, which way is better, and how toolkits differ. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffmf_cli.errors import UsageError


@dataclass(frozen=True)
class Metric:
    """One metric as tables show it."""

    key: str
    """The name that papers print."""
    title: str
    higher_is_better: bool | None = True
    """None: the nearest to 0 is best."""
    by_source: bool = False
    """Whether the part of each source alone is known as well (a `BySource`)."""

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return {True: "↑", False: "↓", None: "→0"}[self.higher_is_better]

    def goodness(self, value: float) -> float:
        """A number that is higher the better the value is."""
        return {True: value, False: -value, None: -abs(value)}[self.higher_is_better]


METRICS: Mapping[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("EN", "entropy of the fused picture"),
        Metric("SD", "standard deviation of the fused picture"),
        Metric("SF", "spatial frequency of the fused picture"),
        Metric("AG", "average gradient of the fused picture"),
        Metric("MI", "mutual information with the sources", by_source=True),
        Metric("SCD", "sum of the correlations of differences", by_source=True),
        Metric("VIF", "visual information fidelity", by_source=True),
        Metric("Qabf", "share of the sources' edges that is kept", by_source=True),
        Metric("SSIM", "structural similarity with the sources", by_source=True),
        Metric("CC", "correlation with the sources", by_source=True),
        Metric("MSE", "mean squared error", higher_is_better=False),
        Metric("PSNR", "peak signal to noise ratio"),
        Metric("Nabf", "share of edges that no source explains", higher_is_better=False),
        Metric("MS-SSIM", "structural similarity at five scales", by_source=True),
        Metric("FMI", "mutual information of windows of pixels", by_source=True),
        Metric("FMI-grad", "the same of gradients", by_source=True),
        Metric("FMI-dct", "the same of cosine transforms", by_source=True),
        Metric("FMI-w", "the same of Meyer wavelets", by_source=True),
        Metric("FMI-edge", "the same of Sobel edge maps", by_source=True),
        Metric("VIFF", "Han's visual information fidelity for fusion"),
        Metric("EI", "edge intensity of the fused picture"),
        Metric("CE", "cross entropy of the grey levels", higher_is_better=False),
        Metric("QMI", "normalised mutual information", by_source=True),
        Metric("QTE", "normalised Tsallis information"),
        Metric("QNCIE", "nonlinear correlation information entropy"),
        Metric("QG", "mean share of the sources' edges that is kept", by_source=True),
        Metric("QM", "wavelet details that are kept", by_source=True),
        Metric("QSF", "error of the spatial frequency", higher_is_better=None),
        Metric("QP", "phase congruency that is kept"),
        Metric("QS", "Piella's fusion quality index"),
        Metric("QW", "Piella's weighted fusion quality index"),
        Metric("QE", "QW of pictures and edges"),
        Metric("QY", "Yang's similarity by agreement of the sources"),
        Metric("QC", "Cvejic's similarity by covariance"),
        Metric("QCB", "Chen and Blum's contrast preservation"),
        Metric("QCV", "Chen and Varshney's visible difference", higher_is_better=False),
    )
}

PRESETS: Mapping[str, tuple[str, ...]] = {
    "card": ("EN", "SD", "SSIM", "VIF"),
    "cddfuse": ("EN", "SD", "SF", "MI", "SCD", "VIF", "Qabf", "SSIM"),
    "full": tuple(METRICS),
}


@dataclass(frozen=True)
class Convention:
    """What one toolkit does where toolkits differ."""

    name: str
    follows: str
    variants: Mapping[str, tuple[str, Mapping[str, Any]]]
    """Metric key to the variant's printed name and the options of the metric's function."""

    def label(self, key: str) -> str:
        """The metric's key with the variant in force, such as `SSIM[sum,u7,L=2]`."""
        return f"{key}[{self.variants[key][0]}]" if key in self.variants else key

    def options(self, key: str) -> Mapping[str, Any]:
        """Keyword arguments of the metric's function."""
        return self.variants[key][1] if key in self.variants else {}

    def but(self, name: str, follows: str, **variants: tuple[str, Mapping[str, Any]]) -> "Convention":
        """Another convention that differs from this one in some metrics."""
        return Convention(name, follows, {**self.variants, **variants})


_CDDFUSE = Convention(
    "cddfuse",
    "MMIF-CDDFuse utils/Evaluator.py, the field's commonest",
    {
        "AG": ("/HW", {"divisor": "HW"}),
        "MI": ("nats", {"unit": "nat"}),
        "VIF": ("sum", {"combination": "sum"}),
        "SSIM": ("sum,u7,L=2", {"window": "uniform7", "peak": 2.0, "combination": "sum"}),
        "MSE": ("0..255", {"scale": "8bit"}),
        "PSNR": ("peak max F", {"peak": None}),
        "Nabf": ("of F", {"scored": "fused"}),
        "QTE": ("zhengliu", {"definition": "zhengliu"}),
    },
)

CONVENTIONS: Mapping[str, Convention] = {
    convention.name: convention
    for convention in (
        _CDDFUSE,
        _CDDFUSE.but(
            "cddfuse-255",
            "SFMFusion utils/evaluator.py: CDDFuse's with the SSIM data range of 8-bit pictures",
            SSIM=("sum,u7,L=255", {"peak": 255.0}),
        ),
        _CDDFUSE.but(
            "tdfusion",
            "TDFusion Evaluator.py: CDDFuse's with VIF and SSIM averaged over the sources",
            VIF=("mean", {"combination": "mean"}),
            SSIM=("mean,u7,L=255", {"peak": 255.0, "combination": "mean"}),
        ),
        _CDDFUSE.but(
            "tang",
            "Linfeng-Tang/Image-Fusion, MATLAB, since March 2023",
            AG=("/(H-1)(W-1)", {"divisor": "(H-1)(W-1)"}),
            MI=("bits,254=255", {"unit": "bit", "merge_top": True}),
            SSIM=("mean,g11,L=1", {"window": "gaussian11-same", "peak": 1.0, "combination": "mean"}),
            MSE=("0..1", {"scale": "unit"}),
            PSNR=("+48.13 dB", {"scale": "unit"}),
            Nabf=("of IR", {"scored": "ir"}),
        ),
        _CDDFUSE.but(
            "vifb",
            "VIFB metrics/*.m, MATLAB",
            SF=("/HW", {"divisor": "HW"}),
            AG=("/(H-1)(W-1)", {"divisor": "(H-1)(W-1)"}),
            SSIM=("sum,g11,L=255", {"window": "gaussian11", "peak": 255.0}),
            MSE=("root/HW", {"scale": "vifb"}),
            PSNR=("root/HW", {"scale": "vifb"}),
        ),
        _CDDFUSE.but(
            "paper",
            "the definition of each metric's own paper, for 8-bit pictures",
            SSIM=("sum,g11,L=255", {"window": "gaussian11", "peak": 255.0}),
            PSNR=("peak 255", {}),
            QTE=("paper", {"definition": "paper"}),
        ),
    )
}


def choose_metrics(names: str) -> tuple[str, ...]:
    """Metric keys from a preset or a comma-separated list; case does not matter.

    Args:
        names: Such as `cddfuse` or `EN,sd,VIF`.

    Raises:
        UsageError: A name is neither a preset nor a metric.
    """
    known = {key.lower(): key for key in METRICS}
    keys: list[str] = []
    for name in names.split(","):
        wanted = name.strip().lower()
        if wanted in PRESETS:
            keys.extend(PRESETS[wanted])
        elif wanted in known:
            keys.append(known[wanted])
        else:
            raise UsageError(
                f"unknown metric {name.strip()!r}: choose from {', '.join(METRICS)} or a preset "
                f"({', '.join(PRESETS)})"
            )
    return tuple(dict.fromkeys(keys))


def choose_convention(name: str) -> Convention:
    """The convention of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in CONVENTIONS:
        raise UsageError(f"unknown convention {name!r}: choose from {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]
