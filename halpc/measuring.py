"""profile and bench: measuring alone, without pruning anything."""

from __future__ import annotations

import argparse
from typing import Any

from halpc.casting import at_precision, runs_here
from halpc.closed_loop import GRID
from halpc.errors import UsageError
from halpc.idle import profiler_of, refuse_idle_device
from halpc.ir.latency import Comparison
from halpc.ir.prediction import Prediction
from halpc.ir.profiler import Profiler
from halpc.ir.table import LatencyTable
from halpc.job import Progress
from halpc.units import check_percentile, parse_shapes, parse_values
from passes.couple import couple
from passes.coupling.members import produced_by
from passes.load import load
from passes.profile import held_back, profile
from passes.proto import static_proto
from profilers import profiler_for
from profilers.bench import bench

LONGEST_S = 86_400  # a day


def _profiler(args: argparse.Namespace) -> Profiler:
    refuse_idle_device(args)
    found = profiler_for(profiler_of(args), threads=args.threads, precision=args.precision, provider=args.provider)
    return at_precision(found.profiler, args.precision)


def compare(args: argparse.Namespace) -> Comparison:
    """Measure the models of a `bench` command, the first being the baseline.

    Raises:
        UsageError: fewer than two models, two of one path, or a time or percentile that makes no sense.
    """
    if len(args.models) < 2 or len(set(args.models)) < len(args.models):
        raise UsageError("bench: give two or more different models; the first is the baseline")
    if not 0 <= args.seconds <= LONGEST_S:
        raise UsageError(f"--seconds {args.seconds:g}: expected a number from 0 to {LONGEST_S}")
    check_percentile(args.percentile)
    shapes, values = parse_shapes(args.shape), parse_values(args.values)
    profiler, models = _profiler(args), {}
    for path in args.models:
        model = load(path, shapes=shapes, batch=args.batch, values=values)
        models[str(path)] = static_proto(model.graph, model.shapes, model.header)
        runs_here(profiler, path, models[str(path)])
    return bench(profiler, models, seconds=args.seconds, percent=args.percentile)


def measure_table(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Measure whatever a model needs into the table file of a `profile` command; what it says of the model."""
    shapes = parse_shapes(args.shape)
    profiler = _profiler(args)
    table = LatencyTable.open(args.output, profiler.device)
    model = load(args.model, shapes=shapes, batch=args.batch, values=parse_values(args.values))
    runs_here(profiler, args.model, static_proto(model.graph, model.shapes, model.header))  # refused before it is begun
    frozen = produced_by(model.twin, args.freeze)
    coupling = couple(model.twin, renormalise=args.allow_renormalisation, freeze=frozen)
    found = profile(model, coupling, table, profiler, grid=args.align or GRID, progress=progress)
    result: dict[str, Any] = {
        "table": str(args.output),
        "device": profiler.device.as_json(),
        "samples": found.samples,
        "networks": len(found.context),
        "measured_now": found.measured,
        "seconds": round(found.seconds, 2),
        "baseline_ms": found.cost.at({}),
        "left_out": _quality(found.fit),
    }
    if args.check:
        result["held_back"] = _quality(held_back(model, coupling, found, profiler, grid=args.align or GRID))
    return result


def _quality(prediction: Prediction) -> str:
    """Errors of a prediction in one line."""
    text = (
        f"median {prediction.median_error:.1%}, nine in ten under {prediction.p90_error:.1%}, R² {prediction.r2:.4f}"
        f" ({len(prediction.measured_ms)} networks)"
    )
    if prediction.speed == 1:
        return text
    now = prediction.at_speed
    return (
        f"{text}; the machine is at {1 / prediction.speed:.1%} of the speed it was profiled at; with that taken out"
        f" {now.median_error:.1%}, {now.p90_error:.1%}, {now.r2:.4f}"
    )
