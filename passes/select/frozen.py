"""Costs with the neighbours frozen: what the papers' knapsacks see of a bilinear cost.

    Δ_g(w) = Σ_{charges whose output is g} cost(g at w, all others at p) − cost(p)

is a column per group, and Σ_g Δ_g(w_g) stands for the change of the whole cost. What the next layer saves
because its input shrank is not in it; it is seen when the costs are read again at the new widths.

The output axis of a charge is its last; a charge of one axis belongs to that axis. Where the last axis holds
no group (a classifier's classes), the charge is frozen. Where it holds several (a sum, a product), each of
them is charged with the others frozen. Source: HALP (arXiv 2110.10811), section 3, latency contribution.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from halpc.errors import UsageError
from halpc.ir.dims import leaves
from halpc.ir.problem import Charge, Problem, Resource, Widths
from passes.select.factors import Floats, Ints

CELLS = 8192  # integer cost units that a budget is divided into


def only_resource(problem: Problem, solver: str) -> Resource:
    """The one limited resource.

    Raises:
        UsageError: there are several; a knapsack of the papers has one capacity.
    """
    limited = [resource for resource in problem.resources if np.isfinite(resource.limit)]
    if len(limited) > 1:
        names = ", ".join(resource.name for resource in limited)
        raise UsageError(f"--solver {solver} has one budget, found {names}; use --solver joint")
    return limited[0] if limited else Resource("none", "", np.inf, 0.0, ())


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
