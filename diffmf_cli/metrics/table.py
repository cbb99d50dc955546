"""Scores of many pictures as one table, and its forms as text: Markdown, LaTeX, CSV and JSON."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

from diffmf_cli.errors import UsageError
from diffmf_cli.metrics.catalogue import METRICS, Convention, Metric
from diffmf_cli.metrics.evaluation import IMPLEMENTATION, Score

GREY_RULE = "BT.601 full-range grey, rounded; 16-bit by its upper byte"
BIT_DEPTH = 8
UNDEFINED = "n/a"
PARTS = ("ir", "vis", "worst")


@dataclass(frozen=True)
class Figure:
    """Mean and standard deviation (of the n values themselves, ddof 0) of one metric over pictures.

    Undefined values (NaN, infinite) are left out and lower n; without any value both are NaN.
    """

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Figure":
        """The figure of some values."""
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            return cls(math.nan, math.nan, 0)
        return cls(fmean(finite), pstdev(finite), len(finite))


class Table:
    """What all scores of an evaluation amount to.

    Attributes:
        methods: Names, in the order given.
        keys: Metric keys.
        columns: Metric keys, with `KEY.ir`, `KEY.vis` and `KEY.worst` after metrics of both sources where
            balance is asked for.
        convention: The convention of all values.
        scores: The scores, failed ones included.
        figures: Method to column to figure.
        counts: Method to the number of pictures that were evaluated.
        ranks: Method to its mean rank over the metrics, 1 being best, ties sharing the mean of their ranks.
    """

    def __init__(
        self,
        methods: Sequence[str],
        keys: Sequence[str],
        convention: Convention,
        scores: Sequence[Score],
        balance: bool,
    ) -> None:
        self.methods, self.keys, self.convention, self.scores = list(methods), list(keys), convention, scores
        self.columns = [
            column
            for key in keys
            for column in (key, *(f"{key}.{part}" for part in PARTS if balance and METRICS[key].by_source))
        ]
        self.counts = {m: sum(s.method == m and s.error is None for s in scores) for m in methods}
        self.figures = {
            method: {c: Figure.of(self.values(method, c)) for c in self.columns} for method in methods
        }
        places = [self._places(key) for key in keys]
        self.ranks = {m: fmean([place[m] for place in places if m in place] or [math.nan]) for m in methods}

    def values(self, method: str, column: str) -> list[float]:
        """All values of a column, one a picture that was evaluated."""
        return [s.values[column] for s in self.scores if s.method == method and s.error is None]

    def _places(self, column: str) -> dict[str, float]:
        """Rank of each method that has a figure; equal means share the mean of their ranks."""
        metric = metric_of(column)
        means = {m: -metric.goodness(self.figures[m][column].mean) for m in self.methods}
        means = {m: mean for m, mean in means.items() if not math.isnan(mean)}
        order = sorted(means.values())
        return {m: order.index(v) + (order.count(v) + 1) / 2 for m, v in means.items()}

    def place(self, method: str, column: str) -> int:
        """1 for the best method of a column, 2 for the second, else 0; 0 where there is only one method."""
        ranks = self._places(column)
        if len(ranks) < 2 or method not in ranks:
            return 0
        return {0: 1, 1: 2}.get(sorted(set(ranks.values())).index(ranks[method]), 0)

    def notes(self) -> list[str]:
        """What a reader must know to compare these figures with others."""
        return [
            f"Convention {self.convention.name}: {self.convention.follows}.",
            f"{GREY_RULE}; {BIT_DEPTH}-bit values. Mean ± standard deviation over pictures.",
            f"Computed by {IMPLEMENTATION}.",
        ]

    def summary(self) -> dict[str, Any]:
        """The table as JSON: the last line of `--json`."""
        return {
            "type": "summary",
            "convention": self.convention.name,
            "follows": self.convention.follows,
            "implementation": IMPLEMENTATION,
            "grey": GREY_RULE,
            "bit_depth": BIT_DEPTH,
            "labels": {key: self.convention.label(key) for key in self.keys},
            "higher_is_better": {key: METRICS[key].higher_is_better for key in self.keys},
            "methods": {method: self._method_summary(method) for method in self.methods},
        }

    def _method_summary(self, method: str) -> dict[str, Any]:
        def record(figure: Figure) -> dict[str, Any]:
            return {"mean": number(figure.mean), "std": number(figure.std), "n": figure.n}

        figures = self.figures[method]
        summary: dict[str, Any] = {
            "n": self.counts[method],
            "failed": sum(s.method == method and s.error is not None for s in self.scores),
            "mean_rank": number(self.ranks[method]),
            "metrics": {key: record(figures[key]) for key in self.keys},
        }
        balance: dict[str, dict[str, Any]] = {}
        for column in self.columns:
            if "." in column:
                key, part = column.split(".")
                balance.setdefault(key, {})[part] = record(figures[column])
        return {**summary, "balance": balance} if balance else summary


def metric_of(column: str) -> Metric:
    """The metric of a column, which may be one of its parts."""
    return METRICS[column.split(".")[0]]


def number(value: float) -> float | None:
    """A value for JSON, which has no NaN and no infinity."""
    return value if math.isfinite(value) else None


def image_record(score: Score, balance: bool) -> dict[str, Any]:
    """One picture's scores as JSON: a line of `--json`."""
    record: dict[str, Any] = {"type": "image", "method": score.method, "key": score.key}
    if score.error is not None:
        return {**record, "error": score.error}
    record["metrics"] = {key: number(value) for key, value in score.values.items() if "." not in key}
    parts: dict[str, dict[str, Any]] = {}
    for column, value in score.values.items():
        if balance and "." in column:
            key, part = column.split(".")
            parts.setdefault(key, {})[part] = number(value)
    return {**record, "balance": parts} if parts else record


