"""A device that is simulated: true latencies are known, what is measured of them is noisy; no time passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from halpc.ir.latency import Device, LayerTime, Timing
from halpc.ir.profiler import Feeds, Model

OVERHEAD_MS = 0.2
MACS_PER_MS = 4e6


@dataclass
class NoisyDevice:
    """Satisfies `Profiler` as far as the closed loop asks.

    Attributes:
        noise: standard deviation of a run, as a share; a session is off by a twentieth of it in all of its runs.
        drift: by how much the device slows down per second of measuring, as a share.
        seed: of everything random.
        bias: by how much each width of a kernel differs from the latency model, as a share; a plan is off by about
            a third of it.
        seconds: of measuring so far.
    """

    noise: float
    drift: float = 0.0
    seed: int = 0
    bias: float = 0.08
    seconds: float = 0.0
    calls: int = 0
    device: Device = field(default_factory=lambda: Device("cpu", "simulated", "simulated", "1", "cpu"))

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def true_ms(self, model: onnx.ModelProto) -> float:
        """What a run takes when nothing disturbs it: MACs in tiles of 4 wide, each width a bit of its own."""
        total = OVERHEAD_MS
        for tensor in model.graph.initializer:
            shape = tuple(tensor.dims)
            if len(shape) == 4:
                tiles = -(-shape[0] // 4) * 4 * shape[1] * shape[2] * shape[3] * 64
                total += tiles / MACS_PER_MS * (1 + self.bias * self._luck(shape[0], shape[1]))
        return float(total)

    def _luck(self, *widths: int) -> float:
        """Most of it shared with like widths, some its own."""
        coarse, fine = ([width // unit for width in widths] for unit in (32, 1))
        draws = [np.random.default_rng([self.seed, *key]).standard_normal() for key in (coarse, fine)]
        return 0.9 * draws[0] + 0.4 * draws[1]

    def compare(self, models: Sequence[Model], *, seconds: float = 2.0, feeds: Feeds | None = None) -> list[Timing]:
        """Rounds of three runs each, one model after the other; disturbed runs are slower more often than faster."""
        protos = [model for model in models if isinstance(model, onnx.ModelProto)]
        lucky = [self.true_ms(p) * (1 + self.noise / 20 * self._rng.standard_normal()) for p in protos]
        rounds = int(np.clip(seconds * 1e3 / (4 * sum(lucky)), 7, 200))
        speed = 1 + self.drift * (self.seconds + np.linspace(0, seconds, rounds))
        speed *= np.exp(self.noise / 2 * self._rng.standard_normal(rounds))
        self.seconds += seconds
        self.calls += 1
        return [Timing(self._runs(ms, speed), "simulated", rounds) for ms in lucky]

    def _runs(self, ms: float, speed: np.ndarray) -> np.ndarray:
        rounds = len(speed)
        jitter = np.exp(self.noise * self._rng.standard_normal((rounds, 3)))
        stalls = 1 + (self._rng.random((rounds, 3)) < self.noise / 2) * self._rng.exponential(1.0, (rounds, 3))
        return np.asarray((ms * speed[:, None] * jitter * stalls).ravel())

    def kernels(self, models: Sequence[onnx.ModelProto], *, repetitions: int = 5) -> np.ndarray:
        raise NotImplementedError

    def layers(self, model: Model, *, repetitions: int = 20) -> tuple[LayerTime, ...]:
        raise NotImplementedError
