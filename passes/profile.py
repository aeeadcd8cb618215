"""profile: from a model and its coupling to what each kernel costs at any widths, measured on the device.

    clusters   what the runtime runs as one kernel                      (clusters.py)
    kernels    each with a signature, axes, and a model of its own      (kernels.py)
    samples    of every signature, alone, adaptively                    (sampling.py, interpolate.py)
    networks   whole, slimmed to a designed set of width mixes          (networks.py, calibrate.py)
    all        that was measured now is measured again some seconds later, and averaged: speeds change from moment
               to moment, and what other tenants leave in the caches, which wide networks feel more than narrow ones;
               on a GPU networks alone

Everything measured goes into the table as it is measured; what is there is not measured again, so an interrupted
run resumes, and a second budget measures nothing. Without a profiler the table must have it all.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np

from halpc.errors import BackendError, TableError
from halpc.ir.cost import CostModel
from halpc.ir.dims import Dim, Leaf
from halpc.ir.groups import Coupling
from halpc.ir.latency import LayerTime
from halpc.ir.model import Model
from halpc.ir.prediction import Prediction, judge
from halpc.ir.profiler import Profiler
from halpc.ir.table import LatencyTable, NetworkSample, Sample, Signature
from passes.latency.calibrate import calibrate, mixes, network_key, ramps, without
from passes.latency.clusters import Cluster, clusters_by_rule, clusters_of, tells_enough, times_of
from passes.latency.interpolate import Point, Surface, on_line, step_of, surface
from passes.latency.kernels import Kernel, kernel_of
from passes.latency.moment import at_the_moment, references
from passes.latency.networks import LAYER_RUNS, Networks, at_once, seconds_for, slimmed
from passes.latency.sampling import LEVELS, NOISE, Box, box_of, rounds
from passes.latency.vanishing import with_vanishing
from passes.proto import static_proto
from passes.widths import grids

log = logging.getLogger(__name__)

Progress: TypeAlias = Callable[[str, int, int], None]
NETWORKS: Final = 20
RAMPED: Final = 6  # one network in so many is narrow early and full late
LACKING: Final = 6  # and one more that lacks branches, where these may vanish
HELD_BACK: Final = 12
_NEGLIGIBLE: Final = 0.002
_BATCH: Final = 64
_REFERENCES: Final = 8
_LEAST_S, _MOST_S = 0.5, 60.0  # of measuring before a budget is looked at, whatever a table says that networks take
_LEAST_REFERENCE_MS: Final = 0.01
_SPEEDS: Final = (0.1, 10.0)  # beyond which something else is wrong with what tells the machine's speed


@dataclass(frozen=True, slots=True)
class Profiled:
    """The latency model and how it came about.

    Attributes:
        cost: latency as a function of the groups' widths, in ms.
        fit: how well the calibration networks are predicted by a model that was fitted without them.
        context: the calibration networks.
        samples: how many samples of kernels the model rests on.
        measured: how many of these samples and networks were measured now; the others were in the table.
        steps: signature's description → per axis, the staircase's step in channels.
        seconds: wall time of it all.
        lacking: how many networks fewer than it should rest on were measured or in the table.
    """

    cost: CostModel
    fit: Prediction
    context: tuple[NetworkSample, ...]
    samples: int
    measured: int
    steps: Mapping[str, tuple[int, ...]]
    seconds: float
    lacking: int = 0

    def as_json(self) -> dict[str, object]:
        """Plain data for reports."""
        return {
            "kernels": len(self.cost.charges),
            "samples": self.samples,
            "networks": len(self.context),
            "measured_now": self.measured,
            "seconds": self.seconds,
            "prediction": self.fit.as_json(),
            "steps": {about: list(steps) for about, steps in self.steps.items()},
        }


def profile(
    model: Model,
    coupling: Coupling,
    table: LatencyTable,
    profiler: Profiler | None = None,
    *,
    grid: int = 8,
    networks: int = NETWORKS,
    vanishing: Collection[str] = (),
    finer: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> Profiled:
    """The latency model of `model` on the table's device.

    Args:
        model: as loaded.
        coupling: its groups.
        table: samples taken before; grows by what is measured here.
        profiler: measures what is missing; None: nothing is measured.
        grid: axes of weights that will be asked for are multiples of this.
        networks: how many whole networks to measure in context, some more where branches may vanish.
        vanishing: groups that may have no channels at all.
        finer: the model was profiled on a coarser grid just now, whose whole networks do.
        progress: called with a stage's name, samples done and samples in all, as far as is known.

    Raises:
        TableError: there is no profiler, and the table does not fit the model.
        BackendError: the runtime is missing or failed.
    """
    started = time.perf_counter()
    run = _Run(model, coupling, table, profiler, grid, grids(coupling, grid), progress, network_key(model, coupling))
    kernels = run.kernels()
    run.sample(kernels)
    wanted = _designed(coupling, vanishing, networks, grid, LEVELS if table.device.builds else 0)
    whole = Networks(model, coupling, table, profiler, run.key, run.clusters, progress)
    run.measured += whole.measure(wanted, others_do=finer)
    run.confirm(kernels)
    whole.confirm()
    known = table.networks(run.key)
    samples = [n for n in known if all(w or name in vanishing for name, w in n.widths.items())]
    surfaces, steps = run.surfaces(kernels), run.steps(kernels)
    group_steps = _group_steps(kernels, steps, coupling)

    def fit(networks: Sequence[NetworkSample]) -> CostModel:
        def present(cost: CostModel) -> CostModel:
            return with_vanishing(cost, model.twin, coupling, vanishing, run.clusters, networks)

        return calibrate(kernels, surfaces, networks, present).cost(group_steps)

    return Profiled(
        fit(samples),
        _left_out(fit, samples),
        tuple(samples),
        sum(len(table.lookup(s)) for s in {k.signature for k in kernels}),
        run.measured,
        {signature.about: found for signature, found in steps.items()},
        time.perf_counter() - started,
        max(0, len({tuple(sorted(widths.items())) for widths in wanted}) - len(samples)),
    )


def _designed(
    coupling: Coupling, vanishing: Collection[str], networks: int, grid: int, levels: int
) -> list[dict[str, int]]:
    """Mixes of widths that whole networks are measured at; of `levels` only where these give as many as are wanted."""
    ramped = networks // RAMPED
    branchless = networks // LACKING if vanishing else 0
    found = [
        *mixes(coupling, networks - ramped, grid, 0, levels),
        *ramps(coupling, ramped, grid, 0, levels),
        *without(coupling, vanishing, branchless, grid, 0, levels),
    ]
    few = len({tuple(sorted(widths.items())) for widths in found}) < len(found)
    return _designed(coupling, vanishing, networks, grid, 0) if levels and few else found


def held_back(
    model: Model, coupling: Coupling, profiled: Profiled, profiler: Profiler, *, grid: int = 8, plans: int = HELD_BACK
) -> Prediction:
    """Predict random plans that the model has not seen, then measure them end to end, interleaved.

    Some of the networks that the model was fitted to are measured with them: they tell the machine's state now.
    """
    drawn = mixes(coupling, plans + 1, grid, seed=1)[1:]
    together = at_once(model)
    known = _told_by(profiled, profiler, together // 2)
    predicted = [profiled.cost.at(widths) for widths in drawn]
    measured: list[float] = []
    now: list[float] = []
    part = max(1, together - len(known))
    for start in range(0, len(drawn), part):
        own = drawn[start : start + part]
        protos = [slimmed(model, coupling, w) for w in (*(n.widths for n in known), *own)]
        about = (*(n.ms for n in known), *predicted[start : start + part])
        found = [timing.typical_ms for timing in profiler.compare(protos, seconds=4 * sum(map(seconds_for, about)))]
        cost = at_the_moment(profiled.cost, known, found[: len(known)])
        now += [cost.at(widths) for widths in own]
        measured += found[len(known) :]
    return judge(predicted, measured, now)


def _told_by(profiled: Profiled, profiler: Profiler, most: int) -> list[NetworkSample]:
    """Calibration networks that tell the machine's state; the whole alone where every other is an engine to build."""
    if profiler.device.builds:
        return [max(profiled.context, key=lambda network: sum(network.widths.values()))]
    return references(profiled.context, most)


