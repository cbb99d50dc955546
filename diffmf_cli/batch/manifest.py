"""The manifest: a JSONL file in which a batch keeps what it did, whole after `kill -9`.

A run appends a line `run` with its settings, a line for each pair that it fused or failed at, and a line
`summary`. Each line is one write to the end of the file; one that a crash cut short is ignored.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import diffmf_cli
from diffmf_cli.errors import DiffmfError, UsageError

try:
    import fcntl
except ImportError:  # Windows: two batches at once are not noticed there
    fcntl = None  # type: ignore[assignment]


@dataclass
class History:
    """What a manifest says of the run that `--resume` would continue.

    Attributes:
        settings: Of that run; empty where there was none.
        ir_range: The range that `set:` became then, or empty.
        done: Names of the results that it wrote.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    ir_range: str = ""
    done: set[str] = field(default_factory=set)


def read_history(path: Path) -> History:
    """Reads a manifest; a missing one is an empty history.

    Raises:
        UsageError: The file cannot be read.
    """
    history = History()
    try:
        with open(path, "rb") as file:
            for record in _records(file):
                if record.get("type") == "run" and not record.get("resumed"):
                    history = History(record.get("settings", {}), record.get("ir_range", ""))
                elif record.get("type") == "pair":
                    (history.done.add if record.get("status") == "done" else history.done.discard)(
                        record.get("output", "")
                    )
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(
            f"manifest {path} cannot be read ({error.strerror}): give another --manifest"
        ) from None
    return history


def _records(file: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    for line in file:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


class Manifest:
    """A manifest that is open for a run, which no other run may write to meanwhile.

    Attributes:
        path: Of the file.
        trouble: Why lines are missing, or empty.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.trouble = path, ""
        self._torn = False  # the last line is cut short
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "ab+", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise DiffmfError(
                f"manifest {path} cannot be written ({error.strerror}): choose another OUT, or --manifest"
            ) from None
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._file.close()
                raise UsageError(
                    f"{path} is in use by another diffmf batch: wait for it, or give another --manifest"
                ) from None
            except OSError:  # a file system without locks
                pass
        size = self._file.seek(0, os.SEEK_END)
        if size:
            self._file.seek(size - 1)
            self._torn = self._file.read(1) != b"\n"

    def begin(self, settings: dict[str, Any], *, ir_range: str, resumed: bool) -> None:
        """Writes the line of a run."""
        self.append(
            {
                "type": "run",
                "diffmf": diffmf_cli.__version__,
                "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "resumed": resumed,
                "settings": settings,
                "ir_range": ir_range,
            }
        )

    def append(self, record: dict[str, Any]) -> None:
        """Writes one line; a full disk costs the line, not the run."""
        line = b"\n" * self._torn + json.dumps(record).encode() + b"\n"
        try:
            self._torn = self._file.write(line) < len(line)
        except OSError as error:
            self.trouble = error.strerror or str(error)
        if self._torn:
            self.trouble = "the disk is full"

    def close(self) -> None:
        """Brings everything to the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            self.trouble = self.trouble or error.strerror or str(error)
        self._file.close()

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
