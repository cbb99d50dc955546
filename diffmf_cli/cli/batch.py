"""`diffmf batch`: folders and lists of pairs."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffmf_cli.batch.job import Job, Outcome, Settings
from diffmf_cli.batch.locations import ExistingResults, is_url, without_file_scheme
from diffmf_cli.batch.manifest import History, Manifest, read_history
from diffmf_cli.batch.naming import check_template
from diffmf_cli.batch.pair_list import STREAM, read_pair_list
from diffmf_cli.batch.sharding import Shard
from diffmf_cli.batch.summary import Summary
from diffmf_cli.batch.table import Naming, PairTable, children_of, table_of_folders, table_of_list
from diffmf_cli.cli import options
from diffmf_cli.cli.output import exit_at_once_on_interrupt, out
from diffmf_cli.errors import UsageError, check_choice
from diffmf_cli.interrupt import held_interrupt
from diffmf_cli.threads import limit_threads

if TYPE_CHECKING:
    from diffmf_cli.batch.engine import Engine

HELP = """
Fuse many pairs: folders, or a list of files.

[bold]Examples[/bold]

  diffmf batch ir/ vis/ -o fused/                   pairs by name; skips results that exist
  diffmf batch dataset/ -o fused/ -r --dry-run      dataset/ holds ir/ and vis/; shows what would be done
  diffmf batch --pairs list.csv -o fused/           columns ir,vis[,output][,key]; - reads stdin
  diffmf batch ir/ vis/ -o fused/ --resume          goes on where a run was interrupted
  diffmf batch ir/ vis/ -o fused/ --ir-range set:1,99     one range for all, so that frames compare
  diffmf batch ir/ vis/ -o fused/ --gpus all        one process for each GPU
  diffmf batch s3://b/ir s3://b/vis -o s3://b/fused --shard 3/16

