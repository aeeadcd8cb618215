"""HALP's comparison: solvers and simpler rules at equal measured latency, as pruned and after recovery.

    python -m benchmarks.papers.compare models/resnet18.onnx --importance models/resnet18.importance.npz \
        --calibration models/calibration.npz --evaluate models/test.npz --out papers-resnet18.json

Every method meets the same share of the baseline's latency, measured interleaved with the baseline. `uniform` gives
every group the same share of its channels, `global` keeps channels above one threshold on importance; both are brought
to the budget by bisection on the latency model and corrected by what is measured, as the solvers are.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from halpc import closed_loop
from halpc.compile import PREPARE, run
from halpc.errors import HalpcError
from halpc.ir.problem import Problem, Selection
from halpc.job import Job
from halpc.options import Options
from halpc.units import Budget, parse_budget
from passes.evaluate import evaluate
from passes.proto import proto_of
from passes.recover import recover
from passes.verify import verify

METHODS = ("joint", "halp", "halp-30", "sp-lamp", "uniform", "global")
BUDGETS = ("1.3x", "1.6x", "2x", "2.5x", "4x")
Widths = dict[str, int]


def main() -> None:
    """Run every method at every budget; one JSON row per point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--importance", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--evaluate", type=Path, required=True)
    parser.add_argument("--budgets", default=",".join(BUDGETS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--score", default="auto")
    parser.add_argument("--samples", type=int, default=400, help="calibration inputs used for recovery")
    parser.add_argument("--no-recover", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    job = prepared(args)
    rows: list[dict[str, Any]] = []
    for text in args.budgets.split(","):
        for method in args.methods.split(","):
            rows.append(point(job, method, text, args))
            print(json.dumps(rows[-1]), flush=True)
            args.out.write_text(
                json.dumps({"model": str(args.model), "device": job.profiler.device.as_json(), "rows": rows}, indent=1)
            )


def prepared(args: argparse.Namespace) -> Job:
    """Everything that does not depend on method or budget."""
    options = Options(
        args.model, (parse_budget("latency", "1.6x"),), importance=(args.importance,) if args.importance else (),
        calibration=args.calibration, evaluate=args.evaluate, profiler="onnxruntime", score=args.score,
    )  # fmt: skip
    job = Job(options)
    run(job, PREPARE)
    return job


def point(job: Job, method: str, text: str, args: argparse.Namespace) -> dict[str, Any]:
    """One method at one budget: measured latency, top-1 as pruned and recovered."""
    solver, _, steps = method.partition("-") if method.startswith("halp") else (method, "", "")
    own = at(
        job,
        parse_budget("latency", text),
        solver if solver in ("joint", "halp", "sp-lamp") else "joint",
        int(steps or 1),
    )
    started = time.perf_counter()
    try:
        with using(RULES.get(method)):
            closed_loop.select_and_measure(own)
            seconds = time.perf_counter() - started
            closed_loop.judge(own)
    except HalpcError as error:
        return {"method": method, "budget": text, "status": f"{type(error).__name__}: {error}"}
    assert own.timings is not None
    before, after = (t.median_ms for t in own.timings)
    row = {"method": method, "budget": text, "status": closed_loop.status(own), "speedup": before / after,
           "latency_ms": after,
           "baseline_ms": before, "importance": own.selection.value, "seconds": seconds, "rounds": len(own.rounds) - 1,
           "macs": own.costs["macs"].at(own.selection.widths) / own.costs["macs"].at({}),
           "error": verify(own.model, own.coupling, own.plan, own.slim).max_relative_error}  # fmt: skip
    row["top1"] = evaluate(own.slim, own.labelled).top1
    if not args.no_recover:
        calibration = own.calibration.take(slice(0, args.samples))
        fixed = recover(proto_of(own.model.graph, own.model.header), own.slim, own.plan.keep, calibration)
        row["top1_recovered"] = evaluate(fixed.model, own.labelled).top1
        row["recover_seconds"] = fixed.seconds
    return row


def at(job: Job, budget: Budget, solver: str, steps: int) -> Job:
    """The prepared job for one budget and solver."""
    options = replace(job.options, budgets=(budget,), solver=solver, steps=steps)
    return job.at(options)


class using:  # noqa: N801  (a context manager, read as a word)
    """Put another rule in the place of the solver, for the closed loop to call."""

    def __init__(self, rule: Callable[[Problem], Selection] | None) -> None:
        self.rule = rule

    def __enter__(self) -> None:
        self.kept = closed_loop.select
        if self.rule is not None:
            rule = self.rule
            closed_loop.select = lambda problem, **_: rule(problem)

    def __exit__(self, *_: object) -> None:
        closed_loop.select = self.kept


def bisected(problem: Problem, widths_at: Callable[[float], Widths], solver: str) -> Selection:
    """The largest share in [0, 1] whose widths fit the limits."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if problem.feasible(widths_at(middle)) else (low, middle)
    widths = widths_at(low)
    spent = {r.name: r.spent(widths) for r in problem.resources}
    return Selection(widths, problem.value(widths), spent, np.inf, {}, "nothing", (), solver, 0.0)


def uniform(problem: Problem) -> Selection:
    """Every group keeps the same share of its channels."""

    def widths(share: float) -> Widths:
        return {c.name: nearest(c.widths, share * c.widths[-1]) for c in problem.choices}

    return bisected(problem, widths, "uniform")


def global_threshold(problem: Problem) -> Selection:
    """Every channel whose importance is above one threshold stays."""
    scores = np.sort(np.concatenate([c.scores for c in problem.choices]))[::-1]

    def widths(share: float) -> Widths:
        threshold = scores[min(int(share * (scores.size - 1)), scores.size - 1)]
        return {c.name: nearest(c.widths, float((c.scores >= threshold).sum())) for c in problem.choices}

    return bisected(problem, widths, "global")


def nearest(admissible: Any, wanted: float) -> int:
    """The admissible width nearest to the wanted one, at least the narrowest that is not zero."""
    some = admissible[admissible > 0]
    return int(some[np.argmin(np.abs(some - wanted))])


RULES: dict[str, Callable[[Problem], Selection]] = {"uniform": uniform, "global": global_threshold}


if __name__ == "__main__":
    main()
