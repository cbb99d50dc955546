"""Entry point of `diffmf` and of `python -m diffmf_cli`."""

import gc
import os
import sys


def main() -> None:
    """Runs the command line and exits with its code."""
    # Imports make a million objects that stay: looking for garbage among them after every 700 new ones took a
    # fifth of a start.
    gc.set_threshold(5_000)
    # Everything else is imported inside, so that Ctrl-C is one line from the first moment on.
    try:
        from diffmf_cli.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        code = 130
    except SystemExit as error:  # completion scripts, broken pipes
        code = error.code if isinstance(error.code, int) else 1
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            code = code or 1
    # Past the interpreter's shutdown: with torch loaded it takes half a second, in which Ctrl-C is a
    # traceback, and it can turn 130 into a death by signal.
    os._exit(code)


if __name__ == "__main__":
    main()
