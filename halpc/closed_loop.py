"""select → slim → measure, until what was measured is within the budget and close to it.

A budget given as a share is a share of the baseline as measured in the same interleaved run. A miss, on either
side, scales the latency model to what was measured and selects again. What counts in the end is one more,
longer measurement of the model that is written.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from halpc.casting import AtPrecision
from halpc.ir.latency import Timing
from halpc.ir.problem import Problem, Selection
from halpc.ir.table import LatencyTable, cache_path
from halpc.job import Job, Pair
from halpc.units import spell_ms
from passes.profile import Profiled, profile
from passes.proto import proto_of, static_proto
from passes.select import select
from passes.slim import plan_for, slim
from passes.widths import choices
from profilers import profiler_for

log = logging.getLogger(__name__)

GRID = 8  # widths are multiples of this where latency counts and --align says nothing
CLOSE = 0.96  # a result at least this share of the limit is not improved any further
AIM = 0.985  # what is selected for, so that noise does not carry the last measurement over the limit
SECONDS, FINAL_SECONDS = 2.0, 4.0  # of interleaved measuring per round, and of the last word


def profile_latency(job: Job) -> None:
    """The latency model, from the table on disk and from what is still missing in it."""
    table = open_table(job)
    profiled = profile(
        job.model, job.coupling, table, job.profiler, grid=job.options.align or GRID, progress=job.progress
    )
    job.profile_stats = profile_stats(table, profiled)
    job.costs["latency"] = profiled.cost
    if job.profiler is not None:
        baseline = job.profiler.compare([job.baseline], seconds=SECONDS / 2)[0]
        job.costs["latency"] = profiled.cost.corrected({}, _percentile(job, baseline))


def open_table(job: Job) -> LatencyTable:
    """The table to use and to grow, and the profiler that grows it; a table of another device has none.

    Raises:
        BackendError: the runtime that was asked for is missing.
        TableError: the table is damaged, or of another device and that was not accepted.
    """
    options = job.options
    if options.table is not None and options.accept_foreign_table:
        table = LatencyTable.load(options.table)
        job.note(f"latency is predicted from {options.table}, taken on {table.device.name}; nothing was measured here")
        return table
    chosen = profiler_for(
        options.profiler, threads=options.threads, precision=options.precision, provider=options.provider
    )
    native = options.precision in ("fp32", "tf32")
    job.profiler = chosen.profiler if native else AtPrecision(chosen.profiler, options.precision)
    if options.profiler == "auto":
        why = "".join(f"; {reason}" for reason in chosen.passed_over)
        job.note(f"--profiler auto: {chosen.backend} was used{why}")
    return LatencyTable.open(options.table or cache_path(job.profiler.device, os.environ), job.profiler.device)


def profile_stats(table: LatencyTable, profiled: Profiled) -> dict[str, Any]:
    """What the latency model rests on."""
    return {
        "table": str(table.path),
        "samples": profiled.samples,
        "networks": profiled.networks,
        "measured_now": profiled.measured,
        "saved_by_table": profiled.samples + profiled.networks - profiled.measured,
        "fit": profiled.fit.as_json(),
        "steps": {about: list(steps) for about, steps in profiled.steps.items()},
    }


def select_and_measure(job: Job) -> None:
    """Choose widths for every budget; where latency is one of them, measure and correct in rounds.

    Raises:
        InfeasibleError: no choice of widths fits; the message names the floor.
    """
    if job.profiler is None:
        _choose(job, {})
        return
    best: tuple[Selection, list[Pair]] | None = None
    limit = _limits(job)["latency"]
    for number in range(1, job.options.rounds + 1):
        job.progress("select", number, job.options.rounds)
        _choose(job, {"latency": AIM * limit})
        measured, limit = _round(job, number)
        met = measured <= limit
        if met and (best is None or job.selection.value > best[0].value):
            best = job.selection, job.pairs
        if met and (measured >= CLOSE * limit or _whole(job)):
            break
        job.costs["latency"] = job.costs["latency"].corrected(job.selection.widths, measured)
    if best is not None and best[0] is not job.selection:
        job.selection, job.pairs = best
        _slim(job)


def _round(job: Job, number: int) -> tuple[float, float]:
    """Measure the choice, and once more where it seems to be within the budget; its latency and the limit."""
    job.pairs = []
    predicted = job.costs["latency"].at(job.selection.widths)
    measured, limit = _measure(job, SECONDS)
    if measured <= limit:
        measured, limit = _measure(job, FINAL_SECONDS)
    job.rounds.append({"limit_ms": limit, "predicted_ms": predicted, "measured_ms": measured})
    log.info("round %d: predicted %s, measured %s of %s", number, *map(spell_ms, (predicted, measured, limit)))
    return measured, limit


def _whole(job: Job) -> bool:
    free = job.coupling.free()
    return all(job.selection.widths[name] == group.size for name, group in free.items())


def _limits(job: Job) -> dict[str, float]:
    """Each budget's limit in its unit, from the cost models' own baselines."""
    return {b.resource: b.limit(job.costs[b.resource].at({})) for b in job.options.budgets}


def _choose(job: Job, overrides: Mapping[str, float]) -> None:
    """One selection and the slim model that follows from it."""
    options = job.options
    job.limits = _limits(job) | dict(overrides)
    costs = job.costs.get("latency", job.costs["macs"])
    admissible = choices(
        job.coupling, job.saliency, align=options.align or (GRID if "latency" in job.limits else None),
        min_width=options.min_width, steps=costs.steps, ceilings=job.ceilings, vanishing=job.vanishing,
    )  # fmt: skip
    resources = tuple(job.costs[name].resource(limit) for name, limit in job.limits.items())
    job.selection = select(Problem(admissible, resources), solver=options.solver, steps=options.steps)
    _slim(job)


def _slim(job: Job) -> None:
    job.masks = {name: job.saliency.mask(name, width) for name, width in job.selection.widths.items()}
    job.plan = plan_for(job.model, job.coupling, job.masks)
    graph = slim(job.model, job.coupling, job.plan)
    left = {node.name for node in graph.nodes}
    gone = tuple(node.name for node in job.model.graph.nodes if node.name not in left)
    job.plan = replace(job.plan, removed_nodes=gone)
    job.slim = proto_of(graph, job.model.header)
    if job.profiler is not None:
        job.small = static_proto(graph, job.model.shapes, job.model.header)


def _measure(job: Job, seconds: float) -> tuple[float, float]:
    """Baseline and slim model interleaved, once more; by all runs so far, the slim one's latency and its limit."""
    before, after = job.profiler.compare([job.baseline, job.small], seconds=seconds)
    job.pairs = [*job.pairs, (before, after)]
    job.timings = before, after = pooled([p[0] for p in job.pairs]), pooled([p[1] for p in job.pairs])
    budget = job.options.budget("latency")
    assert budget is not None
    return _percentile(job, after), budget.limit(_percentile(job, before))


