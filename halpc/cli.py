"""The command line: exit codes, logging, and what a person sees. Results on stdout, the rest on stderr."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Sequence

from halpc import commands
from halpc.apart import doing
from halpc.arguments import joined, parser_for
from halpc.errors import HalpcError, InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the result is the exit code."""
    _print_whatever()
    try:
        args = parser_for(commands).parse_args(joined(sys.argv[1:] if argv is None else argv))
        _log(args.verbose, args.quiet)
        doing(args.command)
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except HalpcError as error:
        print(f"halpc: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("halpc: interrupted; what was measured is kept, run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _print_no_more()
        return 1
    except OSError as error:
        _print_no_more()
        where = error.filename or "the current folder, or where the result is printed"
        print(f"halpc: {where}: {error.strerror or error}; make room, or give another place", file=sys.stderr)
        return InputError.exit_code


def _print_whatever() -> None:
    """What a terminal has no letter for is spelled, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _print_no_more() -> None:
    """Nobody takes what is left to be printed: let Python not fail with it at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _log(verbose: int, quiet: bool) -> None:
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="halpc: %(message)s", stream=sys.stderr)
    logging.getLogger().setLevel(logging.WARNING if verbose < 3 else logging.DEBUG)
    for name in ("halpc", "passes", "profilers"):
        logging.getLogger(name).setLevel(level)