[dim]One bad pair does not stop the rest: it is reported, and the exit code is 1. See docs/batch.md.[/dim]
"""
_FILES, _RUN, _SCALE = "Files", "Run", "Scale"
_NOTES_SHOWN = 3


def batch(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IR_DIR VIS_DIR | ROOT]", help="Two folders, or one that holds ir/ and vis/; URLs too."
        ),
    ] = None,
    output: Annotated[
        str | None,
        options.option("--output", "-o", metavar="OUT_DIR", help="Folder of the results.", panel=_FILES),
    ] = None,
    pairs: Annotated[
        str | None,
        options.option(
            "--pairs", metavar="FILE|-", help="A list of pairs instead: CSV or JSON lines.", panel=_FILES
        ),
    ] = None,
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
        bool,
        options.flag(
            "--recursive", "-r", help="Folders below too; OUT_DIR gets the same tree.", panel=_FILES
        ),
    ] = False,
    strict: Annotated[
        bool,
        options.flag("--strict", help="Anything that is no clean pair stops all, before work.", panel=_FILES),
    ] = False,
    name: Annotated[
        str,
        options.option(
            "--name",
            metavar="TEMPLATE",
            help="Of results; fields: stem (of VIS), ir_stem, key, ext.",
            panel=_FILES,
        ),
    ] = "{stem}_fused{ext}",
    dry_run: Annotated[
        bool, options.flag("--dry-run", help="Only show the pairs and where results go.", panel=_RUN)
    ] = False,
    resume: Annotated[
        bool,
        options.flag(
            "--resume",
            help="Go on with the last run and its settings: what failed or is missing.",
            panel=_RUN,
        ),
    ] = False,
    fail_fast: Annotated[
        bool, options.flag("--fail-fast", help="Stop after the first failure.", panel=_RUN)
    ] = False,
    manifest: Annotated[
        Path | None,
        options.option(
            "--manifest",
            metavar="FILE",
            help="JSON lines of what was done; OUT_DIR/manifest.jsonl by default.",
            panel=_RUN,
        ),
    ] = None,
    watch: Annotated[
        float | None,
        options.option(
            "--watch",
            metavar="SECONDS",
            help="Look for new pairs so often, until Ctrl-C; files must have stopped growing.",
            panel=_RUN,
        ),
    ] = None,
    until_idle: Annotated[
        float | None,
        options.option(
            "--until-idle",
            metavar="SECONDS",
            help="End --watch when nothing new came for so long.",
            panel=_RUN,
        ),
    ] = None,
    batch_size: Annotated[
        str,
        options.option(
            "--batch-size",
            metavar="auto|N",
            help="Pairs of one size at once; auto is 1 without CUDA, else by size.",
            panel=_SCALE,
        ),
    ] = "auto",
    gpus: Annotated[
        str | None,
        options.option(
            "--gpus", metavar="all|0,1,...", help="One process for each of these GPUs.", panel=_SCALE
        ),
    ] = None,
    shard: Annotated[
        str,
        options.option(
            "--shard",
            metavar="i/N|auto",
            help="Only part i of N; auto reads what Slurm, torchrun or Kubernetes say.",
            panel=_SCALE,
        ),
    ] = "1/1",
    engine: Annotated[
        str,
        options.option(
            "--engine", metavar="local|ray", help="ray: on the cluster of RAY_ADDRESS.", panel=_SCALE
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        options.option(
            "--workers", metavar="N", help="Of --engine ray; one for each GPU or machine.", panel=_SCALE
        ),
    ] = None,
    model: options.ModelOption = "base",
    task: options.TaskOption = "auto",
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "auto",
    scan_backend: options.ScanBackendOption = "auto",
    tile: options.TileOption = "auto",
    threads: options.ThreadsOption = None,
    offline: options.OfflineOption = False,
    color: options.ColorOption = "auto",
    ir_range: Annotated[
        str,
        options.option(
            "--ir-range",
            metavar="auto|percentile:P,Q|set:P,Q|LO,HI",
            help="Which infrared values become black and white; set: is one range for the whole batch.",
            panel="Pictures",
        ),
    ] = "auto",
    raw: options.RawOption = None,
    stretch: options.StretchOption = False,
    align: options.AlignOption = "none",
    outside: options.OutsideOption = "vis",
    fov_ratio: options.FovRatioOption = None,
    depth: options.DepthOption = "auto",
    format: options.FormatOption = "auto",
    quality: options.QualityOption = options.QUALITY,
    overwrite: Annotated[
        bool, options.flag("--overwrite", help="Replace results that exist.", panel=_RUN)
    ] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Fuses many pairs; the help text is `HELP`."""
    out.configure(json=json, quiet=quiet, verbose=verbose)
    limit_threads(threads)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    check_choice("depth", depth, ("auto", "8", "16"))
    check_choice("format", format, ("auto", "png", "jpg", "tiff", "webp"))
    check_choice("engine", engine, ("local", "ray"))
    check_template(name, format)
    options.check_quality(quality, Path(name.replace("{ext}", f".{format}")).suffix)
    if workers is not None and (workers < 1 or engine != "ray"):
        raise UsageError(f"--workers {workers}: give 1 or more, with --engine ray")
    if gpus is not None and (engine == "ray" or device != "auto"):
        raise UsageError("--gpus is for the local engine, instead of --device: leave one of them out")
    for option, seconds in (("--watch", watch), ("--until-idle", until_idle)):
        if seconds is not None and not 0 < seconds < float("inf"):
            raise UsageError(f"{option} {seconds} is out of range: give a number of seconds above 0")
    if raw is not None and pairs is None:
        raise UsageError(f"--raw {raw}: folders are searched for pictures by extension, give --pairs instead")
    if until_idle is not None and watch is None:
        raise UsageError("--until-idle is an option of --watch: give both")
    if watch is not None and (pairs is not None or ir_range.strip().lower().startswith("set:")):
        other = "--pairs" if pairs is not None else "--ir-range set:"
        raise UsageError(f"--watch does not go with {other}, which needs the whole set: leave one out")
    if output is None:
        raise UsageError("no folder for the results: add -o OUT_DIR")
    part = Shard.parse(shard)
    naming = Naming(without_file_scheme(output), name, format)
    if not is_url(naming.out) and Path(naming.out).exists() and not Path(naming.out).is_dir():
        raise UsageError(f"-o {output} is a file: name a folder")
    settings = Settings(
        model=model,
        device=device,
        precision=precision,
        scan_backend=scan_backend,
        tile=tile,
        task=task,
        color=color,
        ir_range=ir_range,
        raw=raw or "",
        stretch=stretch,
        align=align,
        outside=outside,
        fov_ratio=fov_ratio,
        depth=depth,
        quality=quality,
        batch_size=_batch_size(batch_size),
        overwrite=overwrite,
    )

    scan = _scanner(inputs or [], pairs, naming, pair_by, recursive, may_be_empty=watch is not None)
    table = scan()
    if not table.jobs and not table.failed and watch is None:
        raise UsageError(
            f"no names match (such as {table.ir_orphans[0]} and {table.vis_orphans[0]}): say with --pair-by "
            "which part of a name counts"
        )
    if strict and (problems := table.problems()):
        more = f" (and {len(problems) - 1} more, see --dry-run)" if len(problems) > 1 else ""
        raise UsageError(f"--strict: {problems[0]}{more}")
    whole, table = table, _only(table, part)
    existing = ExistingResults(naming.out)
    _show_problems(table)
    if dry_run:
        _show_pairs(table, existing)
        if table.failed:
            raise typer.Exit(1)
        return

    summary = Summary()
    for outcome in table.failed:
        summary.add(outcome)
    sole = manifest is None and part.count == 1
    path = manifest or _manifest_path(naming.out, part)
    with exit_at_once_on_interrupt(), out.status("Reading settings"):
        facts = _facts(settings, naming)
        devices = _devices(gpus)
    history = read_history(path)
    _check_history(history, facts, path, resume)
    with Manifest(path) as kept:
        if sole and not is_url(naming.out):
            _remove_leftovers(naming.out, table.jobs)
        if resume and history.ir_range:
            settings = Settings(**{**asdict(settings), "ir_range": history.ir_range})
        elif ir_range.strip().lower().startswith("set:"):
            settings = Settings(**{**asdict(settings), "ir_range": _range_of_set(whole, ir_range, raw)})
        chosen = settings.ir_range if settings.ir_range != ir_range else ""
        kept.begin(facts, ir_range=chosen, resumed=resume and bool(history.settings))
        for outcome in table.failed:
            kept.append(outcome.record())

        def skip(job: Job) -> bool:
            redo = overwrite and not (resume and job.name in history.done)
            return not redo and job.output in existing

        def start() -> "Engine":
            with exit_at_once_on_interrupt(), out.status("Loading the model"):
                made = _engine(engine, devices, settings, workers)
            summary.start()
            return made

        jobs: Iterator[Job | None] = iter(table.jobs)
        if watch is not None:
            from diffmf_cli.batch.watch import watch_jobs

            jobs = watch_jobs(lambda: _only(scan(), part), interval=watch, until_idle=until_idle)
        from diffmf_cli.batch.engine import run_jobs

        total = None if watch is not None else len(table.jobs)
        with held_interrupt() as interrupted:
            try:
                with _progress(summary, total) as show:
                    for outcome in run_jobs(jobs, start, skip, interrupted=interrupted, fail_fast=fail_fast):
                        summary.add(outcome)
                        if outcome.status != "skipped":
                            kept.append(outcome.record())
                        out.record(outcome.record())
                        show(outcome)
            finally:
                orphans = len(table.ir_orphans) + len(table.vis_orphans)
                record = {**summary.record(), "orphans": orphans, "manifest": str(path)}
                kept.append(record)
                out.talk(summary.table())
                out.record(record)
    if kept.trouble:
        out.error("DiffmfError", f"manifest {path} is not complete ({kept.trouble}): make room", 1)
    if summary.status["failed"]:
        of = f"{summary.status['failed']} of {summary.total} pairs failed"
        out.error("ImageError", f"{of}: each is named above and in {path}", 1)
    if kept.trouble or summary.status["failed"]:
        raise typer.Exit(1)