def decimals(value: float) -> int:
    """Digits after the point for four significant ones, at most four."""
    if not math.isfinite(value) or value == 0:
        return 3
    return min(max(3 - math.floor(math.log10(abs(value))), 0), 4)


def format_figure(figure: Figure, count: int) -> tuple[str, str]:
    """Mean and spread of a cell; the spread tells n where it is not the number of pictures."""
    if not figure.n:
        return UNDEFINED, ""
    digits = decimals(figure.mean)
    less = f" (n={figure.n})" if figure.n != count else ""
    return f"{figure.mean:.{digits}f}", f"± {figure.std:.{digits}f}{less}"


def _marked_rows(table: Table, first: str, second: str) -> Iterator[list[str]]:
    """Cells of a method a row, means only, with templates such as `**{}**` for the best and the second."""
    for method in table.methods:
        cells = [method]
        for column in table.columns:
            mean, _ = format_figure(table.figures[method][column], table.counts[method])
            cells.append({1: first, 2: second, 0: "{}"}[table.place(method, column)].format(mean))
        if len(table.methods) > 1:
            cells.append(f"{table.ranks[method]:.2f}")
        yield [*cells, str(table.counts[method])]


def _headings(table: Table) -> list[str]:
    headings = []
    for column in table.columns:
        key, _, part = column.partition(".")
        name = table.convention.label(key) if not part else f"{key} {'IR' if part == 'ir' else part}"
        headings.append(f"{name} {METRICS[key].arrow}".replace("vis", "VIS"))
    return ["method", *headings, *(["mean rank"] if len(table.methods) > 1 else []), "n"]


def to_markdown(table: Table) -> str:
    """A Markdown table with a row for each method, and the notes below."""
    headings = _headings(table)
    lines = [headings, ["---"] + ["---:"] * (len(headings) - 1), *_marked_rows(table, "**{}**", "<u>{}</u>")]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n" + " ".join(table.notes()) + "\n"


