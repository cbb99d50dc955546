"""One self-contained HTML page of an evaluation: table, distributions, and the scenes themselves."""

import base64
import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from diffmf_cli.errors import DiffmfError
from diffmf_cli.images.pairs import Pair
from diffmf_cli.images.range import from_unit, to_unit
from diffmf_cli.images.read import read_image
from diffmf_cli.images.resize import resize_to
from diffmf_cli.images.write import encode_image
from diffmf_cli.metrics.catalogue import METRICS
from diffmf_cli.metrics.evaluation import BASELINES, Task, grey, grey_infrared
from diffmf_cli.metrics.table import (
    PARTS,
    UNDEFINED,
    Comparison,
    Table,
    format_figure,
    metric_of,
    number,
)

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a", "#b8a900")
PICTURE_SIDE = 640
QUALITY = 82


def to_html(
    table: Table,
    pairs: Sequence[Pair],
    results: Mapping[str, Mapping[str, Path]],
    task: Task,
    scenes: int,
    comparisons: Sequence[Comparison] = (),
    compared: tuple[str, str] | None = None,
) -> str:
    """The page, which needs nothing from outside.

    Args:
        table: The table to show.
        pairs: All pairs.
        results: Method to key to path of the fused picture.
        task: How the scores were made: infrared pictures are shown as they were measured.
        scenes: Show at most so many scenes, those where the first method is worst.
        comparisons: Paired tests of two methods.
        compared: The names of both.

    Returns:
        The text of an HTML file.
    """
    worth = {method: _worth(table, method) for method in table.methods}
    first = table.methods[0]
    shown = sorted(pairs, key=lambda pair: (worth[first].get(pair.key, -1), pair.key))[:scenes]
    parts = {
        "title": _escape(", ".join(table.methods)),
        "lead": _escape(f"{_listed(table.methods)} on {len(pairs)} pairs of infrared and visible pictures."),
        "facts": _facts(table, len(pairs)),
        "table": _means(table),
        "balance": _balance(table),
        "comparison": _comparison(comparisons, compared),
        "plots": "".join(_plot(table, key) for key in table.keys),
        "scenes_note": _scenes_note(len(shown), len(pairs), first),
        "notes": "".join(f"<p>{_escape(note)}</p>" for note in table.notes()),
        "data": _embedded(_data(table, shown, results, task, worth)),
    }
    page = files("diffmf_cli.metrics").joinpath("report.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], page)


def _escape(text: str) -> str:
    return html.escape(text)


def _embedded(data: Any) -> str:
    """JSON that no `</script>` inside can end."""
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _color(table: Table, method: str) -> str:
    return COLORS[table.methods.index(method) % len(COLORS)]


def _worth(table: Table, method: str) -> dict[str, float]:
    """Key to the mean place of a scene among all scenes of a method, over metrics: 0 worst, 1 best."""
    scores = [s for s in table.scores if s.method == method and s.error is None]
    places: dict[str, list[float]] = {score.key: [] for score in scores}
    for key in table.keys:
        goodness = METRICS[key].goodness
        known = sorted((goodness(s.values[key]), s.key) for s in scores if math.isfinite(s.values[key]))
        for place, (_, scene) in enumerate(known):
            places[scene].append(place / max(len(known) - 1, 1))
    return {scene: sum(found) / len(found) if found else 0.0 for scene, found in places.items()}


def _facts(table: Table, pairs: int) -> str:
    failed = sum(score.error is not None for score in table.scores)
    facts = [
        ("Convention", table.convention.name),
        ("Pairs", str(pairs)),
        ("Methods", str(len(table.methods))),
        ("Not evaluated", str(failed)),
    ]
    return "".join(f"<li><span>{_escape(k)}</span> <b>{_escape(v)}</b></li>" for k, v in facts)


def _scenes_note(shown: int, pairs: int, first: str) -> str:
    which = f"All {pairs} scenes" if shown == pairs else f"The {shown} worst of {pairs} scenes for {first}"
    return _escape(f"{which}, worst first: by the mean place of a scene among all others, over the metrics.")


def _balance(table: Table) -> str:
    """For each method and metric of both sources the worst source, and how the parts share a bar."""
    keys = [column.removesuffix(".worst") for column in table.columns if column.endswith(".worst")]
    if not keys:
        return ""
    headings = "".join(
        f'<th data-first="descending"><button type="button">{_escape(key)} {METRICS[key].arrow}</button>'
        "<small>worst source</small></th>"
        for key in keys
    )
    rows = []
    for method in table.methods:
        cells = []
        for key in keys:
            ir, vis, worst = (table.figures[method][f"{key}.{part}"] for part in PARTS)
            texts = [format_figure(figure, table.counts[method])[0] for figure in (worst, ir, vis)]
            kind = {1: "best", 2: "second", 0: ""}[table.place(method, f"{key}.worst")]
            shares = [max(figure.mean, 0) if figure.n else 0 for figure in (ir, vis)]
            bar = "".join(
                f'<{tag} style="width:{100 * share / (sum(shares) or 1):.1f}%"></{tag}>'
                for tag, share in zip("is", shares, strict=True)
            )
            value = "" if number(worst.mean) is None else repr(worst.mean)
            cells.append(
                f'<td class="{kind}" data-value="{value}"><b>{texts[0]}</b><div class="split">{bar}</div>'
                f"<small>IR {texts[1]} · VIS {texts[2]}</small></td>"
            )
        rows.append(f"<tr><td>{_dot(table, method)}{_escape(method)}</td>{''.join(cells)}</tr>")
    return (
        "<h2>Balance of the sources</h2>"
        '<p class="note">A metric of both sources cannot tell balance from a copy of one input. Its parts '
        "are the values with each source alone; the worst source is the mean of the smaller part. "
        'The bar is shared by both parts:<span class="key" style="background:#e08e2b"></span>IR'
        '<span class="key" style="background:#3d87c4"></span>VIS.</p>'
        '<div class="panel scroll"><table class="sortable"><thead><tr>'
        f'<th><button type="button">method</button></th>{headings}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _dot(table: Table, method: str) -> str:
    return f'<span class="dot" style="background:{_color(table, method)}"></span>'


def _column_label(table: Table, key: str) -> tuple[str, str]:
    """Heading of a metric, and its variant for the small line below."""
    return f"{key} {METRICS[key].arrow}", table.convention.label(key).removeprefix(key).strip("[]")


def _means(table: Table) -> str:
    """The sortable table of means: a method a row."""
    several = len(table.methods) > 1
    headings = ['<th><button type="button">method</button></th>']
    for key in table.keys:
        name, small = _column_label(table, key)
        order = "descending" if METRICS[key].higher_is_better else "ascending"
        headings.append(
            f'<th data-first="{order}" title="{_escape(METRICS[key].title)}"><button type="button">'
            f"{_escape(name)}</button><small>{_escape(small) or '&nbsp;'}</small></th>"
        )
    if several:
        headings.append(
            '<th data-first="ascending"><button type="button">mean rank</button><small>&nbsp;</small></th>'
        )
    headings.append('<th data-first="descending"><button type="button">n</button><small>&nbsp;</small></th>')
    rows = []
    for method in table.methods:
        cells = [f"<td>{_dot(table, method)}{_escape(method)}</td>"]
        for key in table.keys:
            figure = table.figures[method][key]
            mean, spread = format_figure(figure, table.counts[method])
            kind = {1: "best", 2: "second", 0: ""}[table.place(method, key)]
            sorted_by = figure.mean if METRICS[key].higher_is_better is not None else abs(figure.mean)
            value = "" if number(sorted_by) is None else repr(sorted_by)
            cells.append(
                f'<td class="{kind}" data-value="{value}"><b>{mean}</b><small>{_escape(spread)}</small></td>'
            )
        if several:
            cells.append(f'<td data-value="{table.ranks[method]}">{table.ranks[method]:.2f}</td>')
        cells.append(f'<td data-value="{table.counts[method]}">{table.counts[method]}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = f"<thead><tr>{''.join(headings)}</tr></thead>"
    return f'<table class="sortable">{head}<tbody>{"".join(rows)}</tbody></table>'


def _comparison(rows: Sequence[Comparison], compared: tuple[str, str] | None) -> str:
    if not rows or compared is None:
        return ""
    body = []
    for row in rows:
        verdict = row.verdict()
        body.append(
            f"<tr><td>{_escape(row.column.replace('.', ' '))}</td><td>{row.difference:+.4g}</td>"
            f"<td>{row.p:.2g}</td><td>{row.adjusted:.2g}</td>"
            f'<td class="{verdict or "part"}">{verdict or "no difference"}</td><td>{row.n}</td></tr>'
        )
    return (
        f"<h2>{_escape(compared[0])} against {_escape(compared[1])}</h2>"
        '<p class="note">Wilcoxon\'s signed-rank test over scenes, two-sided; p is corrected after Holm for '
        "the number of tests, and differences count below 0.05.</p>"
        '<div class="panel scroll"><table><thead><tr><th>metric</th><th>median difference</th><th>p</th>'
        f"<th>p (Holm)</th><th>{_escape(compared[0])} is</th><th>n</th></tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _plot(table: Table, key: str) -> str:
    """Box and dots of each method on one axis, as inline SVG."""
    values = {m: [v for v in table.values(m, key) if math.isfinite(v)] for m in table.methods}
    everything = [v for found in values.values() for v in found]
    name, small = _column_label(table, key)
    caption = f"<figcaption>{_escape(name)} <span>{_escape(small)}</span></figcaption>"
    if not everything:
        return f'<figure class="panel">{caption}<p class="note">{UNDEFINED}</p></figure>'
    low, high = min(everything), max(everything)
    margin = (high - low) * 0.04 or 0.5
    low, high = low - margin, high + margin
    row, left, width = 30, 92, 420
    height = row * len(table.methods) + 22

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - 10)

    marks = []
    for tick in _ticks(low, high):
        at = x(tick)
        marks.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="2" y2="{height - 18}"/>')
        marks.append(f'<text x="{at:.1f}" y="{height - 5}" text-anchor="middle">{tick:g}</text>')
    for index, method in enumerate(table.methods):
        marks.append(
            _strip(method, sorted(values[method]), row * (index + 0.5) + 2, x, _color(table, method))
        )
    title = f"Distribution of {key} over scenes, by method"
    return (
        f'<figure class="panel">{caption}<svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{_escape(title)}">{"".join(marks)}</svg></figure>'
    )


def _strip(method: str, values: Sequence[float], y: float, x: Any, color: str) -> str:
    label = method if len(method) <= 13 else f"{method[:12]}…"
    marks = [f'<text x="0" y="{y + 4:.1f}">{_escape(label)}<title>{_escape(method)}</title></text>']
    if values:
        first, middle, third = (float(q) for q in np.percentile(values, (25, 50, 75)))
        for order, value in enumerate(values):
            # A fixed pattern instead of random jitter: two runs give the same page.
            offset = (order * 7 % 11 - 5) * 1.2
            marks.append(
                f'<circle cx="{x(value):.1f}" cy="{y + offset:.1f}" r="1.8" fill="{color}" opacity=".45"/>'
            )
        marks.append(
            f'<rect x="{x(first):.1f}" y="{y - 8:.1f}" width="{x(third) - x(first):.1f}" height="16" rx="2" '
            f'fill="{color}" fill-opacity=".16" stroke="{color}"/>'
            f'<line x1="{x(middle):.1f}" x2="{x(middle):.1f}" y1="{y - 8:.1f}" y2="{y + 8:.1f}" '
            f'stroke="{color}" stroke-width="2.5"/>'
        )
        mean = x(sum(values) / len(values))
        marks.append(
            f'<path d="M{mean:.1f} {y - 4.5:.1f}l4.5 4.5-4.5 4.5-4.5-4.5z" fill="var(--card)" '
            f'stroke="{color}" stroke-width="1.5"><title>mean {sum(values) / len(values):.4g}</title></path>'
        )
    return "".join(marks)


def _ticks(low: float, high: float) -> Iterable[float]:
    """About four round values within a range."""
    raw = (high - low) / 4
    power = 10 ** math.floor(math.log10(raw))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= raw)
    start = math.ceil(low / step)
    return (round(index * step, 10) for index in range(start, math.floor(high / step) + 1))


def _data(
    table: Table,
    pairs: Sequence[Pair],
    results: Mapping[str, Mapping[str, Path]],
    task: Task,
    worth: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    shown = [column for column in table.columns if not column.endswith((".ir", ".vis"))]
    columns = []
    for column in shown:
        key, _, part = column.partition(".")
        label = f"{key} worst source" if part else f"{key} {METRICS[key].arrow}"
        columns.append(
            {"key": column, "label": label, "higher": metric_of(column).higher_is_better, "part": bool(part)}
        )
    scores = {(score.method, score.key): score for score in table.scores}
    scenes = []
    for pair in pairs:
        found = [scores[method, pair.key] for method in table.methods if (method, pair.key) in scores]
        pictures, size = _pictures(pair, {m: r[pair.key] for m, r in results.items() if pair.key in r}, task)
        scenes.append(
            {
                "key": pair.key,
                "width": size[1],
                "height": size[0],
                "pictures": pictures,
                "values": {
                    s.method: {column: number(round(s.values[column], 6)) for column in shown}
                    for s in found
                    if s.error is None
                },
                "errors": {s.method: s.error for s in found if s.error is not None},
                "worth": {m: round(by[pair.key], 6) for m, by in worth.items() if pair.key in by},
            }
        )
    return {
        "methods": table.methods,
        "pictures": ["IR", "VIS", *table.methods],
        "left": "VIS",
        "right": table.methods[0],
        "columns": columns,
        "scenes": scenes,
    }


def _pictures(pair: Pair, paths: Mapping[str, Path], task: Task) -> tuple[dict[str, str], tuple[int, int]]:
    """Pictures of a scene by name, as data URLs; those that cannot be read are left out."""
    pixels: dict[str, np.ndarray] = {}
    try:
        vis = read_image(pair.vis).pixels
        size = (vis.shape[0], vis.shape[1])
        ir = grey_infrared(resize_to(read_image(pair.ir).pixels, size, task.stretch), task.ir_range)
        pixels = {"IR": ir, "VIS": vis}
    except DiffmfError:
        size = (0, 0)
    for method, path in paths.items():
        try:
            pixels[method] = read_image(path).pixels
        except DiffmfError:
            continue
    if "VIS" in pixels and task.baselines:
        for name, fuse in BASELINES.items():
            pixels[name] = fuse(pixels["IR"], grey(pixels["VIS"]))
    return {name: _data_url(picture) for name, picture in pixels.items()}, size


def _data_url(pixels: np.ndarray) -> str:
    if pixels.dtype != np.uint8:
        pixels = from_unit(to_unit(pixels), np.uint8)
    factor = PICTURE_SIDE / max(pixels.shape[:2])
    if factor < 1:
        size = (max(round(pixels.shape[1] * factor), 1), max(round(pixels.shape[0] * factor), 1))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    data = encode_image(pixels, None, ".webp", QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"