def for_now(model: Model, coupling: Coupling, profiled: Profiled, profiler: Profiler, percentile: float) -> CostModel:
    """The latency model at the machine's state of the moment, told by the model and some calibration networks.

    On a GPU by the model alone: its caches are nobody else's, and every network would be an engine to build.

    Args:
        percentile: of the runs, that the whole model is predicted at.

    Raises:
        BackendError: the runtime failed.
    """
    shared = profiler.device.kind == "cpu"
    known = references(profiled.context, at_once(model) - 1) if shared else []
    whole = static_proto(model.graph, model.shapes, model.header)
    protos = [whole, *(slimmed(model, coupling, network.widths) for network in known)]
    about = [profiled.cost.at({}), *(network.ms for network in known)]
    seconds = float(np.clip(sum(map(seconds_for, about)), _LEAST_S, _MOST_S))
    own, *found = profiler.compare(protos, seconds=seconds)
    times = [timing.typical_ms for timing in found]
    cost = at_the_moment(profiled.cost, known, times) if known else profiled.cost
    return cost.corrected({}, own.percentile_ms(percentile))


@dataclass(slots=True)
class _Run:
    """One profiling: what is known, and what was measured."""

    model: Model
    coupling: Coupling
    table: LatencyTable
    profiler: Profiler | None
    grid: int
    grids: Mapping[str, int]
    progress: Progress
    key: str
    measured: int = 0
    shares: dict[str, float] = field(default_factory=dict)
    clusters: tuple[Cluster, ...] = ()

    def kernels(self) -> list[Kernel]:
        """The model's kernels that widths change, from what the runtime fuses."""
        structure = self.table.structure(self.key)
        if structure is None:
            structure = self._measure_structure()
        self.clusters = clusters_of(self.model.twin, structure)
        times, _ = times_of(self.clusters, self.model.twin, structure)
        total = sum(times.values()) or math.inf
        self.shares = {name: ms / total for name, ms in times.items()}
        found = (kernel_of(cluster, self.model, self.coupling) for cluster in self.clusters)
        return [kernel for kernel in found if kernel is not None]

    def _measure_structure(self) -> tuple[LayerTime, ...]:
        if self.profiler is None:
            raise TableError(
                f"{self.table.path}: the table does not fit the model: it was never profiled whole. Run `halpc profile`"
                " on the device, with this model and the same --shape, --batch, --freeze and --allow-renormalisation."
            )
        self.progress("profile: layers", 0, 1)
        whole = static_proto(self.model.graph, self.model.shapes, self.model.header)
        try:
            layers = self.profiler.layers(whole, repetitions=LAYER_RUNS)
            if not tells_enough(self.model.twin, layers):
                raise BackendError("the runtime does not say which nodes its layers are made of")
        except BackendError as error:
            log.warning("layers are fused by rule of thumb: %s", error)
            layers = tuple(LayerTime(c.name, "", (), 1.0, c.nodes) for c in clusters_by_rule(self.model.twin))
        self.table.append_structure(self.key, layers)
        return layers

    def sample(self, kernels: Sequence[Kernel]) -> None:
        """Measure what the table lacks; without a profiler, refuse a table that lacks a kernel altogether."""
        boxes = self._boxes(kernels)
        if self.profiler is None:
            self.table.require(boxes)
        else:
            self._sample(_one_of_each(kernels), boxes)

    def confirm(self, kernels: Sequence[Kernel]) -> None:
        """Measure again what was measured only once, some seconds ago.

        Not on a GPU: its caches are nobody else's, and every bundle would be an engine to build.
        """
        if self.profiler is not None and self.profiler.device.kind == "cpu":
            boxes = self._boxes(kernels)
            once = [(s, w) for s, box in boxes.items() for w in self._once(s, box)]
            if once:
                self._measure(once, _one_of_each(kernels), boxes, "profile: kernels once more")

    def _once(self, signature: Signature, box: Box) -> list[Point]:
        known = self.table.lookup(signature)
        return [widths for widths in self._inside(signature, box) if known[widths].runs == 1]

    def surfaces(self, kernels: Sequence[Kernel]) -> dict[str, Surface]:
        """Signature key → what its kernels cost alone; those that hardly count are left out."""
        found = {}
        for signature, box in self._boxes(kernels).items():
            samples = self._inside(signature, box)
            if box.centre in samples:
                found[signature.key] = surface(samples, box.sizes, box.centre)
        return found

    def _boxes(self, kernels: Sequence[Kernel]) -> dict[Signature, Box]:
        """Where each signature is sampled; those that hardly count are left out."""
        by_signature: dict[Signature, list[Kernel]] = {}
        for kernel in kernels:
            by_signature.setdefault(kernel.signature, []).append(kernel)
        counts = {s: sum(self.shares.get(k.name, 0.0) for k in ks) >= _NEGLIGIBLE for s, ks in by_signature.items()}
        return {s: self._box(ks) for s, ks in by_signature.items() if counts[s]}

    def _box(self, kernels: Sequence[Kernel]) -> Box:
        """The box of kernels with one signature; an axis that is no single group is on the coarse grid."""
        own = [[self._grid_of(axis) for axis in k.axes] for k in kernels]
        grids = [math.gcd(*each) for each in zip(*own, strict=True)]
        return box_of([k.sizes for k in kernels], grids, built=self.table.device.builds)

    def _grid_of(self, axis: Dim) -> int:
        return self.grids[axis.name] if isinstance(axis, Leaf) else self.grid

    def _inside(self, signature: Signature, box: Box) -> dict[Point, float]:
        """What the table knows of a kernel at widths of this model; other models may have it wider."""
        return {
            widths: sample.ms
            for widths, sample in self.table.lookup(signature).items()
            if all(width <= size for width, size in zip(widths, box.sizes, strict=True))
        }

    def _sample(self, kernels: Mapping[Signature, Kernel], boxes: Mapping[Signature, Box]) -> None:
        """Measure in rounds, all signatures together, so that a round's samples are spread over time."""
        wanted = [(s, w) for s, box in boxes.items() for w in box.first()]
        for _ in rounds():
            missing = [(s, w) for s, w in dict.fromkeys(wanted) if w not in self.table.lookup(s)]
            if not missing:
                break
            self._measure(missing, kernels, boxes, "profile: kernels")
            self.measured += len(missing)
            wanted = [(s, w) for s, box in boxes.items() for w in box.finer(self._inside(s, box))]

    def _measure(
        self,
        points: Sequence[tuple[Signature, Point]],
        kernels: Mapping[Signature, Kernel],
        boxes: Mapping[Signature, Box],
        stage: str,
    ) -> None:
        """Measure kernels at the speed at which the table's were: some of these, measured along, tell the machine's."""
        assert self.profiler is not None
        for start in range(0, len(points), _BATCH):
            batch = points[start : start + _BATCH]
            self.progress(stage, start, len(points))
            known = self._known(boxes)
            models = [kernels[s].model(self.coupling, w) for s, w in (*batch, *known)]
            times = self.profiler.kernels(models)
            slower = np.divide(times[len(batch) :], list(known.values()))
            speed = float(np.clip(np.median(slower), *_SPEEDS)) if known else 1.0
            log.debug("%s: %d at %.3f of the table's times", stage, len(batch), speed)
            found: dict[Signature, list[Sample]] = {}
            for (signature, widths), ms in zip(batch, times[: len(batch)] / speed, strict=True):
                found.setdefault(signature, []).append(Sample(widths, float(ms)))
            for signature, samples in found.items():
                self.table.append(signature, samples)
        self.progress(stage, len(points), len(points))

    def _known(self, boxes: Mapping[Signature, Box]) -> dict[tuple[Signature, Point], float]:
        """Some samples of this model's kernels that the table has, those that take longest: what they took, in ms."""
        samples = {(s, box.centre): self._inside(s, box).get(box.centre, 0.0) for s, box in boxes.items()}
        longest = sorted(samples, key=lambda point: -samples[point])[:_REFERENCES]
        return {point: samples[point] for point in longest if samples[point] >= _LEAST_REFERENCE_MS}

    def steps(self, kernels: Sequence[Kernel]) -> dict[Signature, tuple[int, ...]]:
        """Per signature and axis, the staircase's step in channels."""
        found: dict[Signature, tuple[int, ...]] = {}
        for signature in {k.signature: None for k in kernels}:
            box = self._box([k for k in kernels if k.signature == signature])
            samples = self._inside(signature, box)
            if box.centre in samples:
                found[signature] = tuple(
                    step_of(on_line(samples, box.centre, axis), NOISE / 2) for axis in range(len(box.sizes))
                )
        return found


