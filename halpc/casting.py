"""Precision: a stop-watch that measures at another one, and the model as it will be deployed at it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import islice

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from halpc.errors import BackendError, UsageError
from halpc.ir.latency import Device, LayerTime, Timing
from halpc.ir.profiler import Feeds, Model, Profiler
from halpc.job import Job
from passes.cast import cast, cast_for_timing, precision_of
from passes.proto import static_proto

NATIVE = ("fp32", "tf32")  # what a float32 graph is; TF32 is the runtime's choice within it
BATCHES, SAMPLES = 16, 8  # of calibration inputs that ranges are taken from
_KEPT = 4  # casts of whole models that are kept: the baseline's, and those of the last few choices


class AtPrecision:
    """Satisfies `Profiler`; `inner` is what measures."""

    def __init__(self, inner: Profiler, precision: str) -> None:
        self.inner = inner
        self.precision = precision
        self._known: dict[str, onnx.ModelProto] = {}

    @property
    def device(self) -> Device:
        """The inner profiler's, whose precision is part of it."""
        return self.inner.device

    def kernels(self, models: Sequence[onnx.ModelProto], *, repetitions: int = 5) -> NDArray[np.float64]:
        """Kernel times at the precision; see `Profiler.kernels`. What goes in and out has it, too: no cast is timed."""
        small = [cast_for_timing(model, self.precision, keep_io_types=False) for model in models]
        return self.inner.kernels(small, repetitions=repetitions)

    def layers(self, model: Model, *, repetitions: int = 20) -> tuple[LayerTime, ...]:
        """Layer times at the precision; see `Profiler.layers`."""
        return self.inner.layers(self._cast(model), repetitions=repetitions)

    def compare(self, models: Sequence[Model], *, seconds: float = 2.0, feeds: Feeds | None = None) -> list[Timing]:
        """End-to-end latencies at the precision; see `Profiler.compare`.

        Raises:
            BackendError: among other reasons, the runtime has no kernels for the precision.
        """
        cast_models = [self._cast(model) for model in models]
        try:
            return self.inner.compare(cast_models, seconds=seconds, feeds=feeds)
        except BackendError as error:
            raise BackendError(
                f"at --precision {self.precision}: {error}. Where {self.device.backend} has no kernels for it on this"
                " device, choose another precision or profiler."
            ) from error

    def _cast(self, model: Model) -> onnx.ModelProto:
        whole = model if isinstance(model, onnx.ModelProto) else onnx.load(str(model))
        key = hashlib.sha256(whole.SerializeToString(deterministic=True)).hexdigest()
        found = self._known.pop(key, None) or cast_for_timing(whole, self.precision)
        self._known[key] = found
        if len(self._known) > _KEPT:
            self._known.pop(next(iter(self._known)))
        return found


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
    return cast(model, precision, inputs=batches)


def as_measured(job: Job, model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` at the shapes that it is measured at."""
    return static_proto(gs.import_onnx(model), job.model.shapes, job.model.header)
