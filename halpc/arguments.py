"""The command line's arguments, and the options that they spell."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from halpc import __version__
from halpc.errors import UsageError
from halpc.idle import profiler_of, refuse_idle
from halpc.options import (
    LARGEST,
    MOST,
    PRECISIONS,
    PROFILERS,
    PROVIDERS,
    RECOVERIES,
    SCORES,
    SOLVERS,
    Options,
    path_of,
)
from halpc.units import Budget, parse_budget, parse_shapes, parse_values

EXIT_CODES = """\
exit codes: 0 met · 1 internal error · 2 usage · 3 invalid or unsupported input file · 4 infeasible budget
            5 verification failed · 6 backend missing or killed · 7 measured over budget · 130 interrupted (run again)
environment: HALPC_CACHE is the folder of latency tables (default: halpc in the user's cache folder)"""
RESOURCES = ("latency", "macs", "params", "peak_memory")
_OPTION, _NEGATIVE = re.compile(r"--[a-z][a-z-]*|-o"), re.compile(r"-[.,]?\d")


class _Once(argparse.Action):
    """Stores a value and that it was given; one that says something else where it is given twice is refused then."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: str | None = None) -> None:  # fmt: skip
        value = self.const if self.nargs == 0 else values
        given: frozenset[str] = getattr(namespace, "given", frozenset())
        before = getattr(namespace, self.dest)
        if self.dest in given and before != value:
            several = " (halpc sweep takes a list)" if self.dest in RESOURCES else ""
            parser.error(f"{option_string} is given twice, {_spelled(before)} and {_spelled(value)}; give one{several}")
        setattr(namespace, self.dest, value)
        namespace.given = given | {self.dest}


def _spelled(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


class _Parser(argparse.ArgumentParser):
    """Usage errors in halpc's own words and exit code; the `given` options of a result are those that were written."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.register("action", None, _Once)
        self.set_defaults(given=frozenset())

    def error(self, message: str) -> None:  # type: ignore[override]
        what, _, wrong = message.partition(": ")
        if wrong.startswith("expected") and "argument" in wrong:
            option = what.removeprefix("argument ").split("/")[-1]
            message += f"; a value that begins with a minus is given as {option}=VALUE"
        raise UsageError(f"{message} (see {self.prog} --help)")


def joined(argv: Sequence[str]) -> list[str]:
    """`--latency -5ms` as `--latency=-5ms`: what begins with a minus and a digit is a value, and may be a wrong one."""
    told: list[str] = []
    for word in argv:
        if _NEGATIVE.match(word) and told and _OPTION.fullmatch(told[-1]) and "--" not in told:
            told[-1] += f"={word}"
        else:
            told.append(word)
    return told


def parser_for(commands_of: object) -> argparse.ArgumentParser:
    """The whole command line; `commands_of` has one function per command, named as it."""
    shared = argparse.ArgumentParser(add_help=False)
    loudness = shared.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="count", default=0, help="say more (twice: everything)")
    loudness.add_argument("-q", "--quiet", action="store_true", help="no progress, notes or report: errors only, and "
                          "what inspect, explain, bench and schedule are asked for")  # fmt: skip
    shared.add_argument("--json", action="store_true", help="machine-readable result on stdout")
    parser = _Parser(prog="halpc", description="Prune a trained ONNX model to a latency budget, and prove it.",
                     epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--version", action="version", version=f"halpc {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for add in (_compile_command, _sweep_command, _inspect_command, _explain_command, _profile_command, _bench_command,
                _schedule_command):  # fmt: skip
        command = add(commands, shared)
        command.set_defaults(run=getattr(commands_of, command.prog.split()[-1]))
    return parser


Commands: TypeAlias = "argparse._SubParsersAction[Any]"  # argparse has no public name for it


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=_path, help="ONNX file")
    parser.add_argument("--shape", action="append", default=[], metavar="NAME:1x3x224x224",
                        help="static shape of an input with dynamic axes (repeatable)")  # fmt: skip
    parser.add_argument("--batch", type=_positive, help="size of a dynamic first axis (default 1)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=NUMBER", dest="values",
                        help="what an input always is, as in sr=16000 (repeatable)")  # fmt: skip
    parser.add_argument("--freeze", action="append", default=[], metavar="PATTERN",
                        help="layers whose width stays, as a glob (repeatable)")  # fmt: skip
    parser.add_argument("--allow-renormalisation", action="store_true",
                        help="let channels under a mean or LayerNorm go; the result is approximate")  # fmt: skip


def _compile_command(commands: Commands, shared: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "compile", parents=[shared], help="prune a model to a budget", epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _model_arguments(parser)
    _compile_arguments(parser)
    parser.add_argument("-o", "--output", type=_path, default=Path("halpc-out"), metavar="DIR")
    parser.add_argument("--resume", type=_path, metavar="PLAN", help="continue from an earlier plan.json")
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    parser.add_argument("--max-drop", metavar="SHARE",
                        help="instead of a budget: the fastest model that loses no more "
                        "top-1 than this (1%%, with --evaluate)")  # fmt: skip
    return parser


def _compile_arguments(parser: argparse.ArgumentParser) -> None:
    budget = parser.add_argument_group("budget (at least one)")
    for resource, example in (
        ("latency", "5ms, 800us, 60%%, 1.6x"), ("macs", "60%%"), ("params", "50%%"),
        ("peak-memory", "50%%, 64MB: weights, and the most activations that live at once"),
    ):  # fmt: skip
        budget.add_argument(f"--{resource}", metavar="BUDGET", help=example)
    budget.add_argument(
        "--percentile", type=float, default=50.0, metavar="P", help="of the measured latency (default 50)"
    )
    score = parser.add_argument_group("importance")
    score.add_argument("--importance", type=_path, action="append", default=[], metavar="FILE",
                       help=".npz, .safetensors or .json from a training framework (repeatable: summed)")  # fmt: skip
    score.add_argument(
        "--score",
        choices=SCORES,
        default="auto",
        help="built-in score; energy and unrecoverable look at the calibration inputs; with a file: added",
    )
    shapes = parser.add_argument_group("engines of models with dynamic axes")
    for which in ("min", "opt", "max"):
        shapes.add_argument(f"--{which}-shapes", action="append", default=[], metavar="NAME:1x3x224x224",
                            help="the budget is met at these" if which == "opt" else None)  # fmt: skip
    data = parser.add_argument_group("data")
    data.add_argument("--calibration", type=_path, metavar="INPUTS", help=".npz, folder of .npy, or folder of images")
    data.add_argument("--mean", type=_floats, metavar="R,G,B", help="of images, in 0..1")
    data.add_argument("--std", type=_floats, metavar="R,G,B", help="of images, in 0..1")
    data.add_argument("--evaluate", type=_path, metavar="NPZ", help="inputs and labels: top-1 before and after")
    data.add_argument("--recover", choices=RECOVERIES, default="refit", help="what the calibration "
                      "inputs adjust: weights and biases (default), biases alone (cheap), or nothing")  # fmt: skip
    data.add_argument("--no-recover", action=_Once, nargs=0, const="off", dest="recover", help="the same as off")
    _device_arguments(parser)
    device = parser.add_argument_group("latency table")
    device.add_argument("--table", type=_path, metavar="FILE", help="latency table taken earlier, or elsewhere")
    device.add_argument("--accept-table-from-other-device", action="store_true")
    choice = parser.add_argument_group("selection")
    choice.add_argument("--solver", choices=SOLVERS, default="joint")
    choice.add_argument("--steps", type=_few, default=1, help="pruning steps of --solver halp")
    choice.add_argument("--align", type=_positive, metavar="N", help="channels are multiples of N (with "
                        "--latency 8, 4 where that leaves much of it, 2 and 1 where nothing else meets it; else any"
                        " width)")  # fmt: skip
    choice.add_argument("--min-width", type=_positive, default=1, metavar="N",
                        help="least channels of a group that stays (a residual branch may still vanish altogether:"
                        " --no-vanish)")  # fmt: skip
    choice.add_argument("--no-vanish", action="store_true", help="keep every residual branch")


def _device_arguments(parser: argparse.ArgumentParser) -> None:
    device = parser.add_argument_group("device")
    device.add_argument("--profiler", choices=PROFILERS, default="auto")
    device.add_argument("--provider", choices=PROVIDERS, default="cpu", help="of onnxruntime (default cpu)")
    device.add_argument("--threads", type=_positive, default=1, help="as deployed (default 1)")
    device.add_argument("--precision", choices=PRECISIONS, default="fp32")


def _inspect_command(commands: Commands, shared: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "inspect", parents=[shared], help="what may shrink, with what, and what may not"
    )
    _model_arguments(parser)
    parser.add_argument("--graph", type=_path, metavar="FILE", help="draw the coupling: .graphml, .dot or .svg")
    return parser


def _explain_command(commands: Commands, shared: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "explain", parents=[shared], help="why a layer is pinned, or why two are tied"
    )
    _model_arguments(parser)
    parser.add_argument("layer", help="name of a layer")
    parser.add_argument("other", nargs="?", help="another layer: why are the two tied?")
    return parser


def _sweep_command(commands: Commands, shared: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "sweep", parents=[shared], help="one profile, many budgets: the frontier"
    )
    _model_arguments(parser)
    _compile_arguments(parser)
    parser.add_argument("--points", type=_few, metavar="N", help="N budgets on latency from 95%% to 25%%")
    parser.add_argument("-o", "--output", type=_path, default=Path("halpc-sweep"), metavar="DIR")
    return parser


def _profile_command(commands: Commands, shared: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "profile", parents=[shared], help="measure a latency table, for use here or elsewhere"
    )
    _model_arguments(parser)
    _device_arguments(parser)
    parser.add_argument(
        "-o", "--output", type=_path, required=True, metavar="FILE", help="the table to write or to extend"
    )
    parser.add_argument("--align", type=_positive, metavar="N", help="widths will be multiples of N (default 8)")
    parser.add_argument(
        "--check", action="store_true", help="also predict random plans, measure them, and say how well"
    )
    return parser


def _bench_command(commands: Commands, shared: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench", parents=[shared], help="compare models, measured interleaved, with intervals"
    )
    parser.add_argument("models", type=_path, nargs="+", help="ONNX files; the first is the baseline")
    parser.add_argument("--shape", action="append", default=[], metavar="NAME:1x3x224x224")
    parser.add_argument("--batch", type=_positive)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=NUMBER", dest="values")
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring, for all together (default 5)")
    parser.add_argument("--percentile", type=float, default=50.0, metavar="P")
    _device_arguments(parser)
    return parser


def _schedule_command(commands: Commands, shared: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "schedule", parents=[shared], help="targets for pruning in steps while training"
    )
    parser.add_argument("--latency", required=True, metavar="SHARE", help="the last target, as 55%% or 1.8x")
    parser.add_argument("--steps", type=_few, required=True, metavar="K")
    return parser


def _positive(text: str, most: int = LARGEST) -> int:
    if not text.isdecimal() or not 0 < int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {most}")
    return int(text)


def _few(text: str) -> int:
    return _positive(text, MOST)


def _path(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty name; give a file, or a folder (. is the current one)")
    return path_of(text)


def _floats(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 0.485,0.456,0.406") from None


def _budgets(args: argparse.Namespace) -> tuple[Budget, ...]:
    given = {r: getattr(args, r) for r in RESOURCES if getattr(args, r) is not None}
    return tuple(parse_budget(resource.replace("_", "-"), text) for resource, text in given.items())


def options_of(args: argparse.Namespace, budgets: tuple[Budget, ...] | None = None) -> Options:
    """The compile options that the arguments spell; `budgets` in place of the arguments' own."""
    refuse_idle(args)
    profiles = {w: parse_shapes(getattr(args, f"{w}_shapes"), f"--{w}-shapes") for w in ("min", "opt", "max")}
    return Options(
        model=args.model,
        budgets=_budgets(args) if budgets is None else budgets,
        out=args.output,
        importance=tuple(args.importance),
        score=args.score,
        calibration=args.calibration,
        mean=args.mean,
        std=args.std,
        evaluate=args.evaluate,
        profiler=profiler_of(args),
        provider=args.provider,
        threads=args.threads,
        precision=args.precision,
        shapes=parse_shapes((*args.opt_shapes, *args.shape)),
        batch=args.batch,
        values=parse_values(args.values),
        profiles=profiles,
        freeze=tuple(args.freeze),
        align=args.align,
        min_width=args.min_width,
        vanish=not args.no_vanish,
        solver=args.solver,
        steps=args.steps,
        table=args.table,
        accept_foreign_table=args.accept_table_from_other_device,
        recover=args.recover,
        renormalise=args.allow_renormalisation,
        percentile=args.percentile,
        resume=getattr(args, "resume", None),
        dry_run=getattr(args, "dry_run", False),
    )
