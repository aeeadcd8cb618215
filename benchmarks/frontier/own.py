"""halpc's own ways: widths from the joint solver on a latency model, or the same share of every group."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import numpy_helper

from halpc.compile import PREPARE, run
from halpc.errors import InfeasibleError
from halpc.ir.plan import Plan
from halpc.ir.problem import Choice, Problem
from halpc.job import Job
from halpc.options import Options
from halpc.units import parse_budget
from passes.proto import proto_of
from passes.select import select
from passes.slim import plan_for, slim
from passes.widths import choices

GRID = 8


@dataclass(frozen=True, slots=True)
class Pruned:
    """A slim model, and the plan that recovery needs (None for other tools)."""

    model: onnx.ModelProto
    plan: Plan | None = None


@dataclass(frozen=True, slots=True)
class Own:
    """A network that is loaded, coupled, scored and profiled."""

    job: Job
    original: onnx.ModelProto

    @classmethod
    def prepare(cls, model: Path, calibration: Path, evaluate: Path, table: Path | None) -> Own:
        """Every stage that does not depend on the budget; the latency table is grown as needed."""
        budget = (parse_budget("latency", "1x"),)
        options = Options(
            model, budget, calibration=calibration, evaluate=evaluate, profiler="onnxruntime", table=table
        )
        job = Job(options)
        run(job, PREPARE)
        return cls(job, proto_of(job.model.graph, job.model.header))

    def choices(self) -> tuple[Choice, ...]:
        """Admissible widths of every group, as `halpc compile --latency` has them."""
        steps = self.job.costs["latency"].steps
        return choices(self.job.coupling, self.job.saliency, align=GRID, steps=steps, vanishing=self.job.vanishing)

    def joint(self, strength: float) -> Pruned | None:
        """The best widths within (1 − strength) of the predicted baseline latency."""
        cost = self.job.costs["latency"]
        try:
            found = select(Problem(self.choices(), (cost.resource((1 - strength) * cost.at({})),)))
        except InfeasibleError:
            return None
        return self.slim(dict(found.widths))

    def uniform(self, strength: float) -> Pruned | None:
        """Every group keeps the same share of its channels, rounded to an admissible width that is not zero."""
        widths = {}
        for choice in self.choices():
            some = choice.widths[choice.widths > 0]
            widths[choice.name] = int(min(some, key=lambda width: abs(width - (1 - strength) * some[-1])))
        return self.slim(widths)

    def slim(self, widths: dict[str, int]) -> Pruned:
        """The slim model of these widths, by the job's importance."""
        masks = {name: self.job.saliency.mask(name, width) for name, width in widths.items()}
        plan = plan_for(self.job.model, self.job.coupling, masks)
        return Pruned(proto_of(slim(self.job.model, self.job.coupling, plan), self.job.model.header), plan)


def parameters(model: onnx.ModelProto) -> int:
    """Numbers in floating-point initializers."""
    arrays = (numpy_helper.to_array(item) for item in model.graph.initializer)
    return sum(array.size for array in arrays if array.dtype.kind == "f")
