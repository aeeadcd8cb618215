"""networks: whole networks, slimmed to mixes of widths and measured in context, end to end and layer by layer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

import numpy as np
import onnx

from halpc.errors import BackendError, TableError
from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from halpc.ir.profiler import Profiler
from halpc.ir.table import LatencyTable, NetworkSample
from passes.latency.clusters import Cluster, times_of
from passes.memory import widest_bytes
from passes.proto import static_proto
from passes.slim import plan_for, slim

log = logging.getLogger(__name__)

Point: TypeAlias = tuple[tuple[str, int], ...]  # (group, width), sorted: what a network is known by

LAYER_RUNS: Final = 12
_LEAST_SECONDS: Final = 0.15  # of measuring a network end to end
_RUNS: Final = 15
_TOGETHER_BYTES: Final = 2 << 30  # of networks that are measured in turns; sessions take as much again
_ARRAYS_BYTES: Final = 4 << 30  # of their activations, each network's at its widest node
_BUILT: Final = 4  # networks in turns where each is an engine to build: an interrupted run loses no more of them


@dataclass(slots=True)
class Networks:
    """Whole networks of one model: what the table lacks is measured, and some seconds later once more.

    Attributes:
        key: that the table knows the model by.
        clusters: the model's kernels.
        progress: called with a stage's name, networks done and networks in all.
        fresh: what was measured now, and once only.
    """

    model: Model
    coupling: Coupling
    table: LatencyTable
    profiler: Profiler | None
    key: str
    clusters: tuple[Cluster, ...]
    progress: Callable[[str, int, int], None]
    fresh: list[NetworkSample] = field(default_factory=list)

    def measure(self, wanted: Sequence[Mapping[str, int]], *, others_do: bool = False) -> int:
        """Measure the mixes of widths that the table lacks, and say how many those were.

        Args:
            others_do: whether as many networks on another grid do instead, as where each is an engine to build.

        Raises:
            TableError: it has none, and there is no profiler.
            BackendError: the runtime failed.
        """
        others_do |= self.profiler is not None and self.profiler.device.builds
        missing = self._missing({tuple(sorted(w.items())): w for w in wanted}, others_do)
        if self.profiler is not None and missing:
            self._measure(self.profiler, missing)
            return len(missing)
        if not self.table.networks(self.key):
            raise TableError(f"{self.table.path}: the table has no whole network of this model. Run `halpc profile`.")
        return 0

    def _missing(self, wanted: Mapping[Point, Mapping[str, int]], others_do: bool) -> list[Mapping[str, int]]:
        """What the table lacks; as many as it has fewer than these, where others do."""
        known = [tuple(sorted(n.widths.items())) for n in self.table.networks(self.key)]
        if not others_do:
            return [widths for point, widths in wanted.items() if point not in known]
        missing: list[Mapping[str, int]] = []
        for lacking in (False, True):  # branches
            alike = {point: widths for point, widths in wanted.items() if _lacks(point) == lacking}
            short = max(0, len(alike) - sum(_lacks(point) == lacking for point in known))
            missing += [widths for point, widths in alike.items() if point not in known][:short]
        return missing

    def _measure(self, profiler: Profiler, missing: Sequence[Mapping[str, int]]) -> None:
        """As many at a time as memory bears; from the second time on the first network, once more, tells the speed."""
        together = self._together(profiler)
        reference: tuple[onnx.ModelProto, float] | None = None
        for start in range(0, len(missing), together):
            part = missing[start : start + together]
            protos = [slimmed(self.model, self.coupling, widths) for widths in part]
            layers: list[dict[str, float]] = []
            for i, proto in enumerate(protos):
                self.progress("profile: networks", start + i, len(missing) + 1)
                layers.append(self._layers(profiler, proto))
            ms, runs = _in_turns(profiler, protos, layers, reference)
            reference = reference or (protos[0], ms[0])
            for widths, times, each, count in zip(part, layers, ms, runs, strict=True):
                self.fresh.append(NetworkSample(self.key, dict(widths), each, times, count))
                self.table.append_network(self.fresh[-1])
        self.progress("profile: networks", len(missing) + 1, len(missing) + 1)

    def _together(self, profiler: Profiler) -> int:
        return min(at_once(self.model), _BUILT) if profiler.device.builds else at_once(self.model)

    def _layers(self, profiler: Profiler, proto: onnx.ModelProto) -> dict[str, float]:
        try:
            layers = profiler.layers(proto, repetitions=LAYER_RUNS)
        except BackendError as error:
            log.debug("no times per layer: %s", error)
            return {}
        return times_of(self.clusters, self.model.twin, layers)[0]

    def confirm(self) -> None:
        """Measure the networks of this run again, end to end, at the speed at which they were measured.

        That speed the others in the turns tell, so that one by itself would say nothing new.
        """
        if self.profiler is None:
            return
        together = self._together(self.profiler)
        for start in range(0, len(self.fresh), together):
            part = self.fresh[start : start + together]
            protos = [slimmed(self.model, self.coupling, network.widths) for network in part]
            if len(part) > 1:
                self.progress("profile: networks once more", start, len(self.fresh))
                self._once_more(self.profiler, part, protos)
            if hasattr(self.profiler, "forget"):  # what builds engines; the whole is measured again and again
                self.profiler.forget([p for n, p in zip(part, protos, strict=True) if not self._is_whole(n.widths)])
        self.fresh.clear()

    def _once_more(self, profiler: Profiler, part: Sequence[NetworkSample], protos: Sequence[onnx.ModelProto]) -> None:
        timings = profiler.compare(protos, seconds=sum(seconds_for(network.ms) for network in part))
        again = np.array([timing.typical_ms for timing in timings])
        again /= np.median(again / [network.ms for network in part])
        for network, ms, timing in zip(part, again.tolist(), timings, strict=True):
            runs = network.runs + len(timing.samples_ms)
            mean = (network.ms * network.runs + ms * len(timing.samples_ms)) / runs
            self.table.append_network(replace(network, ms=mean, runs=runs))

    def _is_whole(self, widths: Mapping[str, int]) -> bool:
        return all(self.coupling.groups[name].size == width for name, width in widths.items())


def _lacks(point: Point) -> bool:
    return any(width == 0 for _, width in point)


def _in_turns(
    profiler: Profiler,
    protos: Sequence[onnx.ModelProto],
    layers: Sequence[Mapping[str, float]],
    reference: tuple[onnx.ModelProto, float] | None,
) -> tuple[list[float], list[int]]:
    """End-to-end times in ms and numbers of runs, at the speed at which the reference took the time it did."""
    seconds = sum(seconds_for(sum(times.values())) for times in layers)
    if reference is None:
        timings = profiler.compare(protos, seconds=seconds)
        return [timing.typical_ms for timing in timings], [len(timing.samples_ms) for timing in timings]
    known, known_ms = reference
    again, *timings = profiler.compare([known, *protos], seconds=seconds + seconds_for(known_ms))
    speed = again.typical_ms / known_ms
    return [timing.typical_ms / speed for timing in timings], [len(timing.samples_ms) for timing in timings]


def at_once(model: Model) -> int:
    """How many networks like it memory bears beside each other, with their weights and activations."""
    arrays = _ARRAYS_BYTES // max(widest_bytes(model.twin), 1)
    return max(1, min(_TOGETHER_BYTES // max(model.size_bytes, 1), int(arrays)))


def slimmed(model: Model, coupling: Coupling, widths: Mapping[str, int]) -> onnx.ModelProto:
    """The model at `widths`, its first channels kept: which ones are does not matter to latency."""
    masks = {name: np.arange(coupling.groups[name].size) < size for name, size in widths.items()}
    plan = plan_for(model, coupling, masks)
    return static_proto(slim(model, coupling, plan), model.shapes, model.header)


def seconds_for(ms: float) -> float:
    """How long to measure a network that takes about `ms`."""
    return max(_LEAST_SECONDS, _RUNS * ms / 1e3)