def _batch_size(text: str) -> int:
    if text == "auto":
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"batch size '{text}' is not understood: use auto, or 1 and more")
    return int(text)


def _scanner(
    inputs: list[str],
    pairs: str | None,
    naming: Naming,
    pair_by: str | None,
    recursive: bool,
    may_be_empty: bool,
) -> Callable[[], PairTable]:
    """What finds the pairs: called once, or at every look of `--watch`."""
    inputs = [without_file_scheme(location) for location in inputs]
    if pairs is not None:
        if inputs:
            raise UsageError(f"--pairs {pairs} and folders both say what to fuse: leave one of them out")
        if pair_by is not None or recursive:
            raise UsageError("--pair-by and -r are for folders: a list says itself what belongs together")
        rows = read_pair_list(pairs if pairs == STREAM else without_file_scheme(pairs))
        return lambda: table_of_list(rows, naming)
    if not 1 <= len(inputs) <= 2:
        raise UsageError("give IR_DIR and VIS_DIR, or one folder that holds both, or --pairs FILE")
    ir, vis = inputs if len(inputs) == 2 else children_of(inputs[0])
    return lambda: table_of_folders(
        ir, vis, naming, pair_by=pair_by, recursive=recursive, may_be_empty=may_be_empty
    )


def _only(table: PairTable, part: Shard) -> PairTable:
    """The part of a table that this machine does; what is no pair is reported by the first one."""
    if part.count == 1:
        return table
    first = part.index == 1
    return PairTable(
        [job for job in table.jobs if job.key in part],
        table.failed if first else [],
        table.ir_orphans if first else [],
        table.vis_orphans if first else [],
        table.notes if first else [],
    )