def to_latex(table: Table) -> str:
    """A `tabular` with a row for each method, best bold and second underlined; the notes are comments."""
    escapes = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#"}
    escapes |= {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$"}

    def escape(text: str) -> str:
        return "".join(escapes.get(character, character) for character in text)

    rows = [[escape(heading) for heading in _headings(table)]]
    marked = list(_marked_rows(table, r"\textbf{{{}}}", r"\underline{{{}}}"))
    rows += [[escape(row[0]), *row[1:]] for row in marked]
    body = [f"{' & '.join(row)} \\\\" for row in rows]
    lines = [
        *(f"% {note}" for note in table.notes()),
        f"\\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}",
        "\\hline",
        body[0],
        "\\hline",
        *body[1:],
        "\\hline",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def to_csv(table: Table, per_image: bool = False) -> str:
    """CSV with full digits: a row for each method, or for each picture; undefined values are empty.

    Each row names convention, grey rule and implementation.
    """
    origin = {"convention": table.convention.name, "grey": GREY_RULE, "implementation": IMPLEMENTATION}
    rows: list[dict[str, Any]] = []
    if per_image:
        for score in table.scores:
            values = {c: number(score.values[c]) if score.error is None else None for c in table.columns}
            rows.append({"method": score.method, "key": score.key, **values, "error": score.error, **origin})
    else:
        for method in table.methods:
            row: dict[str, Any] = {"method": method, "n": table.counts[method]}
            for column, figure in table.figures[method].items():
                row |= {column: number(figure.mean), f"{column} std": number(figure.std)}
            rows.append({**row, "mean rank": number(table.ranks[method]), **origin})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@dataclass(frozen=True)
class Comparison:
    """Paired test of one metric between two methods, over the pictures that both have.

    Attributes:
        column: The metric.
        n: Number of pictures.
        difference: Median over pictures of the first method's value minus the second's; of their distances
            from 0 where the nearest to 0 is best.
        p: Two-sided p of Wilcoxon's signed-rank test; 1 where all values are equal.
        adjusted: The same after Holm's correction for the number of metrics.
    """

    column: str
    n: int
    difference: float
    p: float
    adjusted: float

    def verdict(self) -> str:
        """What the first method is: "better", "worse", or "" where the test tells no difference at 0.05."""
        if self.adjusted >= 0.05 or self.difference == 0:
            return ""
        higher = bool(metric_of(self.column).higher_is_better)
        return "better" if (self.difference > 0) == higher else "worse"


def compare(table: Table, first: str, second: str) -> list[Comparison]:
    """Compare two methods metric by metric.

    Args:
        table: The table.
        first: A method.
        second: Another.

    Raises:
        UsageError: A method is unknown, or scipy is not installed.
    """
    for method in (first, second):
        if method not in table.methods:
            raise UsageError(f"unknown method '{method}': compare two of {', '.join(table.methods)}")
    try:
        from scipy.stats import wilcoxon
    except ImportError:
        raise UsageError("--compare needs scipy: pip install 'diffmf[stats]'") from None
    found: list[tuple[str, int, float, float]] = []
    # The parts of each source would only add tests to correct for.
    for column in (c for c in table.columns if not c.endswith((".ir", ".vis"))):
        values = [
            {s.key: s.values[column] for s in table.scores if s.method == method and s.error is None}
            for method in (first, second)
        ]
        metric = metric_of(column)
        sign = 1 if metric.higher_is_better else -1
        gains = [
            metric.goodness(values[0][key]) - metric.goodness(values[1][key])
            for key in values[0].keys() & values[1].keys()
        ]
        differences = sorted(sign * gain for gain in gains if math.isfinite(gain))
        if not differences:
            continue
        p = float(wilcoxon(differences).pvalue) if any(differences) else 1.0
        middle = (differences[(len(differences) - 1) // 2] + differences[len(differences) // 2]) / 2
        found.append((column, len(differences), middle, p))
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, (column, _, _, p) in enumerate(sorted(found, key=lambda row: row[3])):
        largest = max(largest, min(1.0, p * (len(found) - rank)))
        adjusted[column] = largest
    return [Comparison(column, n, middle, p, adjusted[column]) for column, n, middle, p in found]
