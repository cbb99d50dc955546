"""`diffmf evaluate`: the field's metrics of one or several methods, side by side."""

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffmf_cli.cli import options
from diffmf_cli.cli.output import out
from diffmf_cli.errors import UsageError
from diffmf_cli.metrics.catalogue import CONVENTIONS, METRICS, PRESETS, choose_convention, choose_metrics
from diffmf_cli.threads import limit_threads

if TYPE_CHECKING:
    from rich.console import RenderableType

    from diffmf_cli.images.pairs import Pair
    from diffmf_cli.metrics.evaluation import Score
    from diffmf_cli.metrics.table import Table

log = logging.getLogger(__name__)

HELP = """
Measure fused pictures with the field's metrics, one or several methods side by side.

[bold]Examples[/bold]

  diffmf evaluate --ir ir/ --vis vi/ --fused ours=out/ --baselines
  diffmf evaluate --ir ir/ --vis vi/ --fused A=a/ --fused B=b/ --compare A,B --report report.html
  diffmf evaluate --ir ir/ --vis vi/ --fused out/ --metrics card --json > scores.jsonl

[dim]Files pair by name: see docs/metrics.md, also for what each metric and convention means.[/dim]
"""
_FILES, _FIGURES, _OUTPUT = "Files", "Metrics", "Results"
_REPORT_PICTURES = 50