def _one_of_each(kernels: Sequence[Kernel]) -> dict[Signature, Kernel]:
    """Any one kernel of every signature: measured alone at the same widths, they are the same."""
    return {kernel.signature: kernel for kernel in reversed(kernels)}


def _group_steps(
    kernels: Sequence[Kernel], steps: Mapping[Signature, tuple[int, ...]], coupling: Coupling
) -> dict[str, int]:
    """Group name → its latency-aware group size: the largest step of the kernels that have it as an axis.

    Source: HALP (arXiv 2110.10811), section 3.3: coupled layers take the largest.
    """
    found = dict.fromkeys(coupling.free(), 1)
    for kernel in kernels:
        for axis, step in zip(kernel.axes, steps.get(kernel.signature, ()), strict=False):
            if isinstance(axis, Leaf) and axis.name in found:
                found[axis.name] = max(found[axis.name], min(step, axis.size))
    return found


def _left_out(
    fit: Callable[[Sequence[NetworkSample]], CostModel], networks: Sequence[NetworkSample], folds: int = 5
) -> Prediction:
    """Predict each fifth of the networks from the other four."""
    predicted = np.zeros(len(networks))
    for fold in range(min(folds, len(networks))):
        train = [n for i, n in enumerate(networks) if i % folds != fold] or list(networks)
        fitted = fit(train)
        for i in range(fold, len(networks), folds):
            predicted[i] = fitted.at(networks[i].widths)
    return judge(predicted.tolist(), [n.ms for n in networks])
