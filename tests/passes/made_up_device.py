"""A device whose costs are known, and networks to profile on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from halpc.errors import BackendError
from halpc.ir.groups import Coupling
from halpc.ir.latency import Device, LayerTime, Timing
from halpc.ir.model import Model
from halpc.ir.profiler import Feeds
from halpc.ir.profiler import Model as Measured
from passes.latency.networks import slimmed
from tests.small import model as made
from tests.small import weights

DEVICE = Device("cpu", "Made up", "fake", "1", "cpu")
OVERHEAD_MS = 0.05


@dataclass
class MadeUp:
    """A device that works in tiles of 16 channels: every weight costs its tiles, 20 % more in a network than alone."""

    layered: bool = True
    stop_after: int = 1_000_000
    measured: int = 0
    device: Device = DEVICE
    asked: list[int] = field(default_factory=list)

    def cost(self, node: onnx.NodeProto, sizes: dict[str, tuple[int, ...]]) -> float:
        weights = [sizes[name] for name in node.input if name in sizes]
        tiles = [np.prod([-(-n // 16) if i < 2 else n for i, n in enumerate(shape)]) for shape in weights]
        return 0.01 + 0.004 * float(sum(tiles)) if weights else 0.002

    def parts(self, model: Measured) -> dict[str, float]:
        assert isinstance(model, onnx.ModelProto)
        sizes = {w.name: tuple(w.dims) for w in model.graph.initializer}
        return {node.name: self.cost(node, sizes) for node in model.graph.node}

    def kernels(self, models: Sequence[onnx.ModelProto], *, repetitions: int = 5) -> NDArray[np.float64]:
        if self.measured + len(models) > self.stop_after:
            raise KeyboardInterrupt
        self.measured += len(models)
        return np.array([sum(self.parts(model).values()) for model in models])

    def layers(self, model: Measured, *, repetitions: int = 20) -> tuple[LayerTime, ...]:
        if not self.layered:
            raise BackendError("this runtime tells nothing")
        return tuple(LayerTime(n, "", (), 1.2 * ms, (n,)) for n, ms in self.parts(model).items())

    def compare(self, models: Sequence[Measured], *, seconds: float = 2.0, feeds: Feeds | None = None) -> list[Timing]:
        self.asked.append(len(models))
        totals = [OVERHEAD_MS + 1.2 * sum(self.parts(model).values()) for model in models]
        return [Timing(np.full(3, ms), "made up") for ms in totals]


def device_ms(chain: tuple[Model, Coupling], widths: Mapping[str, int]) -> float:
    """What the device takes end to end at widths, most often."""
    return MadeUp().compare([slimmed(*chain, widths)])[0].median_ms


def residual(blocks: int) -> onnx.ModelProto:
    """Blocks y = x + conv(relu(conv(x))), of 32 channels outside and 48 inside."""
    text, shapes, stream = "", {}, "x"
    for i in range(blocks):
        text += f"a{i} = Conv <kernel_shape = [1, 1]> ({stream}, u{i}) b{i} = Relu (a{i})"
        text += f" c{i} = Conv <kernel_shape = [1, 1]> (b{i}, v{i}) y{i} = Add (c{i}, {stream})\n"
        shapes |= {f"u{i}": (48, 32, 1, 1), f"v{i}": (32, 48, 1, 1)}
        stream = f"y{i}"
    head = '<ir_version: 9, opset_import: ["" : 17]> net (float[1, 32, 8, 8] x)'
    return made(f"{head} => (float[1, 32, 8, 8] {stream}) {{ {text} }}", weights(shapes))
