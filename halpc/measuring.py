"""profile and bench: measuring alone, without pruning anything."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from halpc.casting import at_precision, runs_here
from halpc.closed_loop import GRID, profile_stats
from halpc.errors import UsageError
from halpc.idle import profiler_of, refuse_idle_device
from halpc.ir.latency import Comparison
from halpc.ir.profiler import Profiler
from halpc.ir.table import LatencyTable
from halpc.job import Progress
from halpc.units import check_percentile, parse_shapes, parse_values
from passes.couple import couple
from passes.coupling.members import produced_by
from passes.load import load
from passes.profile import held_back, profile
from passes.proto import static_proto
from passes.vanish import vanishable
from profilers import profiler_for
from profilers.bench import bench

log = logging.getLogger(__name__)

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
    if not coupling.free():
        log.warning("%s: no channels may go, whatever the budget: `halpc inspect` says why", args.model)
    vanishing = vanishable(model, coupling)
    found = profile(model, coupling, table, profiler, grid=args.align or GRID, vanishing=vanishing, progress=progress)
    result: dict[str, Any] = {
        "model": str(args.model),
        "device": profiler.device.as_json(),
        **profile_stats(table, found),
        "seconds": round(found.seconds, 2),
        "baseline_ms": found.cost.at({}),
    }
    if args.check:
        result["held_back"] = held_back(model, coupling, found, profiler, grid=args.align or GRID).as_json()
    return result
