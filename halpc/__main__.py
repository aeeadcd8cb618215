"""`python -m halpc` and the command `halpc`: an interrupt is one line and 130 from the first import on.

So are SIGTERM and SIGHUP (a batch system's time limit, a connection that is lost), where nobody has them ignored.
"""

from __future__ import annotations

import signal
import sys


def run() -> int:
    """The command line; its exit code."""
    try:
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _interrupt)
        from halpc.cli import main
    except KeyboardInterrupt:
        print("halpc: interrupted before anything was done", file=sys.stderr)
        return 130
    return main()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(run())
