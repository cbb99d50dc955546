"""Ctrl-C that waits for a good moment."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_interrupt() -> Iterator[Callable[[], bool]]:
    """Within the block a first Ctrl-C only notes that it came, so that nothing is left half done.

    Yields:
        Whether Ctrl-C came, for the block to ask where it may end.

    Raises:
        KeyboardInterrupt: where the block ends, if Ctrl-C came.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield lambda: False
        return
    came = False
    before = signal.getsignal(signal.SIGINT)

    def note(signum: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.signal(signal.SIGINT, before)

    if before is not signal.SIG_IGN:  # started with nohup or in a background job: stay deaf
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt
