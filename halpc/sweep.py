"""sweep: one profile, many budgets; and its inverse, the fastest model that loses no more than so much."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from halpc import summary
from halpc.compile import PREPARE, finish, run, write
from halpc.errors import InfeasibleError, OverBudgetError, UsageError
from halpc.ir.report import Report
from halpc.job import Job, Progress, silent
from halpc.options import Options
from halpc.units import Budget, parse_budget
from passes.write import publish, staging, write_json

log = logging.getLogger(__name__)

SLOWEST, FASTEST = 0.95, 0.25  # shares between which --points places its budgets
RESOLUTION = 0.02  # of the share, at which the search for --max-drop stops


@dataclass(frozen=True, slots=True)
class Point:
    """One budget of a sweep and what came of it."""

    budget: str
    status: str
    report: Report | None
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        if self.report is None:
            return {"budget": self.budget, "status": self.status, "reason": self.reason}
        r = self.report
        return {
            "budget": self.budget,
            "status": self.status,
            "predicted_latency_ms": r.predicted_latency_ms,
            "baseline": asdict(r.baseline),
            "result": asdict(r.result),
            "importance_kept": r.importance_kept,
            "gap": r.gap,
            "prices": dict(r.prices),
        }


def shares(points: int) -> list[str]:
    """`points` budgets, geometrically spaced, as people write them."""
    return [f"{100 * s:.4g}%" for s in np.geomspace(SLOWEST, FASTEST, points)]


def sweep(options: Options, resource: str, texts: Sequence[str], progress: Progress = silent) -> list[Point]:
    """Compile to every budget with one profile; write each into a folder of its own, and `sweep.json` beside them.

    What is done is written before the next budget begins, so an interrupted sweep leaves a shorter one.

    Raises:
        HalpcError: before the first budget, as `compile_model` does; a budget that cannot be met is a point.
    """
    job = Job(replace(options, budgets=(parse_budget(resource, texts[0]),)), progress)
    points = []
    with staging(options.out) as folder:
        run(job, PREPARE)
        for text in texts:
            points.append(_point(job, parse_budget(resource, text), options.out))
            write_json(folder / "sweep.json", _sweep_json(options, points))
            publish(folder, options.out)
        _plot(points, folder / "sweep.svg")
        publish(folder, options.out)
    return points


def _point(job: Job, budget: Budget, out: Path) -> Point:
    """One budget, from the prepared job."""
    place = out / budget.text.replace("%", "pct").replace("/", "_")
    own = job.at(replace(job.options, budgets=(budget,), out=place))
    try:
        report = finish(own)
    except InfeasibleError as error:
        return Point(budget.text, "infeasible", None, str(error))
    try:
        with staging(place) as folder:
            write(own, report, folder)
            publish(folder, place)
    except OverBudgetError as error:
        return Point(budget.text, "slower", report, str(error))
    return Point(budget.text, report.status, report)


def fastest_within(options: Options, resource: str, max_drop: float, progress: Progress = silent) -> Report:
    """The smallest share of the baseline whose measured accuracy drop is at most `max_drop`, by bisection.

    Raises:
        UsageError: nothing to evaluate with.
        InfeasibleError: even the largest share loses more.
    """
    if options.evaluate is None:
        raise UsageError("--max-drop needs --evaluate with labelled inputs")
    job = Job(replace(options, budgets=(parse_budget(resource, "95%"),)), progress)
    best: tuple[Job, Report] | None = None
    with staging(options.out) as folder:
        run(job, PREPARE)
        low, high = 0.02, 1.0
        while high - low > RESOLUTION:
            share = (low + high) / 2
            budget = Budget(resource, share, None, f"{100 * share:.4g}%")
            found = _within(job.at(replace(options, budgets=(budget,))), max_drop)
            if found is None:
                low = share
            else:
                best, high = found, share
        if best is None:
            raise InfeasibleError(
                f"--max-drop {max_drop:.2%}: every pruned model loses more", budget=max_drop, floor=0.0
            )
        write(*best, folder)
        publish(folder, options.out)
    return best[1]


def _within(job: Job, max_drop: float) -> tuple[Job, Report] | None:
    """The job and its report if the budget is met and no more than `max_drop` is lost."""
    try:
        report = finish(job)
    except (InfeasibleError, OverBudgetError):
        return None
    before, after = report.baseline.accuracy, report.result.accuracy
    assert before is not None
    assert after is not None
    log.info("%s: top-1 %.2f%% of %.2f%%", job.options.budgets[0].text, 100 * after, 100 * before)
    return (job, report) if report.status == "met" and before - after <= max_drop else None


def _sweep_json(options: Options, points: Sequence[Point]) -> Mapping[str, Any]:
    return {"format": "halpc.sweep", "version": 1, "model": str(options.model), "points": [p.as_json() for p in points],
            "versions": summary.versions()}  # fmt: skip


def _plot(points: Sequence[Point], path: Path) -> None:
    """Importance and accuracy against latency, where matplotlib is installed; said where it is not."""
    from halpc.draw import draw_sweep

    draw_sweep([p.as_json() for p in points], path)
