"""bench: ONNX models from files, at the same static shapes, compared on one device."""

from __future__ import annotations

import argparse

from halpc.errors import UsageError
from halpc.ir.latency import Comparison
from halpc.units import parse_shape
from passes.load import load
from passes.proto import static_proto
from profilers import profiler_for
from profilers.bench import bench


def compare(args: argparse.Namespace) -> Comparison:
    """Measure the models of a `bench` command, the first being the baseline.

    Raises:
        UsageError: fewer than two models, or two of one path.
    """
    if len(args.models) < 2 or len(set(args.models)) < len(args.models):
        raise UsageError("bench: give two or more different models; the first is the baseline")
    shapes = dict(parse_shape(text) for text in args.shape)
    models = {}
    for path in args.models:
        model = load(path, shapes=shapes, batch=args.batch)
        models[str(path)] = static_proto(model.graph, model.shapes, model.header)
    profiler = profiler_for(args.profiler, threads=args.threads, precision=args.precision).profiler
    return bench(profiler, models, seconds=args.seconds, percent=args.percentile)
