"""The seam between halpc and a runtime: adding a device is adding one file that satisfies `Profiler`.

Models travel as `onnx.ModelProto` with static shapes, or as a path where they are larger than protobuf
allows.
A profiler measures; it never decides what to measure, and it knows nothing of groups or widths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from halpc.ir.latency import Device, LayerTime, Timing

Model: TypeAlias = onnx.ModelProto | Path
Feeds: TypeAlias = Mapping[str, NDArray[np.generic]]

ASIDE: Final = "halpc_aside"
"""Begins the names of nodes (and their outputs) that are scaffolding of a small model: not counted."""


class Profiler(Protocol):
    """A stop-watch for one runtime on one device at one precision and thread count."""

    @property
    def device(self) -> Device:
        """What is measured on; part of every table's key."""
        ...

    def kernels(self, models: Sequence[onnx.ModelProto], *, repetitions: int = 10) -> NDArray[np.float64]:
        """float64[len(models)]: each small model's own kernel time in ms, that of a typical run of several.

        Nodes whose name begins with `ASIDE`, and layout reorders at the model's edges, are not counted.

        Raises:
            BackendError: the runtime is missing or failed.
        """
        ...

    def layers(self, model: Model, *, repetitions: int = 20) -> tuple[LayerTime, ...]:
        """What the runtime executes for `model`, in order, with each layer's typical time in context."""
        ...

    def compare(self, models: Sequence[Model], *, seconds: float = 2.0, feeds: Feeds | None = None) -> list[Timing]:
        """End-to-end latency of each model, measured interleaved in one process with the same inputs."""
        ...