def evaluate(
    ir: Annotated[Path, options.option("--ir", metavar="DIR", help="Infrared pictures.", panel=_FILES)],
    vis: Annotated[Path, options.option("--vis", metavar="DIR", help="Visible pictures.", panel=_FILES)],
    fused: Annotated[
        list[str] | None,
        options.option(
            "--fused", metavar="[NAME=]DIR", help="One method's results; once for each method.", panel=_FILES
        ),
    ] = None,
    baselines: Annotated[
        bool,
        options.flag(
            "--baselines", help="Also the pixel-wise average and maximum of the sources.", panel=_FILES
        ),
    ] = False,
    pair_by: Annotated[
        str | None,
        options.option(
            "--pair-by",
            metavar="REGEX",
            help="Pair by a named group, such as '(?P<id>[0-9]+)', not by name.",
            panel=_FILES,
        ),
    ] = None,
    recursive: Annotated[
        bool, options.flag("--recursive", "-r", help="Folders below count as well.", panel=_FILES)
    ] = False,
    strict: Annotated[
        bool, options.flag("--strict", help="Pictures without a partner are an error.", panel=_FILES)
    ] = False,
    dry_run: Annotated[
        bool, options.flag("--dry-run", help="Only show which files belong together.", panel=_FILES)
    ] = False,
    metrics: Annotated[
        str,
        options.option(
            "--metrics",
            metavar="|".join(PRESETS) + "|EN,SD,...",
            help=f"A preset or names: {' '.join(METRICS)}.",
            panel=_FIGURES,
        ),
    ] = "cddfuse",
    convention: Annotated[
        str,
        options.option(
            "--convention",
            metavar="|".join(CONVENTIONS),
            help="Whose variant, where toolkits differ.",
            panel=_FIGURES,
        ),
    ] = "cddfuse",
    balance: Annotated[
        bool | None,
        typer.Option(
            "--balance/--no-balance",
            envvar="DIFFMF_BALANCE",
            show_envvar=False,
            metavar="",
            help="Show the part of each source; on in the preset card.",
            rich_help_panel=_FIGURES,
        ),
    ] = None,
    compare: Annotated[
        str | None,
        options.option(
            "--compare", metavar="A,B", help="Wilcoxon's paired test of two methods.", panel=_FIGURES
        ),
    ] = None,
    ir_range: options.IrRangeOption = "auto",
    stretch: options.StretchOption = False,
    device: Annotated[
        str,
        options.option(
            "--device", metavar="auto|cpu|cuda[:N]", help="Where metrics are computed.", panel=_FIGURES
        ),
    ] = "auto",
    workers: Annotated[
        int | None,
        options.option(
            "--workers", metavar="N", help="Pictures at once; as many as threads by default.", panel=_FIGURES
        ),
    ] = None,
    threads: options.ThreadsOption = None,
    per_image: Annotated[
        bool,
        options.flag("--per-image", help="Also a row for each picture, in --csv as well.", panel=_OUTPUT),
    ] = False,
    csv: Annotated[
        Path | None, options.option("--csv", metavar="FILE", help="Write a CSV table.", panel=_OUTPUT)
    ] = None,
    latex: Annotated[
        Path | None, options.option("--latex", metavar="FILE", help="Write a LaTeX table.", panel=_OUTPUT)
    ] = None,
    markdown: Annotated[
        Path | None,
        options.option("--markdown", metavar="FILE", help="Write a Markdown table.", panel=_OUTPUT),
    ] = None,
    report: Annotated[
        Path | None,
        options.option(
            "--report", metavar="FILE.html", help="Write a page with pictures, opens offline.", panel=_OUTPUT
        ),
    ] = None,
    report_pictures: Annotated[
        int,
        options.option(
            "--report-pictures", metavar="N", help="Scenes shown in it, the worst ones.", panel=_OUTPUT
        ),
    ] = _REPORT_PICTURES,
    resume: Annotated[
        Path | None,
        options.option(
            "--resume", metavar="FILE", help="Keep scores in FILE and reuse those it holds.", panel=_OUTPUT
        ),
    ] = None,
    overwrite: Annotated[
        bool, options.flag("--overwrite", help="Replace existing tables and reports.", panel=_OUTPUT)
    ] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Evaluates folders of pictures; the help text is `HELP`."""
    out.configure(json=json, quiet=quiet, verbose=verbose)
    limit_threads(threads)
    keys = choose_metrics(metrics)
    chosen = choose_convention(convention)
    folders = _name_folders(fused or [], baselines)
    compared = _two_methods(compare) if compare is not None else None
    if workers is not None and workers < 1:
        raise UsageError(f"workers {workers} is out of range: use 1 or more")
    if report_pictures != _REPORT_PICTURES and report is None:
        raise UsageError(f"--report-pictures {report_pictures} is of a report: add --report FILE.html")
    files = [file for file in (csv, latex, markdown, report) if file is not None]
    for file in files:
        if file.is_dir():
            raise UsageError(f"{file} is a folder: name a file in it")
        if file.exists() and not overwrite:
            raise UsageError(f"{file} exists: choose another name, or --overwrite")
    pairs, results = _pair(ir, vis, folders, pair_by, recursive, strict)
    if dry_run:
        _show_pairs(pairs, results)
        return

    with out.status("Loading"):
        from diffmf_cli.fusion.device import check_device_name, resolve_device
        from diffmf_cli.images.range import IntensityRange
        from diffmf_cli.images.write import write_atomically
        from diffmf_cli.metrics import table as tables
        from diffmf_cli.metrics import terminal
        from diffmf_cli.metrics.evaluation import BASELINES, KeptScores, Task, evaluate_pairs

        check_device_name(device)
        # Metrics need float64, which Apple GPUs lack.
        place = resolve_device(device)
        place_name = "cpu" if place.type == "mps" else str(place)
        task = Task(keys, chosen, IntensityRange.parse(ir_range), stretch, baselines, place_name)
        methods = [*folders, *(BASELINES if baselines else ())]
        if compared and (unknown := [name for name in compared if name not in methods]):
            raise UsageError(f"--compare {compare}: no method '{unknown[0]}' among {', '.join(methods)}")
        kept = KeptScores(resume) if resume is not None else None
        count = workers or (1 if place_name != "cpu" else threads or os.cpu_count() or 1)

    show_balance = balance if balance is not None else "card" in metrics.lower().split(",")
    total = sum(len(by_key) for by_key in results.values()) + (
        len(BASELINES) * len(pairs) if baselines else 0
    )
    scores: list[Score] = []
    for score in _progress(evaluate_pairs(pairs, results, task, workers=count, kept=kept), total):
        scores.append(score)
        out.record(tables.image_record(score, show_balance))
        if score.error is not None:
            log.warning("%s, %s: %s", score.method, score.key, score.error)

    table = tables.Table(methods, keys, chosen, scores, show_balance)
    tests = tables.compare(table, *compared) if compared else []
    if per_image:
        out.show(_fitting(terminal.per_image_to_terminal(table)))
    out.show(_fitting(terminal.to_terminal(table)))
    if compared:
        out.show(_fitting(terminal.comparison_to_terminal(tests, *compared)))
    if markdown is not None:
        write_atomically(markdown, tables.to_markdown(table).encode(), overwrite)
    if latex is not None:
        write_atomically(latex, tables.to_latex(table).encode(), overwrite)
    if csv is not None:
        write_atomically(csv, tables.to_csv(table, per_image).encode(), overwrite)
    if report is not None:
        from diffmf_cli.metrics.report import to_html

        with out.status("Writing the report"):
            page = to_html(table, pairs, results, task, report_pictures, tests, compared)
            write_atomically(report, page.encode(), overwrite)
    for file in files:
        out.talk(f"Wrote {file}")
    _finish(table, len(pairs), results, tests, compared)


def _name_folders(fused: Iterable[str], baselines: bool) -> dict[str, Path]:
    """Methods by name from `NAME=DIR` or `DIR`."""
    folders: dict[str, Path] = {}
    for word in fused:
        name, equals, folder = word.partition("=")
        path = Path(folder if equals else word)
        name = name if equals else path.resolve().name
        if not name or (equals and not folder):
            raise UsageError(f"--fused {word} is not understood: use NAME=DIR or DIR")
        if name in folders:
            raise UsageError(f"--fused {word}: a method is called '{name}' already, use NAME=DIR")
        if baselines and name in ("average", "maximum"):
            raise UsageError(f"--fused {word}: '{name}' is the name of a baseline, use another")
        folders[name] = path
    if not folders and not baselines:
        raise UsageError("nothing to evaluate: give --fused NAME=DIR, or --baselines")
    return folders


def _two_methods(compare: str) -> tuple[str, str]:
    names = [name.strip() for name in compare.split(",")]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise UsageError(f"--compare {compare} is not understood: name two methods, such as A,B")
    return names[0], names[1]


def _pair(
    ir: Path, vis: Path, folders: dict[str, Path], pair_by: str | None, recursive: bool, strict: bool
) -> tuple[list["Pair"], dict[str, dict[str, Path]]]:
    """Pairs, and each method's results by their keys; what is left over is told."""
    from diffmf_cli.images.pairs import match_results, pair_folders

    pairing = pair_folders(ir, vis, pair_by=pair_by, recursive=recursive)
    pairs = pairing.pairs
    if not pairs:
        raise UsageError(
            f"no name in {ir} matches one in {vis} (such as {pairing.ir_orphans[0].name} and "
            f"{pairing.vis_orphans[0].name}): say with --pair-by which part of a name counts"
        )
    loose = [(f"{ir}: no visible partner for", pairing.ir_orphans)]
    loose.append((f"{vis}: no infrared partner for", pairing.vis_orphans))
    results = {}
    for name, folder in folders.items():
        results[name], extra = match_results(pairs, vis, folder, pair_by=pair_by, recursive=recursive)
        if not results[name]:
            raise UsageError(
                f"no picture in {folder} is named after a pair (such as {extra[0].name} after "
                f"{pairs[0].key}): say with --pair-by which part of a name counts"
            )
        loose.append((f"{folder}: no pair for", extra))
        loose.append((f"{folder}: no result for", [Path(p.key) for p in pairs if p.key not in results[name]]))
    told = [f"{what} {_listed(names)}" for what, names in loose if names]
    if strict and told:
        raise UsageError(f"--strict: {'; '.join(told)}")
    for line in told:
        log.warning(line)
    return pairs, results


def _listed(paths: list[Path]) -> str:
    names = [path.name for path in paths]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"


def _show_pairs(pairs: list["Pair"], results: dict[str, dict[str, Path]]) -> None:
    lines = []
    for pair in pairs:
        found = {method: str(by_key[pair.key]) for method, by_key in results.items() if pair.key in by_key}
        out.record(
            {"type": "pair", "key": pair.key, "ir": str(pair.ir), "vis": str(pair.vis), "fused": found}
        )
        lines.append("\t".join([pair.key, str(pair.ir), str(pair.vis), *found.values()]))
    out.show("\n".join(lines))


def _progress(scores: Iterable["Score"], total: int) -> Iterator["Score"]:
    """Shows how far it is: a live line on a terminal, else a plain one every tenth."""
    live = sys.stderr is not None and sys.stderr.isatty()
    with out.status("Evaluating") as doing:
        for done, score in enumerate(scores, 1):
            yield score
            if live:
                doing(f"Evaluating {done}/{total}")
            elif total >= 20 and done * 10 // total > (done - 1) * 10 // total:
                out.talk(f"{done}/{total} pictures")


def _fitting(data: "RenderableType") -> "RenderableType":
    """Data as it is for a terminal; else as text of its own width, so that no cell is broken."""
    if sys.stdout is not None and sys.stdout.isatty():
        return data
    import io

    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=1000, highlight=False).print(data)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _finish(
    table: "Table",
    pairs: int,
    results: dict[str, dict[str, Path]],
    tests: list,
    compared: tuple[str, str] | None,
) -> None:
    """The last words: differing counts, failures, the summary record and the exit code."""
    counts = set(table.counts.values())
    if len(counts) > 1:
        listed = ", ".join(f"{method} {count}" for method, count in table.counts.items())
        log.warning(f"means are over different pictures ({listed}): they do not compare")
    failed = [score for score in table.scores if score.error is not None]
    if failed:
        out.error("ImageError", f"{len(failed)} of {len(table.scores)} pictures could not be evaluated", 1)
    missing = {method: pairs - len(by_key) for method, by_key in results.items()}
    summary = {**table.summary(), "pairs": pairs, "failed": len(failed), "missing": missing}
    if compared:
        rows = {
            t.column: {"n": t.n, "median_difference": t.difference, "p": t.p, "p_holm": t.adjusted}
            for t in tests
        }
        summary["comparison"] = {"methods": list(compared), "test": "Wilcoxon signed-rank", "metrics": rows}
    out.record({**summary, "notices": out.notices})
    if failed:
        raise typer.Exit(1)
