"""What TensorRT and TensorRT-RTX do here: engines are built, loaded, run and asked what they are made of."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import onnx

from halpc.errors import HalpcError
from passes.cast import cast_for_timing
from profilers.trt import TensorRTProfiler
from profilers.trt_engine import Settings

Facts = dict[str, Any]
_SHOWN = 8  # layers told in the results; all of them are in the file beside


def backend_runs(backend: str, models: dict[str, onnx.ModelProto], precisions: tuple[str, ...], folder: Path) -> Facts:
    """Every model at every precision, the device first; with no GPU, TensorRT-RTX builds and does not run."""
    facts: Facts = {}
    gpu = True
    try:
        with TensorRTProfiler(backend) as profiler:
            facts["device"] = profiler.device.as_json()
    except HalpcError as error:
        if backend == "tensorrt":
            return {"error": str(error)}
        facts["not_run"], gpu = str(error), False
    facts["engines"] = [
        {"model": name, "precision": precision, **_engine(backend, model, precision, folder / f"{backend}-{name}", gpu)}
        for name, model in models.items()
        for precision in precisions
    ]
    return facts


def _engine(backend: str, model: onnx.ModelProto, precision: str, stem: Path, run: bool) -> Facts:
    """Built, timed as a whole, by layers and by kernels; each as far as it gets."""
    facts: Facts = {}
    path = stem.with_name(f"{stem.name}-{precision}.plan")
    own = cast_for_timing(model, precision)
    with TensorRTProfiler(backend, Settings(precision=precision)) as profiler:
        try:
            built = profiler.build(own, path)
            facts["build"] = {"seconds": built.seconds, "bytes": built.size_bytes, "notes": list(built.notes),
                              "precisions": dict(built.precisions), "warnings": list(built.warnings)}  # fmt: skip
            if run:
                facts["timing"] = spell(profiler.compare([path], seconds=1.0)[0])
                layers = profiler.layers(own)
                facts["layers"] = [dataclasses.asdict(layer) for layer in layers[:_SHOWN]]
                facts["layers_ms"] = sum(layer.time_ms for layer in layers)
                facts["nodes_named"] = len({node for layer in layers for node in layer.nodes})
                facts["nodes"] = len(own.graph.node)
                facts["kernel_ms"] = [float(ms) for ms in profiler.kernels([own, own])]
        except Exception as error:  # what this engine told until then stays, and the next one is asked
            facts["error"] = f"{type(error).__name__}: {error}"
    path.unlink(missing_ok=True)
    return facts


def spell(timing: Any) -> Facts:
    """A timing as plain data."""
    return {
        "median_ms": timing.median_ms,
        "p95_ms": timing.percentile_ms(95),
        "min_ms": timing.min_ms,
        "spread": timing.spread,
        "runs": len(timing.samples_ms),
        "regime": timing.regime,
    }
