"""The state of one compile: what the stages before have found, for the stages after."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import onnx

from halpc.evidence import Call, Evidence, Key, Trial
from halpc.ir.cost import CostModel
from halpc.ir.dims import Mask
from halpc.ir.groups import Coupling
from halpc.ir.latency import Timing
from halpc.ir.model import Model
from halpc.ir.peak import PeakModel
from halpc.ir.plan import Plan
from halpc.ir.problem import Selection
from halpc.ir.saliency import Saliency
from halpc.ir.table import LatencyTable
from halpc.options import Options

log = logging.getLogger(__name__)

Widths: TypeAlias = tuple[tuple[str, int], ...]  # (group, width), sorted: what a choice is known by
Progress: TypeAlias = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(slots=True)
class Job:
    """Fields are filled in stage order; a stage reads only what earlier stages filled."""

    options: Options
    progress: Progress = silent
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    earlier: Plan | None = None  # that is continued
    model: Model = None  # type: ignore[assignment]
    engine_shapes: Mapping[str, Any] = field(default_factory=dict)
    coupling: Coupling = None  # type: ignore[assignment]
    saliency: Saliency = None  # type: ignore[assignment]
    ceilings: Mapping[str, int] = field(default_factory=dict)
    grid: int | None = None  # widths are multiples of this where latency is limited
    spare_rounds: int = 0  # beyond those of the options
    exhausted: bool = False  # whether no choice that was not measured is worth more and expected to meet the budgets
    anchor: Widths = ()  # of a measured choice that the latency model was far off at
    learnt: int | None = None  # the grid that the latency model was measured on
    vanishing: tuple[str, ...] = ()
    calibration: Any = None
    labelled: Any = None
    profiler: Any = None
    table: LatencyTable | None = None
    costs: dict[str, CostModel] = field(default_factory=dict)
    memory: PeakModel = None  # type: ignore[assignment]
    limits: dict[str, float] = field(default_factory=dict)
    baseline: onnx.ModelProto = None
    selection: Selection = None  # type: ignore[assignment]
    masks: Mapping[str, Mask] = field(default_factory=dict)
    plan: Plan = None  # type: ignore[assignment]
    slim: onnx.ModelProto = None
    small: onnx.ModelProto = None  # the slim model at fixed shapes, as it is measured
    calls: list[Call] = field(default_factory=list)  # all measurements of latency
    companion: Mapping[Key, onnx.ModelProto] = field(default_factory=dict)  # the choice that others are measured beside
    trials: dict[Widths, Trial] = field(default_factory=dict)
    measuring_s: float = 0.0  # spent on choices
    timings: tuple[Timing, Timing] | None = None  # of the baseline, and of the model that was measured last
    evidence: Evidence | None = None  # of the model that is written
    rounds: list[dict[str, float]] = field(default_factory=list)
    verification: Any = None
    recovery: Any = None
    final: onnx.ModelProto = None  # the slim model, recovered where there was something to recover from
    deployed: onnx.ModelProto = None  # the same at the precision asked for
    conversion: float | None = None  # how far the precision moves the outputs
    engine: Any = None
    engine_ms: float | None = None  # what that takes; of another build than was measured, beside the one that was
    accuracy_before: float | None = None  # top-1 of the model as it came
    accuracy: float | None = None  # and of what is deployed
    profile_stats: dict[str, Any] = field(default_factory=dict)

    def at(self, options: Options) -> Job:
        """A copy of a prepared job for other options: what was learnt of the latency goes along, no measurement."""
        return replace(
            self, options=options, rounds=[], calls=[], companion={}, trials={}, measuring_s=0.0, timings=None,
            evidence=None, recovery=None, final=None, deployed=None, conversion=None, engine=None,
            engine_ms=None, accuracy=None, seconds=dict(self.seconds), costs=dict(self.costs), notes=list(self.notes),
        )  # fmt: skip

    def cost(self, resource: str) -> CostModel | PeakModel:
        """The cost model of a resource that may be limited."""
        return self.memory if resource == self.memory.name else self.costs[resource]

    def whole(self, resource: str) -> float:
        """The cost of the model as it came; of parameters, those that the file stores."""
        cost = self.cost(resource).at({})
        return min(cost, self.model.stored) if resource == "params" else cost

    def note(self, sentence: str) -> None:
        """Something that a reader of the report must not miss."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            log.warning(sentence)
