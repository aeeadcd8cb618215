"""The command line: exit codes, logging, and what a person sees. Results on stdout, the rest on stderr."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from halpc import commands
from halpc.apart import doing
from halpc.arguments import joined, parser_for
from halpc.errors import HalpcError, InputError
from halpc.streams import printed, spell_all, tell


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the result is the exit code."""
    spell_all()
    try:
        args = _parsed(sys.argv[1:] if argv is None else argv)
        _log(args.verbose, args.quiet)
        doing(args.command)
        return int(args.run(args))
    except HalpcError as error:
        tell(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        tell("interrupted; what was measured is kept, run the same command again to go on")
        return 130
    except OSError as error:
        tell(f"{error.filename or 'the current folder'}: {error.strerror or error}; make room, or give another place")
        return InputError.exit_code


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    try:
        return parser_for(commands).parse_args(joined(argv))
    except SystemExit:  # of --help and --version
        with printed():
            pass
        raise


def _log(verbose: int, quiet: bool) -> None:
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="halpc: %(message)s", stream=sys.stderr)
    logging.getLogger().setLevel(logging.WARNING if verbose < 3 else logging.DEBUG)
    for name in ("halpc", "passes", "profilers"):
        logging.getLogger(name).setLevel(level)
