"""What a batch is made of: one job in, one outcome out."""

from dataclasses import dataclass, field
from typing import Any

REASONS = {
    "unreadable": "a picture or folder cannot be read",
    "unsuitable": "the two pictures do not fit together",
    "ambiguous": "names that could pair with several others",
    "collision": "results of one name",
    "outside": "results outside of OUT",
    "unusable": "the network gave no picture",
    "unwritable": "the result cannot be written",
    "worker": "the process that worked on it died",
    "bug": "unexpected; please report it",
}


@dataclass(frozen=True)
class Job:
    """One pair to fuse.

    Attributes:
        key: Name of the scene: the same on every machine, whatever the folders are called.
        ir: Path or URL of the infrared picture.
        vis: Path or URL of the visible picture.
        output: Path or URL of the result, below OUT.
        name: `output` relative to OUT, which identifies the job in the manifest.
        attempt: Above 1 where a worker died over it, perhaps after writing the result.
    """

    key: str
    ir: str
    vis: str
    output: str
    name: str
    attempt: int = 1

    def record(self) -> dict[str, Any]:
        """The job as a JSON object, which `--pairs` reads back."""
        return {"type": "pair", "key": self.key, "ir": self.ir, "vis": self.vis, "output": self.name}


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: The job.
        status: `done`, `skipped` or `failed`.
        reason: Kind of failure, for counting: a key of `REASONS`.
        message: One line: what, which file or value, how to fix.
        details: Traceback of an unexpected failure.
        width: Of the result, in pixels; 0 where there is none.
        height: Of the result.
        seconds: Time spent by phase: `read`, `model`, `write`.
        notices: What deserves attention, such as an infrared picture of another size.
    """

    job: Job
    status: str
    reason: str = ""
    message: str = ""
    details: str = ""
    width: int = 0
    height: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The outcome as a JSON object: a line of the manifest and of `--json`."""
        record = {**self.job.record(), "status": self.status}
        if self.status == "failed":
            record |= {"reason": self.reason, "message": self.message}
        if self.status == "done":
            seconds = {phase: round(spent, 4) for phase, spent in self.seconds.items()}
            record |= {"width": self.width, "height": self.height, "seconds": seconds}
        return {**record, "notices": list(self.notices)}


@dataclass(frozen=True)
class Settings:
    """How every pair of a batch is fused: the options of `diffmf fuse`.

    Attributes:
        ir_range: Already one range, `LO,HI`, where `set:` was asked for.
        raw: How infrared files without a header lie, or empty.
        align: `none`, `auto` for each pair by itself, or a saved transform for all.
        batch_size: Pairs of one size that the network takes at once; 0 chooses by device and size.
        overwrite: Replace results that exist.
    """

    model: str
    device: str = "auto"
    precision: str = "auto"
    scan_backend: str = "auto"
    tile: str = "auto"
    task: str = "auto"
    color: str = "auto"
    ir_range: str = "auto"
    raw: str = ""
    stretch: bool = False
    align: str = "none"
    outside: str = "vis"
    fov_ratio: float | None = None
    depth: str = "auto"
    quality: int = 95
    batch_size: int = 0
    overwrite: bool = False
