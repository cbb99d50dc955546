"""The one place where the program talks: data on stdout, everything else on stderr."""

import errno
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.status import Status
    from rich.table import Table


class Output(logging.Handler):
    """Sink of all words: human, JSON or quiet. What the library logs arrives here as notices.

    Attributes:
        json: stdout holds JSON objects, one a line, and nothing else.
        quiet: stderr holds errors and nothing else.
        verbose: unexpected exceptions show their traceback.
        notices: every notice of this run, for the JSON record.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.configure()

    def configure(self, *, json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        """Starts anew with the options that every command has."""
        self.json, self.quiet = json, quiet
        self.verbose = verbose or os.environ.get("DIFFMF_DEBUG", "") not in ("", "0")
        self.notices: list[str] = []
        self._status: Status | None = None

    def record(self, record: dict[str, Any]) -> None:
        """Writes one JSON object to stdout, in JSON mode only."""
        if self.json:
            self._write(json.dumps(record).encode() + b"\n")

    def show(self, data: "RenderableType") -> None:
        """Writes data meant for eyes to stdout, except in JSON mode."""
        if self.json:
            return
        if isinstance(data, str):
            text = f"{data}\n"  # untouched: rich would turn tabs into spaces
        else:
            console = self._console()
            with console.capture() as capture:
                console.print(data)
            text = capture.get()
        self._write(text.encode(errors="surrogateescape"))  # file names need not be text

    def binary(self, data: bytes) -> None:
        """Writes a picture to stdout."""
        self._write(data)

    def talk(self, message: "str | Table") -> None:
        """Says on stderr what was done."""
        if self.quiet or sys.stderr is None:
            return
        if isinstance(message, str):
            self._say(message)
        else:
            self._console(stderr=True).print(message)

    def failure(self, message: str) -> None:
        """Reports one failure among many, which does not end the run."""
        self._say(" ".join(message.split("\n")), "Failed: ", "bold red")

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a warning of the library as a notice."""
        message = record.getMessage()
        self.notices.append(message)
        if not self.quiet:
            self._say(message, "Note: ", "yellow")

    def error(self, kind: str, message: str, exit_code: int) -> None:
        """Reports the failure that ends the run, in one line, and as JSON where that was asked for."""
        message = " ".join(message.split("\n")).removesuffix(".")
        self._say(message, "Error: ", "bold red")
        self.record({"type": "error", "error": kind, "message": message, "exit_code": exit_code})

    def interrupted(self) -> None:
        """Reports Ctrl-C."""
        if self._status is not None:
            self._status.stop()
        self._say("Interrupted.")
        self.record({"type": "error", "error": "Interrupted", "message": "Interrupted.", "exit_code": 130})

    @contextmanager
    def status(self, doing: str) -> Iterator[Callable[[str], None]]:
        """Shows what is being done while the block runs, on a terminal only; yields a way to change it."""
        console = self._console(stderr=True)
        if self.quiet or not console.is_terminal:
            yield lambda doing: None
            return
        with console.status(doing) as self._status:
            yield self._status.update
        self._status = None

    def _say(self, message: str, label: str = "", style: str = "") -> None:
        if sys.stderr is None:
            return
        from rich.text import Text

        self._console(stderr=True).print(Text.assemble((label, style), message), soft_wrap=True)

    def _console(self, *, stderr: bool = False) -> "Console":
        from rich.console import Console

        if self._status is not None and stderr:
            return self._status.console  # so that a line does not tear the spinner
        return Console(stderr=stderr, highlight=False, markup=False)

    @staticmethod
    def _write(data: bytes) -> None:
        """Writes all of it to stdout now: what stays in a buffer fails at exit, too late to be reported."""
        if sys.stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), "standard output")
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError as error:
            # The unwritten rest would fail again when the interpreter flushes at exit.
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            raise OSError(error.errno, error.strerror, "standard output") from error


out = Output()


@contextmanager
def exit_at_once_on_interrupt() -> Iterator[None]:
    """Within the block Ctrl-C ends the process directly, for phases that leave nothing to clean up.

    A KeyboardInterrupt would not do: an extension module that is being imported, or a compiled callback, can
    swallow it, and the run would go on.
    """

    def leave(signum: int, frame: FrameType | None) -> None:
        out.interrupted()
        os._exit(130)

    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # started with nohup or in a background job: stay deaf
        yield
        return
    signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