def _show_problems(table: PairTable) -> None:
    """Everything that is no clean pair, before any work."""
    for note in table.notes:
        out.talk(f"Note: {note}")
    for side, partner, paths in (
        ("ir", "visible", table.ir_orphans),
        ("vis", "infrared", table.vis_orphans),
    ):
        for path in paths:
            out.record({"type": "orphan", "side": side, "path": path})
        if paths:
            listed = ", ".join(paths[:_NOTES_SHOWN])
            more = f" and {len(paths) - _NOTES_SHOWN} more" if len(paths) > _NOTES_SHOWN else ""
            out.talk(f"Note: no {partner} partner for {listed}{more}")
    for outcome in table.failed:
        out.failure(f"{outcome.job.key}: {outcome.message}")
        out.record(outcome.record())


def _show_pairs(table: PairTable, existing: ExistingResults) -> None:
    lines = []
    for job in table.jobs:
        there = job.output in existing
        out.record({**job.record(), "exists": there})
        lines.append("\t".join((job.key, job.ir, job.vis, job.output, "exists" if there else "new")))
    if lines:
        out.show("\n".join(lines))
    orphans = len(table.ir_orphans) + len(table.vis_orphans)
    out.talk(f"{len(table.jobs)} pairs, {len(table.failed)} that cannot be fused, {orphans} without partner")


def _manifest_path(folder: str, part: Shard) -> Path:
    name = "manifest.jsonl" if part.count == 1 else f"manifest-{part.index}-of-{part.count}.jsonl"
    if is_url(folder):  # object stores cannot append
        return Path(f"{folder.rstrip('/').rpartition('/')[2] or 'diffmf'}-{name}")
    return Path(folder) / name


def _facts(settings: Settings, naming: Naming) -> dict[str, Any]:
    """Checks what can be checked without torch; returns the settings that decide what results look like."""
    import hashlib

    from diffmf_cli.alignment.choice import parse_align
    from diffmf_cli.fusion.fuser import check_settings
    from diffmf_cli.images.raw import RawLayout
    from diffmf_cli.model.catalogue import check_task, find_weights

    check_settings(
        device=settings.device,
        precision=settings.precision,
        scan_backend=settings.scan_backend,
        tile=settings.tile,
        color=settings.color,
        ir_range=settings.ir_range,
    )
    parse_align(settings.align, settings.fov_ratio, settings.outside)
    if settings.raw:
        RawLayout.parse(settings.raw)
    weights = find_weights(settings.model)
    check_task(settings.model, weights, settings.task)
    with weights.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    decisive = (
        *("model", "precision", "color", "ir_range", "raw", "stretch", "align", "outside", "fov_ratio"),
        *("depth", "quality"),
    )
    values = asdict(settings)
    return {
        **{field: values[field] for field in decisive},
        "weights_sha256": checksum,
        "name": naming.template,
        "format": naming.format,
    }


