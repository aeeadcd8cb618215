"""From widths to a `Selection`: what was spent, and what one more step of every group would buy and cost."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from halpc.ir.dims import leaves
from halpc.ir.problem import Charge, Choice, Problem, Selection, Step, Widths
from passes.select.factors import Ints

BY_NONE = "this solver proves nothing about better choices"


def selection(
    problem: Problem,
    widths: Widths,
    *,
    solver: str,
    started: float,
    bound: float = np.inf,
    bound_means: str = BY_NONE,
    prices: Mapping[str, float] | None = None,
) -> Selection:
    """The selection of `widths`; `started` is the `time.perf_counter()` of its beginning."""
    steps = marginal_steps(problem, widths)
    return Selection(
        widths=dict(widths),
        value=problem.value(widths),
        spent={resource.name: resource.spent(widths) for resource in problem.resources},
        bound=bound,
        prices=dict(prices or {}),
        bound_means=bound_means,
        steps=steps,
        solver=solver,
        seconds=time.perf_counter() - started,
    )


def marginal_steps(problem: Problem, widths: Widths) -> tuple[Step, ...]:
    """Per group: the width one latency step wider, what that would add in value and in cost."""
    touching: dict[str, list[tuple[str, Charge]]] = {choice.name: [] for choice in problem.choices}
    for resource in problem.resources:
        for charge in resource.charges:
            for name in {leaf.name for axis in charge.axes for leaf in leaves(axis)} & touching.keys():
                touching[name].append((resource.name, charge))
    return tuple(_step(problem, choice, widths, touching[choice.name]) for choice in problem.choices)


def _step(problem: Problem, choice: Choice, widths: Widths, touching: list[tuple[str, Charge]]) -> Step:
    here = int(np.searchsorted(choice.widths, widths[choice.name]))
    if here + 1 == len(choice.widths):
        return Step(choice.name, widths[choice.name], None, 0.0, {})
    end = (widths[choice.name] // choice.step + 1) * choice.step
    pair = [here, min(int(np.searchsorted(choice.widths, end)), len(choice.widths) - 1)]
    cost = {resource.name: 0.0 for resource in problem.resources}
    both: dict[str, int | Ints] = {**widths, choice.name: choice.widths[pair]}
    for name, charge in touching:
        line = np.broadcast_to(charge.at(both), (2,))
        cost[name] += float(line[1] - line[0])
    gain = float(choice.value[pair[1]] - choice.value[here])
    return Step(choice.name, widths[choice.name], int(choice.widths[pair[1]]), gain, cost)
