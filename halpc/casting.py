"""Precision: a stop-watch that measures at another one, and the model as it will be deployed at it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from halpc.errors import BackendError, TableError, UsageError
from halpc.ir.latency import Device, LayerTime, Timing
from halpc.ir.profiler import Feeds, Model, Profiler
from halpc.ir.table import LatencyTable
from halpc.job import Job
from halpc.units import spell_ms
from passes.cast import cast, cast_for_timing, precision_of
from passes.proto import static_proto
from profilers import profiler_for

NATIVE = ("fp32", "tf32")  # what a float32 graph is; TF32 is the runtime's choice within it
BATCHES, SAMPLES = 16, 8  # of calibration inputs that ranges are taken from
NO_GAIN = 0.97  # of the time at fp32: a precision that takes more than this does not pay
MOVED = 0.25  # of an output's largest magnitude; fp8 moves those of the shipped networks by 4% to 12%
_KEPT, _KEPT_BYTES = 6, 1 << 30  # casts that are kept: the baseline's, those of the last few choices, and what fits


class AtPrecision:
    """Satisfies `Profiler`; `inner` is what measures."""

    def __init__(self, inner: Profiler, precision: str) -> None:
        self.inner = inner
        self.precision = precision
        self._known: dict[tuple[str, bool], tuple[onnx.ModelProto, int]] = {}
        self._held = 0
        self._processor = inner.device.kind == "cpu"

    @property
    def device(self) -> Device:
        """The inner profiler's, whose precision is part of it."""
        return self.inner.device

    def kernels(self, models: Sequence[onnx.ModelProto], *, repetitions: int = 10) -> NDArray[np.float64]:
        """Kernel times at the precision; see `Profiler.kernels`. What goes in and out has it, too: no cast is timed."""
        small = [self.cast(model, keep_io_types=False) for model in models]
        return self.inner.kernels(small, repetitions=repetitions)

    def layers(self, model: Model, *, repetitions: int = 20) -> tuple[LayerTime, ...]:
        """Layer times at the precision; see `Profiler.layers`."""
        return self.inner.layers(self.cast(model), repetitions=repetitions)

    def compare(self, models: Sequence[Model], *, seconds: float = 2.0, feeds: Feeds | None = None) -> list[Timing]:
        """End-to-end latencies at the precision; see `Profiler.compare`.

        Raises:
            BackendError: among other reasons, the runtime has no kernels for the precision.
        """
        cast_models = [self.cast(model) for model in models]
        try:
            return self.inner.compare(cast_models, seconds=seconds, feeds=feeds)
        except BackendError as error:
            said = str(error).rstrip(".")
            raise BackendError(
                f"at --precision {self.precision}: {said}. Where {self.device.backend} has no kernels for it on this"
                " device, choose another precision or profiler."
            ) from error

    def forget(self, models: Sequence[Model]) -> None:
        """Engines of models that will not be asked for again may go, where the inner profiler keeps any."""
        if hasattr(self.inner, "forget"):
            self.inner.forget([self.cast(model) for model in models])

    def cast(self, model: Model, *, keep_io_types: bool = True) -> onnx.ModelProto:
        """The model at the precision: what is measured is measured more than once."""
        whole = model if isinstance(model, onnx.ModelProto) else onnx.load(str(model))
        key = hashlib.sha256(whole.SerializeToString(deterministic=True)).hexdigest(), keep_io_types
        if key in self._known:
            self._known[key] = self._known.pop(key)
        else:
            found = cast_for_timing(whole, self.precision, keep_io_types=keep_io_types, processor=self._processor)
            self._known[key] = found, found.ByteSize()
            self._held += found.ByteSize()
        while len(self._known) > _KEPT and self._held > _KEPT_BYTES:
            self._held -= self._known.pop(next(iter(self._known)))[1]
        return self._known[key][0]


def at_precision(profiler: Profiler, precision: str) -> Profiler:
    """`profiler` for models in float32 that will be deployed at `precision`."""
    return profiler if precision in NATIVE else AtPrecision(profiler, precision)


def runs_here(profiler: Profiler, path: Path, model: onnx.ModelProto) -> None:
    """Try the model in `path` where it will be measured.

    Raises:
        BackendError: naming the file, where the runtime cannot load or run it, or builds an engine that has nothing
            of the precision.
    """
    own = profiler.cast(model) if isinstance(profiler, AtPrecision) else model
    backend = getattr(profiler, "inner", profiler)
    try:
        profiler.compare([model], seconds=0.0)
        if hasattr(backend, "check"):
            backend.check(own, precision_of(own))
    except BackendError as error:
        raise BackendError(f"{path}: {error}") from error


