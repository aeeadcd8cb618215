"""Latency: the device it belongs to, what one measurement says, and models compared.

Unit: milliseconds everywhere, suffixed `_ms`. The table that keeps samples is in `table.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from halpc.errors import TableError

QUIET_SPREAD = 0.05


@dataclass(frozen=True, slots=True)
class Device:
    """What a latency was measured on. Two equal devices may share a table; anything else may not.

    Attributes:
        kind: `cpu` or `cuda`, or `analytic` for counted costs.
        name: processor or GPU name.
        backend: `onnxruntime`, `tensorrt`, `tensorrt_rtx`, …
        version: the backend's version.
        provider: execution provider or builder flavour.
        precision: fp32, tf32, fp16, bf16, int8, fp8.
        threads: intra-op threads (0 where it has no meaning).
        details: further facts that change timings (driver, optimisation level, locked clocks).
    """

    kind: str
    name: str
    backend: str
    version: str
    provider: str
    precision: str = "fp32"
    threads: int = 0
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def builds(self) -> bool:
        """Whether every model is an engine to build first, which takes longer than to measure it."""
        return self.provider in ("builder", "tensorrt")

    def as_json(self) -> dict[str, object]:
        """Plain data for reports and tables."""
        return {**asdict(self), "details": dict(sorted(self.details.items()))}

    @classmethod
    def from_json(cls, data: object) -> Device:
        """The inverse of `as_json`.

        Raises:
            TableError: `data` does not describe a device.
        """
        if not isinstance(data, dict):
            raise TableError(f"expected a device as a JSON object, found {type(data).__name__}")
        values = dict(data)
        details = values.pop("details", {})
        threads = values.pop("threads", 0)
        texts = ("kind", "name", "backend", "version", "provider", "precision")
        wrong = set(texts) ^ set(values) | {name for name in values if not isinstance(values[name], str)}
        if wrong or not isinstance(threads, int) or not isinstance(details, dict):
            raise TableError(
                f"device has unexpected or missing entries: {', '.join(sorted(wrong)) or 'threads, details'}"
            )
        return cls(**values, threads=threads, details={str(k): str(v) for k, v in details.items()})

    @property
    def spoken(self) -> str:
        """Its name and what else a person should know of a latency taken on it."""
        provider = f" ({self.provider})" if self.backend == "onnxruntime" and self.provider != "cpu" else ""
        threads = f", {self.threads} thread{'s' * (self.threads > 1)}" if self.threads else ""
        return f"{self.name}, {self.backend} {self.version}{provider}, {self.precision}{threads}"

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that name this device by content."""
        text = json.dumps(self.as_json(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def differences(self, other: Device) -> list[str]:
        """Every fact in which `other` differs, as `threads 1, not 4` (ours first); empty when equal."""
        mine, theirs = (_flat(device.as_json()) for device in (self, other))
        names = [*mine, *(name for name in theirs if name not in mine)]
        return [
            f"{name} {mine.get(name, 'unknown')}, not {theirs.get(name, 'unknown')}"
            for name in names
            if mine.get(name) != theirs.get(name)
        ]


def _flat(data: Mapping[str, object]) -> dict[str, object]:
    details = data["details"]
    assert isinstance(details, dict)
    return {**{name: value for name, value in data.items() if name != "details"}, **details}


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One layer as the runtime executes it.

    Attributes:
        name: the runtime's own name for it.
        op: the runtime's operator name.
        outputs: names of the ONNX tensors it produces, as far as the runtime keeps them. A layer that only
            moves data (a reorder, an inserted cast) names the ONNX tensor that it moves.
        time_ms: of a typical run.
        nodes: names of the ONNX nodes fused into it, where the runtime tells; a node without a name goes by
            its first output's name. Empty for a layer that the runtime added.
    """

    name: str
    op: str
    outputs: tuple[str, ...]
    time_ms: float
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Timing:
    """End-to-end latencies of one model, one entry per run; equal to itself alone.

    Attributes:
        samples_ms: float64[runs], in the order measured.
        regime: one sentence on how it was measured (threads, graph, transfers, warm-up).
        rounds: how many interleaved rounds the runs came in, equally many each; 0: every run is a round.
        busy_ms: float64[runs], processor time of each run where one thread does all the work: its wall time without
            what other processes took of it. None where that says nothing.
    """

    samples_ms: NDArray[np.float64]
    regime: str
    rounds: int = 0
    busy_ms: NDArray[np.float64] | None = None

    @property
    def min_ms(self) -> float:
        """Fastest run."""
        return float(np.min(self.samples_ms))

    @property
    def undisturbed_ms(self) -> float:
        """The fastest run as it would be on a quiet machine."""
        busy = self.uninterrupted_ms
        return self.min_ms if busy is None else min(self.min_ms, float(np.min(busy)))

    @property
    def typical_ms(self) -> float:
        """The median run, less what other processes took of it where that is known; what latency models are fitted to.

        Not the fastest: where weights just fit a cache that others share, the fastest run found all of them there and
        the median did not, and how far the two are apart depends on the widths.
        """
        busy = self.uninterrupted_ms
        return self.median_ms if busy is None else float(np.median(np.minimum(busy, self.samples_ms)))

    @property
    def uninterrupted_ms(self) -> NDArray[np.float64] | None:
        """`busy_ms`, or None where it says that a run took no time: a clock too coarse for runs this short."""
        return None if self.busy_ms is None or not np.all(self.busy_ms > 0) else self.busy_ms

    @property
    def median_ms(self) -> float:
        """Median run."""
        return float(np.median(self.samples_ms))

    def percentile_ms(self, percent: float) -> float:
        """The latency that `percent` % of runs do not exceed."""
        return float(np.percentile(self.samples_ms, percent))

    @property
    def by_round_ms(self) -> NDArray[np.float64]:
        """float64[rounds, runs per round]; rows of models compared together belong together in time."""
        return self.samples_ms.reshape(self.rounds or len(self.samples_ms), -1)

    @property
    def spread(self) -> float:
        """Interquartile range of the rounds' medians, as a share of the median: the machine's noise."""
        low, middle, high = np.percentile(np.median(self.by_round_ms, axis=1), [25, 50, 75])
        return float((high - low) / middle)

    @property
    def quiet(self) -> bool:
        """Whether the machine was quiet enough for differences of a few per cent to mean something."""
        return self.spread <= QUIET_SPREAD


@dataclass(frozen=True, slots=True)
class Contender:
    """One model of a comparison.

    Attributes:
        name: what the model is called.
        timing: all of its runs.
        latency_ms: the chosen percentile of its runs.
        interval_ms: confidence interval (low, high) of `latency_ms`.
        speedup: the first model's latency over this one's; 1 for the first.
        speedup_interval: confidence interval (low, high) of `speedup`, from rounds paired in time.
    """

    name: str
    timing: Timing
    latency_ms: float
    interval_ms: tuple[float, float]
    speedup: float
    speedup_interval: tuple[float, float]

    @property
    def verdict(self) -> str:
        """`faster`, `slower`, or `same` where the interval does not exclude 1."""
        low, high = self.speedup_interval
        return "faster" if low > 1 else "slower" if high < 1 else "same"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Models measured interleaved on one device; the first is what the others are compared with.

    Attributes:
        device: what was measured on.
        percent: the percentile that `latency_ms` is (50: the median).
        confidence: of every interval, such as 0.95.
        contenders: one per model, in the order given.
    """

    device: Device
    percent: float
    confidence: float
    contenders: tuple[Contender, ...]

    @property
    def quiet(self) -> bool:
        """Whether the machine was quiet during all of it."""
        return all(contender.timing.quiet for contender in self.contenders)

    def as_json(self) -> dict[str, object]:
        """Plain data for reports."""
        rows = [
            {
                "name": c.name,
                "latency_ms": c.latency_ms,
                "interval_ms": list(c.interval_ms),
                "min_ms": c.timing.min_ms,
                "speedup": c.speedup,
                "speedup_interval": list(c.speedup_interval),
                "verdict": c.verdict,
                "spread": c.timing.spread,
                "runs": len(c.timing.samples_ms),
                "regime": c.timing.regime,
            }
            for c in self.contenders
        ]
        return {
            "device": self.device.as_json(),
            "percentile": self.percent,
            "confidence": self.confidence,
            "quiet": self.quiet,
            "models": rows,
        }
