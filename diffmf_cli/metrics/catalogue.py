"""What the metrics are called, which way is better, and how toolkits differ. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffmf_cli.errors import UsageError


@dataclass(frozen=True)
class Metric:
    """One metric as tables show it."""

    key: str
    """The name that papers print."""
    title: str
    higher_is_better: bool = True
    by_source: bool = False
    """Whether the part of each source alone is known as well (a `BySource`)."""

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return "↑" if self.higher_is_better else "↓"


METRICS: Mapping[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("EN", "entropy of the fused picture"),
        Metric("SD", "standard deviation of the fused picture"),
        Metric("SF", "spatial frequency of the fused picture"),
        Metric("MI", "mutual information with the sources", by_source=True),
        Metric("SCD", "sum of the correlations of differences", by_source=True),
        Metric("VIF", "visual information fidelity", by_source=True),
        Metric("Qabf", "share of the sources' edges that is kept", by_source=True),
        Metric("SSIM", "structural similarity with the sources", by_source=True),
    )
}

PRESETS: Mapping[str, tuple[str, ...]] = {
    "card": ("EN", "SD", "SSIM", "VIF"),
    "cddfuse": ("EN", "SD", "SF", "MI", "SCD", "VIF", "Qabf", "SSIM"),
    "full": tuple(METRICS),
}


@dataclass(frozen=True)
class Convention:
    """One toolkit's choice where toolkits differ: options by metric key, and how to print them."""

    name: str
    follows: str
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    variants: Mapping[str, str] = field(default_factory=dict)

    def label(self, key: str) -> str:
        """The metric's key with the variant in force, such as `SSIM[sum,u7,L=2]`."""
        return f"{key}[{self.variants[key]}]" if key in self.variants else key


CONVENTIONS: Mapping[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention(
            "cddfuse",
            "MMIF-CDDFuse utils/Evaluator.py, the field's commonest",
            {"SSIM": {"window": "uniform7", "peak": 2.0, "combination": "sum"}},
            {"SSIM": "sum,u7,L=2", "VIF": "sum", "MI": "nats"},
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
