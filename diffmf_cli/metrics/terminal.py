"""Tables of scores on a terminal, by rich: as wide as it is, in several parts where it is narrow."""

import math
from collections.abc import Callable, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table as Grid
from rich.text import Text

from diffmf_cli.metrics.catalogue import METRICS
from diffmf_cli.metrics.table import UNDEFINED, Comparison, Table, decimals, format_figure


class _Fitting:
    """A grid that fits its terminal: flat, or with two lines a cell, or in parts one below the other."""

    def __init__(self, columns: Sequence[str], build: Callable[[Sequence[str], bool], Grid]) -> None:
        """Remember what the grid is made of.

        Args:
            columns: What may be divided among several grids.
            build: Makes the grid of some columns; with True, its cells may have two lines.
        """
        self._columns, self._build = list(columns), build

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbounded = options.update(max_width=100_000)

        def fits(grid: Grid) -> bool:
            return Measurement.get(console, unbounded, grid).maximum <= options.max_width

        grids = [self._build(self._columns, False)]
        count = 1
        while not all(map(fits, grids)) and count <= len(self._columns):
            size = math.ceil(len(self._columns) / count)
            starts = range(0, len(self._columns), size)
            grids = [self._build(self._columns[start : start + size], True) for start in starts]
            count += 1
        yield Group(*grids)


def _grid() -> Grid:
    return Grid(box=None, padding=(0, 2, 0, 0), header_style="bold")


def _row_name(table: Table, column: str) -> str:
    key, _, part = column.partition(".")
    if part:
        return {"ir": "  IR part", "vis": "  VIS part", "worst": "  worst source"}[part]
    return f"{table.convention.label(key)} {METRICS[key].arrow}"


def to_terminal(table: Table) -> RenderableType:
    """A rich table, one row a metric and one column a method; best bold, second underlined."""

    def build(methods: Sequence[str], stacked: bool) -> Grid:
        grid = _grid()
        grid.add_column("", no_wrap=True)
        for method in methods:
            grid.add_column(method, justify="right")
        for column in table.columns:
            cells = [Text(_row_name(table, column), "dim" if "." in column else "")]
            for method in methods:
                mean, spread = format_figure(table.figures[method][column], table.counts[method])
                style = {1: "bold", 2: "underline", 0: ""}[table.place(method, column)]
                gap = "\n" if stacked else " "
                cells.append(Text.assemble((mean, style), (f"{gap}{spread}" if spread else "", "dim")))
            grid.add_row(*cells)
        if len(table.methods) > 1:
            grid.add_row("mean rank", *(f"{table.ranks[m]:.2f}" for m in methods))
        grid.add_row("n", *(str(table.counts[m]) for m in methods))
        return grid

    return Group(_Fitting(table.methods, build), *(Text(note, "dim") for note in table.notes()))


def per_image_to_terminal(table: Table) -> RenderableType:
    """A rich table with a row for each picture."""

    def build(columns: Sequence[str], _: bool) -> Grid:
        grid = _grid()
        for name in ("picture", "method"):
            grid.add_column(name, no_wrap=True)
        for column in columns:
            grid.add_column(column, justify="right")
        for score in sorted(table.scores, key=lambda s: s.key):
            if score.error is None:
                values = [score.values[column] for column in columns]
                texts = [f"{v:.{decimals(v)}f}" if math.isfinite(v) else UNDEFINED for v in values]
                grid.add_row(score.key, score.method, *texts)
        return grid

    return _Fitting(table.columns, build)


def comparison_to_terminal(comparisons: Sequence[Comparison], first: str, second: str) -> RenderableType:
    """A rich table of paired tests."""
    grid = _grid()
    for heading in (f"{first} against {second}", "median difference", "p", "p (Holm)", "n"):
        grid.add_column(heading, justify="left" if heading.startswith(first) else "right")
    for row in comparisons:
        key, _, part = row.column.partition(".")
        verdict = row.verdict()
        style = {"better": "green", "worse": "red", "": "dim"}[verdict]
        grid.add_row(
            f"{key} {part}".strip(),
            f"{row.difference:+.4g}",
            f"{row.p:.2g}",
            Text(f"{row.adjusted:.2g} {verdict}".rstrip(), style),
            str(row.n),
        )
    return Group(grid, Text("Wilcoxon's signed-rank test over pictures, two-sided.", "dim"))
