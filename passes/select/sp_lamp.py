"""`sp-lamp`: SP-LAMP scores and a group knapsack by dynamic programming over latency.

    score(u)   = ‖W_u‖² / Σ_{v ≥ u} ‖W_v‖²     filters in ascending norm, so the largest scores 1
    knapsack     one width per group: max Σ_g Σ_{u kept} score(u),  Σ_g cost_g(w_g) ≤ capacity

The top filter is always kept, so no group vanishes. The knapsack is a multiple-choice one and is solved
exactly on costs in whole units (1/8192 of the capacity, rounded up). Its costs are linear per group, so the
bilinear layer costs are frozen at the neighbours' current widths, as HALP does (`frozen`), and read again
at the result until nothing more is gained; a result over the limit halves what the next may add. The best
that fitted is the answer. Several budgets, of which the paper has one, are kept as `frozen.within_all` says.

Source: arXiv 2305.14403 (abstract; the filter-wise score is LAMP's, lifted to squared filter norms).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from halpc.ir.problem import Choice, Problem, Resource, Selection, Widths
from passes.select.factors import Floats, Ints
from passes.select.frozen import CELLS, contributions, score_curve, whole_units, within_all
from passes.select.halp import start_widths
from passes.select.joint import cheapest
from passes.select.outcome import selection

ROUNDS = 30


def sp_lamp_scores(norms: Floats) -> Floats:
    """SP-LAMP score of each filter of a layer, from its norm: float64[n] → float64[n], in the given order.

    The largest filter scores exactly 1. Filters of norm zero score zero, except that one filter scores 1.

    Source: arXiv 2305.14403; LAMP (arXiv 2010.07611), equation 4.
    """
    norms = np.asarray(norms, dtype=np.float64)
    top = float(np.abs(norms).max(initial=0.0))
    squares = np.square(norms / top) if top > 0 else np.zeros_like(norms)
    order = np.argsort(squares, kind="stable")
    at_least = np.cumsum(squares[order][::-1])[::-1]
    scores = np.zeros_like(squares)
    scores[order] = np.divide(squares[order], at_least, out=np.zeros_like(squares), where=at_least > 0)
    if len(order):
        scores[order[-1]] = 1.0
    return scores


def sp_lamp(problem: Problem, *, start: Widths | None = None) -> Selection:
    """Widths by SP-LAMP; the first costs are read at `start` (default: unpruned).

    Raises:
        InfeasibleError: no choice fits the limits.
        UsageError: start widths that are not admissible.
    """
    started = time.perf_counter()
    problem = Problem(tuple(top_filter_kept(choice) for choice in problem.choices), problem.resources)
    begin = start_widths(problem, {name: w for name, w in (start or {}).items() if w > 0})

    def within(one: Problem) -> dict[str, int]:
        return begin if start is None and one.feasible(begin) else _settled(one, one.resources[0], begin)

    widths = within_all(problem, "sp-lamp", begin, within)
    return selection(problem, widths, solver="sp-lamp", started=started)


def _settled(problem: Problem, resource: Resource, widths: dict[str, int]) -> dict[str, int]:
    """Solve, and solve again at the result, while that keeps more and fits."""
    best = widths if problem.feasible(widths) else solve(problem, resource, widths, resource.limit)
    if not problem.feasible(best):
        best = cheapest(problem)
    score, aim = _score(problem, best), resource.limit
    for _ in range(ROUNDS):
        found = solve(problem, resource, best, aim)
        if problem.feasible(found) and _score(problem, found) > score:
            best, score, aim = found, _score(problem, found), resource.limit
            continue
        aim = 0.5 * (aim + resource.spent(best))
        if aim - resource.spent(best) <= 1e-4 * abs(resource.limit):
            break
    return best


def top_filter_kept(choice: Choice) -> Choice:
    """The choice without width 0, unless that is all it has."""
    if choice.widths[0] > 0 or len(choice.widths) == 1:
        return choice
    return Choice(choice.name, choice.widths[1:], choice.value[1:], choice.step, choice.scores)


def _score(problem: Problem, widths: Widths) -> float:
    return sum(
        float(score_curve(c.scores, c.value, c.widths)[int(np.searchsorted(c.widths, widths[c.name]))])
        for c in problem.choices
    )


def solve(problem: Problem, resource: Resource, widths: Widths, target: float) -> dict[str, int]:
    """One group knapsack with costs frozen at `widths`; a target out of reach keeps the cheapest options."""
    columns = contributions(problem, resource, widths)
    least = sum(float(column.min()) for column in columns)
    capacity = target - resource.spent(widths) - least
    unit = max(capacity, 0.0) / CELLS or max(abs(target), 1e-300) / CELLS
    weights = whole_units([column - column.min() for column in columns], unit)
    values = [score_curve(c.scores, c.value, c.widths) for c in problem.choices]
    chosen = group_knapsack(values, weights, max(0, int(capacity / unit + 1e-9)))
    return {c.name: int(c.widths[i]) for c, i in zip(problem.choices, chosen, strict=True)}


def group_knapsack(values: Sequence[Floats], weights: Sequence[Ints], capacity: int) -> list[int]:
    """One option per group: most value, Σ weight ≤ capacity; exact. Each group has an option of weight 0."""
    cost = np.arange(capacity + 1)
    best = np.zeros(capacity + 1)
    picks = np.zeros((len(values), capacity + 1), dtype=np.int32)
    for group, (group_values, group_weights) in enumerate(zip(values, weights, strict=True)):
        after = np.full(capacity + 1, -np.inf)
        for option, (value, weight) in enumerate(zip(group_values, group_weights, strict=True)):
            if weight > capacity:
                continue
            candidate = best[: capacity + 1 - weight] + value
            better = candidate > after[weight:]
            after[weight:][better] = candidate[better]
            picks[group, cost[weight:][better]] = option
        best = after
    chosen: list[int] = []
    left = capacity
    for row, group_weights in zip(picks[::-1], reversed(weights), strict=True):
        option = int(row[left])
        chosen.append(option)
        left -= int(group_weights[option])
    return chosen[::-1]
