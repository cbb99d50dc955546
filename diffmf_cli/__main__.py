"""Entry point of `diffmf` and of `python -m diffmf_cli`."""

import os
import signal
import sys


def main() -> None:
    """Runs the command line and exits with its code."""
    # Everything else is imported inside, so that Ctrl-C is one line from the first moment on.
    try:
        from diffmf_cli.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        code = 130
    if code == 130:
        # Past the interpreter's shutdown: it can turn the code into a death by signal, which only shells call 130.
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)
    # All is done or reported: Ctrl-C could only add the traceback of the interpreter's shutdown.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


if __name__ == "__main__":
    main()
