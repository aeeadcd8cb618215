"""Options that can do nothing beside the others are refused, those of the device noted."""

from __future__ import annotations

import argparse

from halpc.errors import UsageError
from halpc.options import Options, check_budgets

_ENGINES = ("tensorrt", "tensorrt_rtx")


def refuse_idle(args: argparse.Namespace) -> None:
    """Of a `compile` or `sweep`: what was given and has its default, where only the command line can tell.

    Raises:
        UsageError: naming the option, and what it needs.
    """
    refuse_idle_device(args)
    limited = any(getattr(args, name, None) is not None for name in ("latency", "max_drop", "points"))
    if not limited:
        _refuse(args, ("percentile",), "is of a budget on --latency, and there is none")
    if not limited or args.accept_table_from_other_device:
        why = "--accept-table-from-other-device" if limited else "no budget on --latency"
        _refuse(args, ("percentile",), f"is of what is measured, and with {why} nothing is")
    if args.solver != "halp":
        _refuse(args, ("steps",), "is of --solver halp")
    if args.calibration is None and args.recover != "off":
        _refuse(args, ("recover",), "adjusts weights on the inputs of --calibration, and there are none")


def check_asked(options: Options) -> None:
    """Of what is to be compiled: its budgets, and options that do nothing beside the others, as far as values show it.

    Raises:
        UsageError: naming the option, and what it needs.
    """
    check_budgets(options.budgets)
    limited = options.budget("latency") is not None
    if options.accept_foreign_table and options.table is None:
        raise UsageError("--accept-table-from-other-device says something of --table, and there is none")
    if options.table is not None and not limited:
        raise UsageError("--table is of a budget on --latency, and there is none; leave it out")
    if options.precision == "tf32" and (options.accept_foreign_table or not limited):
        why = "--accept-table-from-other-device" if limited else "no budget on --latency"
        raise UsageError(f"--precision tf32 is how a device computes, and with {why} nothing is measured on one")
    if options.calibration is None and (options.mean or options.std) is not None:
        name = "mean" if options.mean is not None else "std"
        raise UsageError(f"--{name} is of the images of --calibration, and there are none; leave it out")


def refuse_idle_device(args: argparse.Namespace) -> None:
    """Of whatever measures: options of another profiler than the one that is named.

    Raises:
        UsageError: naming the option, and whose it is.
    """
    if args.profiler not in ("auto", "onnxruntime"):
        _refuse(args, ("provider",), f"is of --profiler onnxruntime, and --profiler {args.profiler} has none")
    if args.profiler in _ENGINES:
        _refuse(args, ("threads",), f"is of processors, and --profiler {args.profiler} has none")


def idle_device(options: Options) -> str:
    """Options of the device that do nothing where nothing is measured, as they are written; int8 depends on some."""
    asked = {"profiler": (options.profiler, "auto"), "provider": (options.provider, "cpu"),
             "threads": (options.threads, 1)}  # fmt: skip
    told = [n for n, (value, default) in asked.items() if value != default]
    if options.precision == "int8":
        told = [name for name in told if name == "threads"]
    return ", ".join(f"--{name} {asked[name][0]}" for name in told)


def profiler_of(args: argparse.Namespace) -> str:
    """What was named, also by naming its provider alone."""
    return "onnxruntime" if args.profiler == "auto" and "provider" in args.given else str(args.profiler)


def _refuse(args: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    """Refuse the first of `names` that was given."""
    for name in names:
        if name in args.given:
            raise UsageError(f"--{name.replace('_', '-')} {why}; leave it out")