def backend_of(job: Job) -> Any:
    """What measures, below any conversion to a precision; None where nothing does."""
    return getattr(job.profiler, "inner", job.profiler)


def accepted_table(path: Path, precision: str) -> LatencyTable:
    """A table of whatever device, at the precision asked for: that is no matter of the device.

    Raises:
        TableError: it is of another precision, or it cannot be read.
    """
    table = LatencyTable.load(path)
    found = table.device.precision
    if found != precision:
        raise TableError(
            f"{path}: was measured at {found}, and this compile is at {precision}: profile with"
            f" --precision {precision} on the device, or compile with --precision {found}"
        )
    return table


def say_what_came(job: Job, model: onnx.ModelProto) -> None:
    """A note where the model has a precision of its own that nobody asked for."""
    found, asked = precision_of(model), job.options.precision
    if found != "fp32" and asked in NATIVE:
        job.note(f"the model came as {found} and was measured and written so: --precision {found} says it in tables")


def say_what_runs(job: Job) -> None:
    """Which kernels the deployed model really runs in, and whether the precision pays: into the report.

    Of onnxruntime's own kernels, which widen what there are none for; what builds engines says it of those.
    """
    precision = job.options.precision
    inner = backend_of(job)
    if inner is None or inner.device.provider == "tensorrt" or not hasattr(inner, "precisions"):
        return
    found = inner.precisions(as_measured(job, job.deployed))
    job.profile_stats["kernels"] = found
    if precision in NATIVE:
        return
    total, so = sum(found.values()), found.get(precision, 0)
    if so < total:
        others = " and ".join(f"{count} in {name}" for name, count in found.items() if name != precision)
        job.note(
            f"of {total} convolutions and matrix products {so} run in {precision} kernels on this device, {others}:"
            f" {inner.device.backend} converts around those"
        )
    came = static_proto(job.model.graph, job.model.shapes, job.model.header)
    if precision_of(came) == "fp32" and job.evidence is not None:
        _say_what_it_pays(job, inner.device, came)


def say_what_moved(job: Job) -> None:
    """A note where the conversion moves the outputs so far that others win: top-1 goes with them, asked for or not."""
    precision = job.options.precision
    if job.conversion is None or job.conversion <= MOVED:
        return
    inputs = "random inputs" if job.calibration is None else "calibration inputs"
    better = ", or --calibration inputs that are like those to come" if precision in ("int8", "fp8") else ""
    job.note(
        f"--precision {precision} moves the outputs by up to {job.conversion:.0%} of the largest on {inputs}: accuracy"
        f" may be lost; choose another precision{better}"
    )


def _say_what_it_pays(job: Job, device: Device, came: onnx.ModelProto) -> None:
    native = profiler_for(device.backend, threads=device.threads, precision="fp32", provider=job.options.provider)
    assert job.evidence is not None
    fp32_ms = native.profiler.compare([came], seconds=0.5)[0].percentile_ms(job.options.percentile)
    job.profile_stats["fp32_baseline_ms"] = fp32_ms
    if job.evidence.baseline_ms > NO_GAIN * fp32_ms:
        job.note(
            f"--precision {job.options.precision} does not pay on this device: unpruned, the model takes"
            f" {spell_ms(job.evidence.baseline_ms)} at it and {spell_ms(fp32_ms)} at fp32"
        )


def deployed(job: Job, model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` at the precision asked for; int8 and fp8 take their ranges from the calibration inputs.

    Raises:
        UsageError: there are none, and the precision needs them.
        ModelError: the model cannot be converted.
    """
    precision = job.options.precision
    if precision in NATIVE:
        return model
    if precision in ("int8", "fp8") and job.calibration is None and precision_of(model) != precision:
        raise UsageError(f"--precision {precision} needs --calibration inputs for its ranges")
    batches = [] if job.calibration is None else list(islice(job.calibration.batches(SAMPLES), BATCHES))
    return cast(model, precision, inputs=batches, processor=_on_processor(job))


def _on_processor(job: Job) -> bool:
    """Whether the model will run on one: what measures does, or what was named would."""
    if job.profiler is not None:
        return bool(job.profiler.device.kind == "cpu")
    return job.options.profiler in ("onnxruntime", "openvino") and job.options.provider == "cpu"


def as_timed(job: Job) -> onnx.ModelProto:
    """What the backend was handed when the model that is written was measured."""
    return job.profiler.cast(job.small) if isinstance(job.profiler, AtPrecision) else job.small


def as_measured(job: Job, model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` at the shapes that it is measured at."""
    return static_proto(gs.import_onnx(model), job.model.shapes, job.model.header)
