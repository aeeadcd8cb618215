"""`python -m halpc` and the command `halpc`: an interrupt is one line and 130 from the first import on.

So are SIGTERM and SIGHUP (a batch system's time limit, a connection that is lost), where nobody has them ignored.
"""

from __future__ import annotations

import contextlib
import sys


def run() -> int:
    """The command line; its exit code."""
    try:
        from halpc.streams import reopen

        reopen()
        from halpc.apart import apart

        return apart(_command)
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            print("halpc: interrupted before anything was done", file=sys.stderr)
        return 130


def _command() -> int:
    from halpc.cli import main

    return main()


if __name__ == "__main__":
    raise SystemExit(run())
