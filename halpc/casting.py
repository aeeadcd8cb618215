"""A stop-watch that measures at another precision: every model is rewritten before the runtime sees it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from halpc.ir.latency import Device, LayerTime, Timing
from halpc.ir.profiler import Feeds, Model, Profiler
from passes.cast import cast_for_timing


class AtPrecision:
    """Satisfies `Profiler`; `inner` is what measures."""

    def __init__(self, inner: Profiler, precision: str) -> None:
        self.inner = inner
        self.precision = precision

    @property
    def device(self) -> Device:
        """The inner profiler's, whose precision is part of it."""
        return self.inner.device

    def kernels(self, models: Sequence[onnx.ModelProto], *, repetitions: int = 5) -> NDArray[np.float64]:
        """Kernel times at the precision; see `Profiler.kernels`."""
        return self.inner.kernels([self._cast(model) for model in models], repetitions=repetitions)

    def layers(self, model: Model, *, repetitions: int = 20) -> tuple[LayerTime, ...]:
        """Layer times at the precision; see `Profiler.layers`."""
        return self.inner.layers(self._cast(model), repetitions=repetitions)

    def compare(self, models: Sequence[Model], *, seconds: float = 2.0, feeds: Feeds | None = None) -> list[Timing]:
        """End-to-end latencies at the precision; see `Profiler.compare`."""
        return self.inner.compare([self._cast(model) for model in models], seconds=seconds, feeds=feeds)

    def _cast(self, model: Model) -> onnx.ModelProto:
        whole = model if isinstance(model, onnx.ModelProto) else onnx.load(str(model))
        return cast_for_timing(whole, self.precision)
