"""Costs with the neighbours frozen: what the papers' knapsacks see of a bilinear cost.

    Δ_g(w) = Σ_{charges whose output is g} cost(g at w, all others at p) − cost(p)

is a column per group, and Σ_g Δ_g(w_g) stands for the change of the whole cost. What the next layer saves
because its input shrank is not in it; it is seen when the costs are read again at the new widths.

The output axis of a charge is its last; a charge of one axis belongs to that axis. Where the last axis holds
no group (a classifier's classes), the charge is frozen. Where it holds several (a sum, a product), each of
them is charged with the others frozen. Source: HALP (arXiv 2110.10811), section 3, latency contribution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from halpc.errors import InfeasibleError
from halpc.ir.dims import leaves
from halpc.ir.problem import Charge, Problem, Resource, Widths
from passes.select.factors import Floats, Ints
from passes.select.joint import cheapest

CELLS = 8192  # integer cost units that a budget is divided into
HALVINGS = 10  # of the distance to the floor, where several budgets are to be kept


def within_all(problem: Problem, solver: str, start: Widths, solve: Callable[[Problem], Widths]) -> dict[str, int]:
    """Widths within every limit, from a knapsack that has one capacity.

    The papers have one budget; how several are kept is ours. `solve` is given the resource that `start` is furthest
    over. Where its answer is over another limit, this one's is tightened, by bisection down to the least that any
    widths cost, and the answer that keeps most while it keeps all of them stands. Between resources that trade
    against each other that is a guess, where `joint` has a price for each.

    Args:
        solve: takes a problem of one resource, which its answer keeps.

    Raises:
        InfeasibleError: a limit is below its floor, or no answer keeps all of them.
    """
    limited = [resource for resource in problem.resources if np.isfinite(resource.limit)]
    if not limited:
        return dict(solve(Problem(problem.choices, (Resource("none", "", np.inf, 0.0, ()),))))
    tightest = max(limited, key=lambda resource: resource.spent(start) / max(abs(resource.limit), 1e-300))
    one = Problem(problem.choices, (tightest,))
    best = dict(solve(one))
    if problem.feasible(best):
        return best
    best = cheapest(one)
    if not problem.feasible(best):
        raise _not_all(problem, solver, best)
    low, high = tightest.spent(best), tightest.limit
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        found = dict(solve(Problem(problem.choices, (replace(tightest, limit=middle),))))
        if problem.feasible(found):
            low = middle
            best = max(best, found, key=problem.value)
        else:
            high = middle
    return best


def _not_all(problem: Problem, solver: str, nearest: Widths) -> InfeasibleError:
    cheapest(problem)  # says so where one limit alone is out of reach
    over = next(r for r in problem.resources if r.spent(nearest) > r.limit)
    names = " and ".join(r.name for r in problem.resources if np.isfinite(r.limit))
    floor = over.spent(nearest)
    return InfeasibleError(
        f"--solver {solver} found no widths that keep {names} together: the cheapest of one cost "
        f"{over.spell(floor)} of {over.name}, above {over.spell(over.limit)}; --solver joint"
        " weighs several budgets at once",
        budget=over.limit, floor=floor,
    )  # fmt: skip


def contributions(problem: Problem, resource: Resource, widths: Widths) -> list[Floats]:
    """Δ_g per group, float64[n_g], in the resource's unit, all other groups at `widths`."""
    owned = owners(problem, resource)
    columns: list[Floats] = []
    for choice in problem.choices:
        column = np.zeros(len(choice.widths))
        for charge in owned[choice.name]:
            with np.errstate(invalid="ignore"):
                line = charge.at({**widths, choice.name: choice.widths}) - charge.at(widths)
            column += np.broadcast_to(line, column.shape)
        columns.append(column)
    return columns


def owners(problem: Problem, resource: Resource) -> dict[str, list[Charge]]:
    """Per group the charges whose output axis holds it."""
    owned: dict[str, list[Charge]] = {choice.name: [] for choice in problem.choices}
    for charge in resource.charges:
        if charge.axes:
            for name in {leaf.name for leaf in leaves(charge.axes[-1])} & owned.keys():
                owned[name].append(charge)
    return owned


def whole_units(columns: Sequence[Floats], unit: float) -> list[Ints]:
    """Costs as whole multiples of `unit`, rounded up, so that a sum within the capacity is within it."""
    most = float(1 << 40)  # what is forbidden, or absurdly dear, weighs
    whole = [np.nan_to_num(np.ceil(column / unit - 1e-9), nan=most, posinf=most) for column in columns]
    return [np.clip(column, -most, most).astype(np.int64) for column in whole]


def score_curve(scores: Floats, value: Floats, widths: Ints) -> Floats:
    """What each width keeps, float64[n]: sums of the best scores, or the given value where there are none."""
    if len(scores) < int(widths[-1]):
        return np.asarray(value, dtype=np.float64)
    return np.asarray(np.concatenate([[0.0], np.cumsum(scores)])[widths], dtype=np.float64)
