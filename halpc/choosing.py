"""One choice of widths by the cost models, and the slim model that it gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from halpc.ir.problem import Choice, Problem
from halpc.job import Job
from halpc.room import make_room
from passes.proto import proto_of, static_proto
from passes.select import select
from passes.select.sp_lamp import top_filter_kept
from passes.slim import plan_for, slim
from passes.widths import choices


def limits_of(job: Job) -> dict[str, float]:
    """Each budget's limit in its unit, from the model as it came."""
    return {b.resource: b.limit(job.whole(b.resource)) for b in job.options.budgets}


def choose(
    job: Job, overrides: Mapping[str, float], near: Mapping[str, int] | None = None, *, narrowest: bool = False
) -> None:
    """One selection, near given widths if any, or of the narrowest widths only."""
    options = job.options
    job.limits = limits_of(job) | dict(overrides)
    widths = admissible(job)
    if narrowest:
        widths = tuple(map(top_filter_kept, widths)) if options.solver == "sp-lamp" else widths
        widths = tuple(replace(c, widths=c.widths[:1], value=c.value[:1]) for c in widths)
    met: list[Mapping[str, int]] = []  # choices that memory was over its limit at, each at a node not known before
    prove = job.memory.name not in job.limits
    while True:
        resources = tuple(r for name, limit in job.limits.items() for r in job.cost(name).resources(limit, met))
        job.selection = select(
            Problem(widths, resources), solver=options.solver, steps=options.steps, near=near, prove=prove
        )
        over = _over(job, job.selection.widths)
        if prove and not over:
            break
        if over:
            met.append(job.selection.widths)
        prove = not over  # not before all nodes that matter are known
    if narrowest:
        means = "none: these are the narrowest widths, whatever they are worth"
        job.selection = replace(job.selection, bound=math.inf, bound_means=means, prices={})


def admissible(job: Job) -> tuple[Choice, ...]:
    """The widths that every group may have."""
    options, costs = job.options, job.costs.get("latency", job.costs["macs"])
    return choices(
        job.coupling, job.saliency, align=options.align or job.grid,
        min_width=options.min_width, steps=costs.steps, ceilings=job.ceilings, vanishing=job.vanishing,
    )  # fmt: skip


def _over(job: Job, widths: Mapping[str, int]) -> bool:
    """Whether memory is over its limit at a node that the choice did not know of; it then knows one more."""
    limit = job.limits.get(job.memory.name)
    return limit is not None and job.memory.at(widths) > limit * (1 + 1e-9)


def slim_choice(job: Job) -> None:
    """The choice at hand as masks, plan and model."""
    job.masks = {name: job.saliency.mask(name, width) for name, width in job.selection.widths.items()}
    job.plan = plan_for(job.model, job.coupling, job.masks)
    graph = slim(job.model, job.coupling, job.plan)
    left = {node.name for node in graph.nodes}
    gone = tuple(node.name for node in job.model.graph.nodes if node.name not in left)
    job.plan = replace(job.plan, removed_nodes=gone)
    job.slim = proto_of(graph, job.model.header)
    if job.profiler is not None:
        job.small = static_proto(graph, job.model.shapes, job.model.header)
    del graph
    make_room(job.model.size_bytes)
