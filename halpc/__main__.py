"""`python -m halpc` and the command `halpc`: an interrupt is one line and 130 from the first import on."""

from __future__ import annotations

import sys


def run() -> int:
    """The command line; its exit code."""
    try:
        from halpc.cli import main
    except KeyboardInterrupt:
        print("halpc: interrupted before anything was done", file=sys.stderr)
        return 130
    return main()


if __name__ == "__main__":
    raise SystemExit(run())
