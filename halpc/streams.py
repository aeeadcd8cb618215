"""What is printed where nobody may be listening: streams that are closed, full, short of letters, or without a reader.

A result is on stdout, everything else on stderr. Only a result that is lost is an error; a reader that has read enough
is none, and what happened counts more than that it could not be said.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from halpc.errors import OutputError


def reopen() -> None:
    """Let streams that were closed lead nowhere, so that no file of this process takes their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def spell_all() -> None:
    """What a terminal has no letter for is spelled, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def tell(line: str) -> None:
    """A line on stderr, where it can be printed there."""
    with contextlib.suppress(OSError, ValueError):
        print(f"halpc: {line}", file=sys.stderr)


@contextlib.contextmanager
def printed(written: Path | None = None) -> Iterator[None]:
    """Around what prints a result; `written` is where its files are, if there are any.

    Raises:
        OutputError: it cannot be printed, for another reason than that its reader has gone.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _print_no_more()
    except OSError as error:
        if error.filename is not None:
            raise
        _print_no_more()
        kept = "" if written is None else f"; everything was written: {written}"
        raise OutputError(f"the result cannot be printed: {error.strerror or error}{kept}") from error


def _print_no_more() -> None:
    """Let Python not fail at its end with what is left to be printed."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
