"""Honest counts of a batch, as they grow."""

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from diffmf_cli.batch.job import REASONS, Outcome

if TYPE_CHECKING:
    from rich.table import Table


class Summary:
    """What became of the pairs so far."""

    def __init__(self) -> None:
        self.status: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.pixels = 0
        self.model_seconds = 0.0
        self._started: float | None = None
        self._ended = 0.0

    def start(self) -> None:
        """Starts the clock: the model is loaded."""
        self._started = time.perf_counter()

    def add(self, outcome: Outcome) -> None:
        """Counts one more."""
        self.status[outcome.status] += 1
        if outcome.status == "failed":
            self.reasons[outcome.reason] += 1
        self.pixels += outcome.width * outcome.height
        self.model_seconds += outcome.seconds.get("model", 0.0)
        self._ended = time.perf_counter()

    @property
    def total(self) -> int:
        """Pairs counted."""
        return self.status.total()

    @property
    def seconds(self) -> float:
        """From the loaded model to the last outcome; 0 where nothing was fused."""
        return max(0.0, self._ended - self._started) if self._started is not None else 0.0

    def _per_second(self, count: float) -> float:
        return count / self.seconds if self.seconds else 0.0

    def record(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "type": "summary",
            "pairs": self.total,
            "done": self.status["done"],
            "skipped": self.status["skipped"],
            "failed": self.status["failed"],
            "failed_by_reason": dict(self.reasons),
            "seconds": round(self.seconds, 3),
            "model_seconds": round(self.model_seconds, 3),
            "pairs_per_second": round(self._per_second(self.status["done"]), 3),
            "megapixels_per_second": round(self._per_second(self.pixels / 1e6), 3),
        }

    def table(self) -> "Table":
        """For eyes."""
        from rich.table import Table

        table = Table(show_header=False)
        table.add_column(justify="left")
        table.add_column(justify="right")
        table.add_column(justify="left", style="dim")
        table.add_row("done", str(self.status["done"]), "")
        table.add_row("skipped", str(self.status["skipped"]), "there already" * bool(self.status["skipped"]))
        table.add_row("failed", str(self.status["failed"]), "")
        for reason, count in self.reasons.most_common():
            table.add_row(f"  {reason}", str(count), REASONS[reason])
        if self.status["done"]:
            table.add_row("pairs/s", f"{self._per_second(self.status['done']):.2f}", "")
            table.add_row("MP/s", f"{self._per_second(self.pixels / 1e6):.2f}", "")
        return table
