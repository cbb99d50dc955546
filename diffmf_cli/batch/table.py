"""Which pairs a batch has: from folders or a list to jobs, with all that is wrong known before any work."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from diffmf_cli.batch import locations
from diffmf_cli.batch.job import Job, Outcome
from diffmf_cli.batch.locations import is_url, join
from diffmf_cli.batch.naming import OutsideError, ResultFolder, result_name
from diffmf_cli.batch.pair_list import Row
from diffmf_cli.errors import UsageError
from diffmf_cli.images.pairs import Listing, check_different, no_pictures, pair_names

IR_CHILDREN = ("ir", "infrared", "thermal", "lwir")
VIS_CHILDREN = ("vi", "vis", "visible", "rgb")


@dataclass
class PairTable:
    """What a batch consists of.

    Attributes:
        jobs: Pairs to fuse, each with a result of its own.
        failed: Pairs that cannot be fused as they stand: ambiguous names, two results of one name, a result
            outside OUT; and folders that cannot be read.
        ir_orphans: Infrared pictures without a partner.
        vis_orphans: Visible pictures without a partner.
        notes: What else deserves attention.
    """

    jobs: list[Job] = field(default_factory=list)
    failed: list[Outcome] = field(default_factory=list)
    ir_orphans: list[str] = field(default_factory=list)
    vis_orphans: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """Everything that is not a clean pair, a sentence each."""
        orphans = [f"{path} has no visible partner" for path in self.ir_orphans]
        orphans += [f"{path} has no infrared partner" for path in self.vis_orphans]
        return [f"{outcome.job.key}: {outcome.message}" for outcome in self.failed] + orphans


@dataclass(frozen=True)
class Naming:
    """Where results go: OUT, the template of `--name`, and the format."""

    out: str
    template: str = "{stem}_fused{ext}"
    format: str = "auto"


def children_of(root: str) -> tuple[str, str]:
    """The infrared and the visible folder in a folder that holds both.

    Raises:
        UsageError: There is not exactly one of each.
    """
    names = locations.list_folders(root)
    found = []
    for known, kind in ((IR_CHILDREN, "infrared"), (VIS_CHILDREN, "visible")):
        fitting = [name for name in names if name.lower() in known]
        if len(fitting) != 1:
            what = f"several {kind} folders ({', '.join(fitting)})" if fitting else f"no {kind} folder"
            raise UsageError(f"{root} holds {what}: name one {'/'.join(known)}, or give IR_DIR and VIS_DIR")
        found.append(join(root, fitting[0]))
    return found[0], found[1]


def table_of_folders(
    ir: str,
    vis: str,
    naming: Naming,
    *,
    pair_by: str | None = None,
    recursive: bool = False,
    may_be_empty: bool = False,
) -> PairTable:
    """The pairs of two folders, by the rules of `diffmf_cli.images.pairs`.

    Args:
        ir: Path or URL of the infrared folder.
        vis: Path or URL of the visible folder.
        naming: Where results go; a folder of results inside the inputs is left out of them.
        pair_by: Regular expression with a named group that says which part of a name counts.
        recursive: Folders below count as well, and results keep the tree.
        may_be_empty: Folders that are still to be filled.

    Raises:
        UsageError: A folder is missing or empty, or two of the three are the same.
    """
    if is_url(ir) or is_url(vis):
        if ir.rstrip("/") == vis.rstrip("/"):
            raise UsageError(f"infrared and visible folder are the same ({ir}): give one of each kind")
    else:
        check_different(Path(ir), Path(vis))
    for folder in (ir, vis):
        if _same(folder, naming.out):
            raise UsageError(f"-o {naming.out} is an input folder: results would be the next run's inputs")
    table = PairTable()
    listings = {}
    for folder in (ir, vis):
        listing = listings[folder] = locations.list_pictures(folder, recursive, naming.out)
        if not listing.names and not listing.unreadable and not may_be_empty:
            raise no_pictures(folder, recursive)
        _tell(listing, table)
    found = pair_names(listings[ir].names, listings[vis].names, pair_by=pair_by, folders=(ir, vis))
    table.ir_orphans = [join(ir, name) for name in found.ir_orphans]
    table.vis_orphans = [join(vis, name) for name in found.vis_orphans]
    unclear: dict[str, list[str]] = {}
    for ambiguity in found.ambiguous:
        unclear.setdefault(ambiguity.key, []).append(str(ambiguity))
    for key, messages in unclear.items():
        table.failed.append(_failure(key, "ambiguous", "; ".join(messages)))
    _add_jobs(table, naming, ((key, join(ir, i), join(vis, v), i, v, "") for key, i, v in found.pairs))
    return table


def table_of_list(rows: Iterable[Row], naming: Naming) -> PairTable:
    """The pairs of a list; a name that it gives to a result is one below OUT."""
    table = PairTable()

    def pairs() -> Iterable["_Pair"]:
        for row in rows:
            # A list has no folders to mirror: what keeps names apart is the column `output`.
            ir, vis = PurePosixPath(row.ir), PurePosixPath(row.vis)
            yield row.key or vis.stem, row.ir, row.vis, PurePath(ir.name), PurePath(vis.name), row.output

    _add_jobs(table, naming, pairs())
    return table


_Pair = tuple[str, str, str, PurePath, PurePath, str]  # key, ir, vis, their names, the result's name or ""


def _add_jobs(table: PairTable, naming: Naming, pairs: Iterable[_Pair]) -> None:
    out = ResultFolder(naming.out)
    by_output: dict[str, list[Job]] = {}
    inputs: set[str] = set()
    for key, ir, vis, ir_name, vis_name, output in pairs:
        inputs.update((_absolute(ir), _absolute(vis)))
        name = (
            PurePath(output)
            if output
            else result_name(naming.template, naming.format, key, ir_name, vis_name)
        )
        try:
            job = Job(key, ir, vis, out.place(name), name.as_posix())
        except OutsideError as error:
            table.failed.append(_failure(key, "outside", str(error), ir, vis))
            continue
        by_output.setdefault(job.output, []).append(job)
    for output, jobs in by_output.items():
        if len(jobs) > 1:
            for job in jobs:
                others = ", ".join(other.vis for other in jobs if other is not job)
                message = f"{job.vis} and {others} would both become {output}: give --name or other names"
                table.failed.append(_failure(job.key, "collision", message, job.ir, job.vis))
        elif _absolute(output) in inputs:
            message = f"{output} is an input, which would be lost: choose another OUT or --name"
            table.failed.append(_failure(jobs[0].key, "collision", message, jobs[0].ir, jobs[0].vis))
        else:
            table.jobs.append(jobs[0])


def _tell(listing: Listing, table: PairTable) -> None:
    table.notes += listing.loops
    for message in listing.unreadable:
        table.failed.append(_failure("folder", "unreadable", message))


def _failure(key: str, reason: str, message: str, ir: str = "", vis: str = "") -> Outcome:
    return Outcome(Job(key, ir, vis, "", ""), "failed", reason, message)


def _absolute(location: str) -> str:
    return location if is_url(location) else os.path.abspath(location)


def _same(one: str, other: str) -> bool:
    if is_url(one) or is_url(other):
        return one.rstrip("/") == other.rstrip("/")
    return os.path.realpath(one) == os.path.realpath(other)