def _devices(gpus: str | None) -> list[str]:
    """The devices of `--gpus`; none without it."""
    if gpus is None:
        return []
    from diffmf_cli.fusion.device import devices, resolve_device

    if gpus.strip().lower() == "all":
        found = [name for name in devices() if name.startswith("cuda")]
        if not found:
            resolve_device("cuda")  # says why there is none
        return found
    names = [word.strip() for word in gpus.split(",")]
    return [str(resolve_device(f"cuda:{name}" if name.isdecimal() else name)) for name in names]


def _check_history(history: History, facts: dict[str, Any], path: Path, resume: bool) -> None:
    changed = [field for field in facts if history.settings.get(field, facts[field]) != facts[field]]
    if not changed:
        return
    field = changed[0]
    differs = f"--{field.replace('_', '-')} was {history.settings[field]}, and is {facts[field]} now"
    if field == "weights_sha256":
        differs = f"the weights of {facts['model']} have changed"
    if resume:
        raise UsageError(
            f"--resume: results would not go together, {differs} (see {path}): "
            "use the same settings, or --overwrite without --resume"
        )
    out.talk(f"Note: results of an earlier run were made otherwise, {differs}: --overwrite makes them anew")


def _remove_leftovers(folder: str, jobs: list[Job]) -> None:
    """Temporary files of a run that was killed; the lock on the manifest says that it is no more."""
    for place in {Path(folder), *(Path(job.output).parent for job in jobs)}:
        if place.is_dir():
            for leftover in place.glob(".diffmf-*.tmp"):
                leftover.unlink(missing_ok=True)


def _range_of_set(table: PairTable, text: str, raw: str | None) -> str:
    with exit_at_once_on_interrupt(), out.status("Measuring the range of all infrared pictures"):
        from diffmf_cli.batch.common_range import range_of_set
        from diffmf_cli.images.range import IntensityRange
        from diffmf_cli.images.raw import RawLayout

        layout = None if raw is None else RawLayout.parse(raw)
        found = range_of_set((job.ir for job in table.jobs), IntensityRange.parse(text), layout)
    out.talk(f"--ir-range {text} is {found} for this set")
    return found


def _engine(name: str, devices: list[str], settings: Settings, workers: int | None) -> "Engine":
    if name == "ray":
        from diffmf_cli.batch.ray_engine import RayEngine

        return RayEngine(settings, workers=workers)
    if devices:
        from diffmf_cli.batch.processes import ProcessEngine

        return ProcessEngine(devices, settings)
    from diffmf_cli.batch.pipeline import Pipeline, load_fuser

    return Pipeline(load_fuser(settings), settings)


@contextmanager
def _progress(summary: Summary, total: int | None) -> Iterator[Callable[[Outcome], None]]:
    """Shows each failure, the first notices, and how far it is: live on a terminal, else every tenth."""
    live = sys.stderr is not None and sys.stderr.isatty()
    noticed = 0
    with out.status("Fusing") as doing:

        def show(outcome: Outcome) -> None:
            nonlocal noticed
            if outcome.status == "failed":
                out.failure(f"{outcome.job.key}: {outcome.message}")
                if outcome.details and out.verbose:
                    out.talk(outcome.details)
            for notice in outcome.notices:
                noticed += 1
                if noticed <= _NOTES_SHOWN:
                    out.talk(f"Note: {outcome.job.key}: {notice}")
            counts = f"{summary.status['done']} done, {summary.status['skipped']} skipped"
            counts += f", {summary.status['failed']} failed"
            if live:
                doing(f"Fusing: {counts}" + (f" of {total}" if total is not None else ""))
            elif total and total >= 20 and summary.total * 10 // total > (summary.total - 1) * 10 // total:
                out.talk(f"{summary.total}/{total}: {counts}")

        try:
            yield show
        finally:
            if noticed > _NOTES_SHOWN:
                out.talk(f"Note: {noticed - _NOTES_SHOWN} more notes are in the manifest")
