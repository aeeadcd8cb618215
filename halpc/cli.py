"""The command line: exit codes, logging, and what a person sees. Results on stdout, the rest on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from halpc import commands
from halpc.arguments import joined, parser_for
from halpc.errors import HalpcError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the result is the exit code."""
    try:
        args = parser_for(commands).parse_args(joined(sys.argv[1:] if argv is None else argv))
        _log(args.verbose, args.quiet)
        return int(args.run(args))
    except HalpcError as error:
        print(f"halpc: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("halpc: interrupted; what was measured is kept, run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def _log(verbose: int, quiet: bool) -> None:
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="halpc: %(message)s", stream=sys.stderr)
    logging.getLogger().setLevel(logging.WARNING if verbose < 3 else logging.DEBUG)
    for name in ("halpc", "passes", "profilers"):
        logging.getLogger(name).setLevel(level)
