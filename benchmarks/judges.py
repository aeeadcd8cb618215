"""Judges of selection that share no code with it: HiGHS and CP-SAT on an exact linear model of the same problem.

One binary per width, and one variable per entry of a charge's table. Widths that cost the same whatever the others are
(those of one tile) share a row of the table, so the model stays exact and small enough for 10,000 widths and more.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from halpc.ir.dims import leaves
from halpc.ir.problem import Charge, Problem

CELLS = 4_000_000  # table entries up to which there is a model
SLAB = 1 << 22  # entries of a charge's table that are looked at together
LOOKED = 1 << 27  # and in all


@dataclass(frozen=True, slots=True)
class Use:
    """One limited resource: Σ costs · columns ≤ room."""

    columns: list[int]
    costs: list[float]
    room: float


@dataclass(frozen=True, slots=True)
class Linear:
    """The problem as a linear model: binaries first, then entries of tables."""

    objective: np.ndarray
    binaries: int
    equalities: list[tuple[list[int], list[float], float]]
    uses: list[Use]


def linear(problem: Problem) -> Linear | None:
    """The linear model of a problem; None where it would be too large."""
    start, column = {}, 0
    for choice in problem.choices:
        start[choice.name] = column
        column += len(choice.widths)
    widths = {choice.name: choice.widths for choice in problem.choices}
    binaries = column
    rows = [([start[n] + k for k in range(len(w))], [1.0] * len(w), 1.0) for n, w in widths.items()]
    uses = []
    for resource in problem.resources:
        use = Use([], [], resource.limit - resource.fixed - sum(_constants(resource.charges, widths)))
        uses.append(use)
        for charge in resource.charges:
            names = _names(charge, widths)
            found = condensed(charge, names, widths) if names else None
            if names and (found is None or column - binaries + found[0].size > CELLS):
                return None
            if found is None:
                continue
            table, classes = found
            if len(names) == 1:
                use.columns.extend(start[names[0]] + k for k in range(len(widths[names[0]])))
                use.costs.extend(table[classes[0]].tolist())
                continue
            at = np.arange(column, column + table.size).reshape(table.shape)
            column += table.size
            use.columns.extend(at.ravel().tolist())
            use.costs.extend(table.ravel().tolist())
            for axis, name in enumerate(names):
                for k in range(table.shape[axis]):
                    marginal = at.take(k, axis).ravel().tolist()
                    chosen = (start[name] + np.flatnonzero(classes[axis] == k)).tolist()
                    rows.append(([*marginal, *chosen], [1.0] * len(marginal) + [-1.0] * len(chosen), 0.0))
    objective = np.zeros(column)
    objective[:binaries] = np.concatenate([choice.value for choice in problem.choices])
    return Linear(objective, binaries, rows, uses)


def _names(charge: Charge, widths: dict[str, np.ndarray]) -> list[str]:
    return [n for n in dict.fromkeys(leaf.name for a in charge.axes for leaf in leaves(a)) if n in widths]


def _constants(charges: Sequence[Charge], widths: dict[str, np.ndarray]) -> list[float]:
    return [float(charge.at({})) for charge in charges if not _names(charge, widths)]


def condensed(
    charge: Charge, names: Sequence[str], widths: dict[str, np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]] | None:
    """A charge's table with equal slices once, and per axis each width's slice; None where it is too large.

    The whole table never exists: it is looked at in slabs along the first axis.
    """
    shape = [len(widths[n]) for n in names]
    if np.prod(shape, dtype=float) > LOOKED:
        return None
    grid = {n: widths[n].reshape([-1 if i == a else 1 for i in range(len(names))]) for a, n in enumerate(names)}
    height = max(1, int(SLAB // np.prod(shape[1:], dtype=float)))
    seen: dict[bytes, int] = {}
    kept, of_first = [], []
    for top in range(0, shape[0], height):
        part = {**grid, names[0]: grid[names[0]][top : top + height]}
        slab = np.broadcast_to(charge.at(part), (len(part[names[0]]), *shape[1:]))
        for row in slab:
            key = hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest()
            if key not in seen:
                seen[key] = len(seen)
                kept.append(np.array(row))
            of_first.append(seen[key])
    table, classes = np.array(kept), [np.array(of_first)]
    for axis in range(1, len(names)):
        flat = np.moveaxis(table, axis, 0)
        _, first, which = np.unique(flat.reshape(len(flat), -1), axis=0, return_index=True, return_inverse=True)
        table = np.moveaxis(flat[first], 0, axis)
        classes.append(which.ravel())
    return table, classes


@dataclass(frozen=True, slots=True)
class Verdict:
    """Value of the best choice found (NaN: none), the proven bound, seconds."""

    value: float
    bound: float
    seconds: float

    def as_row(self) -> dict[str, float]:
        """As a row of the benchmark."""
        gap = (self.bound - self.value) / abs(self.bound)
        return {"value": self.value, "gap": gap, "bound": self.bound, "seconds": self.seconds}


def by_highs(problem: Problem, seconds: float = 60.0) -> Verdict | None:
    """What HiGHS finds and proves in at most `seconds`; None where the model would be too large."""
    started = time.perf_counter()
    model = linear(problem)
    if model is None:
        return None
    columns = len(model.objective)
    indices = [i for row, _, _ in model.equalities for i in row]
    entries = [e for _, row, _ in model.equalities for e in row]
    pointers = np.cumsum([0, *(len(row) for row, _, _ in model.equalities)])
    right = np.array([target for _, _, target in model.equalities])
    equal = sparse.csr_array((entries, indices, pointers), shape=(len(right), columns))
    constraints = [LinearConstraint(equal, right, right)]
    for use in model.uses:
        at = (np.zeros(len(use.columns), dtype=int), use.columns)
        row = sparse.coo_array((use.costs, at), shape=(1, columns)).tocsr()
        constraints.append(LinearConstraint(row, -np.inf, use.room))
    solved = milp(
        -model.objective,
        integrality=(np.arange(columns) < model.binaries).astype(int),
        bounds=Bounds(0.0, 1.0),
        constraints=constraints,
        options={"time_limit": seconds, "mip_rel_gap": 0.0},
    )
    value = -float(solved.fun) if solved.x is not None else float("nan")
    bound = -float(solved.mip_dual_bound) if solved.mip_dual_bound is not None else float("inf")
    return Verdict(value, bound, time.perf_counter() - started)


def by_cp_sat(problem: Problem, seconds: float) -> Verdict | None:
    """What CP-SAT finds and proves for one resource in at most `seconds`, one worker."""
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        return None
    started = time.perf_counter()
    model = linear(problem)
    if model is None:
        return None
    solver_model = cp_model.CpModel()
    columns = [solver_model.new_bool_var("") for _ in range(len(model.objective))]
    for row, factors, target in model.equalities:
        solver_model.add(
            cp_model.LinearExpr.weighted_sum([columns[i] for i in row], [int(f) for f in factors]) == int(target)
        )
    (use,) = model.uses
    unit = use.room / 1e7
    solver_model.add(
        cp_model.LinearExpr.weighted_sum([columns[i] for i in use.columns], [int(np.ceil(c / unit)) for c in use.costs])
        <= 10**7
    )
    worth = float(sum(choice.value.max() for choice in problem.choices)) / 1e7
    gains = [int(np.floor(v / worth)) for v in model.objective[: model.binaries]]
    solver_model.maximize(cp_model.LinearExpr.weighted_sum(columns[: model.binaries], gains))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 1
    status = solver.solve(solver_model)
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    value = solver.objective_value * worth if found else float("nan")
    bound = solver.best_objective_bound * worth
    return Verdict(value, bound, time.perf_counter() - started)