def _percentile(job: Job, timing: Timing) -> float:
    return timing.percentile_ms(job.options.percentile)


def judge(job: Job) -> None:
    """The last word: baseline and slim model measured longer, all runs of this pair of models counted together."""
    if job.profiler is None:
        return
    measured, limit = _measure(job, FINAL_SECONDS)
    job.limits["latency"] = limit
    predicted = job.costs["latency"].at(job.selection.widths)
    job.rounds.append({"limit_ms": limit, "predicted_ms": predicted, "measured_ms": measured})
    assert job.timings is not None
    noise = max(timing.spread for timing in job.timings)
    if noise > abs(measured / limit - 1):
        job.note(f"the machine's noise ({noise:.1%} between rounds) is larger than the distance to the budget")


def pooled(timings: Sequence[Timing]) -> Timing:
    """All runs of several measurements of one model as one."""
    first = timings[0]
    if len(timings) == 1:
        return first
    samples = np.concatenate([t.samples_ms for t in timings])
    return Timing(samples, f"{first.regime}; {len(timings)} such measurements together")


def tighten(job: Job) -> None:
    """Take the last measurement into the latency model, so that the next choice is that much narrower."""
    measured = job.rounds[-1]["measured_ms"]
    job.costs["latency"] = job.costs["latency"].corrected(job.selection.widths, measured)
    job.note("the last measurement missed the budget by noise: selected once more")


def status(job: Job) -> str:
    """`met`, `over budget`, `slower`, or `predicted` where latency was limited and could not be measured."""
    if job.profiler is None or job.timings is None:
        return "predicted" if "latency" in job.limits else "met"
    before, after = (_percentile(job, t) for t in job.timings)
    if after > before and not _whole(job):
        return "slower"
    return "met" if after <= job.limits["latency"] else "over budget"


def table_json(job: Job) -> dict[str, Any]:
    """The cost models in numbers, for `latency.json`."""
    return {
        "format": "halpc.latency-model",
        "version": 1,
        "device": job.profiler.device.as_json() if job.profiler is not None else {"kind": "analytic"},
        "rounds": job.rounds,
        "costs": {
            name: {"unit": c.unit, "fixed": c.fixed, "scale": c.scale, "baseline": c.at({}), "steps": dict(c.steps)}
            for name, c in job.costs.items()
        },
    }
