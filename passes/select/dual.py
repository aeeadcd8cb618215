"""The Lagrangian dual: prices on the resources, and the bound that they prove.

    h(λ) = max_w [ V(w) − Σ_r λ_r (C_r(w) − limit_r) ]      λ ≥ 0

Every h(λ) is at or above the value of every feasible choice; the least h(λ) is the certificate. h is the
maximum of finitely many planes, one per choice. With one resource, the next price is where the best known
plane on either side of the limit cross (it ends on the exact minimum after finitely many steps); with
several, where the lowest point of all known planes is (a linear program, Kelley's cutting planes).

Source: Everett, "Generalized Lagrange multiplier method", Operations Research 11 (1963); Kelley (1960).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.optimize import linprog

from halpc.errors import UsageError
from halpc.ir.problem import Problem, Widths
from passes.select.factors import Floats, Ints

ROUNDS = 80  # prices tried at most for one resource; twice that for several
TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Answer:
    """What an oracle finds at some prices.

    Attributes:
        upper: at least max_w weight · V(w) − Σ_r λ_r C_r(w), constants of the costs left out.
        position: int64[groups], where it is attained, or near that for a relaxed oracle.
        plane: value and costs float64[resources] whose plane touches `upper`; None: those of `position`.
    """

    upper: float
    position: Ints
    plane: tuple[float, Floats] | None = None


Oracle: TypeAlias = Callable[[Floats, float], Answer]


@dataclass(frozen=True, slots=True)
class Visit:
    """A choice that some price made the best: position int64[groups], its value, cost float64[resources].

    `plane_value` and `plane_costs` are the same, or for a relaxed oracle those of the relaxed choice.
    """

    position: Ints
    value: float
    costs: Floats
    plane_value: float
    plane_costs: Floats


class Dual:
    """Visits prices, and keeps the lowest bound, its prices, and every choice that was met on the way.

    Attributes:
        tolerance: relative change of the bound that ends the search with one resource.
        bound: no feasible choice is worth more (rounding included).
        prices: where the bound was found, float64[resources].
        visits: the choices met.
    """

    def __init__(self, problem: Problem, oracle: Oracle, magnitude: Floats, constants: Floats, deadline: float):
        self.problem, self.oracle, self.deadline = problem, oracle, deadline
        self.limits = np.array([resource.limit for resource in problem.resources], dtype=np.float64)
        self.constants, self.magnitude = constants, magnitude
        self.active = np.flatnonzero(np.isfinite(self.limits))
        self.terms = terms_of(problem)
        self.tolerance = TOLERANCE
        self.bound = np.inf
        self.prices = np.zeros(len(self.limits))
        self.visits: list[Visit] = []

    def visit(self, prices: Floats, weight: float = 1.0) -> tuple[float, Visit]:
        """h without its constant part at `prices`, and the choice that attains it."""
        answer = self.oracle(prices, weight)
        upper, found = answer.upper, visited(self.problem, answer.position, answer.plane)
        self.visits.append(found)
        if weight == 1.0:
            credit = float(prices[self.active] @ (self.limits - self.constants)[self.active])
            bound = upper + credit + self.slack(prices)
            if bound < self.bound:
                self.bound, self.prices = bound, prices
        return upper, found

    def slack(self, prices: Floats, weight: float = 1.0) -> float:
        """What rounding can have cost the bound at `prices`."""
        size = weight * self.magnitude[0] + float(np.abs(prices) @ self.magnitude[1:])
        return float(2.0 * self.terms * np.finfo(np.float64).eps * size)

    def floor(self, resource: int) -> tuple[float, Visit]:
        """The least that any choice costs of one resource (exact for an exact oracle), and that choice."""
        prices = np.zeros(len(self.limits))
        prices[resource] = 1.0
        upper, found = self.visit(prices, 0.0)
        return float(self.constants[resource] - upper), found

    def within(self, found: Visit) -> bool:
        """Whether a choice met keeps every limit."""
        return bool(np.all(found.costs <= self.limits))

    def _below(self, found: Visit) -> bool:
        return bool(np.all(found.plane_costs <= self.limits))

    def minimise(self, guess: Floats | None = None) -> None:
        """Lower the bound as far as it goes (floors must have been visited before); prices near the best help."""
        if guess is not None and guess.any():
            self.visit(guess)
        _, free = self.visit(np.zeros(len(self.limits)))
        if self._below(free):
            return
        if len(self.active) == 1:
            self._secant(int(self.active[0]), free)
        else:
            self._planes()

    def _secant(self, resource: int, above: Visit) -> None:
        """One resource: prices from the crossing of the best planes above and below the limit."""
        inside = [v for v in self.visits if self._below(v)]
        if not inside:
            return
        below = max(inside, key=lambda v: v.plane_value)
        dearer = [v for v in self.visits if not self._below(v) and v.plane_value > below.plane_value]
        above = min(dearer, key=lambda v: float(v.plane_costs[resource]), default=above)
        for _ in range(ROUNDS):
            run = above.plane_costs[resource] - below.plane_costs[resource]
            rise = above.plane_value - below.plane_value
            if rise <= 0 or time.monotonic() > self.deadline:
                return
            prices = np.zeros(len(self.limits))
            prices[resource] = rise / run
            upper, found = self.visit(prices)
            chord = above.plane_value - prices[resource] * (above.plane_costs[resource] - self.constants[resource])
            if upper <= chord + self.slack(prices) + self.tolerance * abs(chord):
                return
            if self._below(found):
                below = found
            else:
                above = found

    def _planes(self) -> None:
        """Several resources: Kelley's cutting planes inside a box of prices, growing where it binds."""
        box = self._box()
        for _ in range(2 * ROUNDS):
            if time.monotonic() > self.deadline:
                return
            prices, low = self._lowest(box)
            upper, _ = self.visit(prices)
            credit = float(prices[self.active] @ (self.limits - self.constants)[self.active])
            if upper + credit > low + self.slack(prices) + 1e-9 * max(abs(low), 1e-300):
                continue
            bound_hits = (prices[self.active] >= 0.999 * box) & (box > 0)
            if not bound_hits.any() or box.max() > 1e12 * self._box().max():
                return
            box = np.where(bound_hits, box * 16.0, box)

    def _box(self) -> Floats:
        """A first upper limit per active price: the whole value for a hundredth of what is overspent."""
        value = max(self.magnitude[0], 1e-300)
        free = np.array([max(v.plane_costs[r] for v in self.visits) for r in self.active])
        least = np.array([min(v.plane_costs[r] for v in self.visits) for r in self.active])
        span = free - least
        varies = span > 1e-12 * np.maximum(np.abs(free), 1e-280)
        return np.asarray(np.divide(100.0 * value, span, out=np.zeros_like(span), where=varies), dtype=np.float64)

    def _lowest(self, box: Floats) -> tuple[Floats, float]:
        """Lowest point of the known planes: prices float64[resources] and h there."""
        spare = np.array([self.limits - v.plane_costs for v in self.visits])[:, self.active] * box
        values = np.array([v.plane_value for v in self.visits])
        scale = max(float(np.abs(spare).max(initial=0.0)), float(np.abs(values).max(initial=0.0)), 1e-300)
        count = len(self.active)
        solved = linprog(
            np.append(np.zeros(count), 1.0),
            A_ub=np.column_stack([spare, -np.ones(len(values)) * scale]) / scale,
            b_ub=-values / scale,
            bounds=[*[(0.0, 1.0)] * count, (None, None)],
            method="highs",
        )
        prices = np.zeros(len(self.limits))
        if solved.x is None:
            return prices, -np.inf
        prices[self.active] = np.maximum(solved.x[:count], 0.0) * box
        return prices, float(solved.x[count]) * scale


def terms_of(problem: Problem) -> int:
    """How many numbers are added up to a Lagrangian value, for bounds on rounding."""
    return 16 + len(problem.choices) + sum(len(r.charges) for r in problem.resources)


def visited(problem: Problem, position: Ints, plane: tuple[float, Floats] | None = None) -> Visit:
    """Value and costs of the widths at `position`, and of the plane where that is another."""
    widths = widths_at(problem, position)
    costs = np.array([resource.spent(widths) for resource in problem.resources], dtype=np.float64)
    value = problem.value(widths)
    return Visit(position.copy(), value, costs, *(plane or (value, costs)))


def widths_at(problem: Problem, position: Ints) -> Widths:
    """Width per group name."""
    return {c.name: int(c.widths[i]) for c, i in zip(problem.choices, position, strict=True)}


def position_of(problem: Problem, widths: Widths) -> Ints:
    """int64[groups]: the inverse of `widths_at`.

    Raises:
        UsageError: a width is not admissible.
    """
    position = np.zeros(len(problem.choices), dtype=np.int64)
    for g, choice in enumerate(problem.choices):
        found = np.flatnonzero(choice.widths == widths[choice.name])
        if not len(found):
            raise UsageError(
                f"group {choice.name}: width {widths[choice.name]} is none of its {len(choice.widths)} admissible ones,"
                f" {choice.widths[0]} to {choice.widths[-1]}"
            )
        position[g] = found[0]
    return position


def hull(dual: Dual, resource: int, most: int) -> list[tuple[Visit, float]]:
    """Vertices of the concave frontier of value over one resource, by rising cost, each with a price of its own.

    Between two vertices, the price at which both are worth the same either finds a third above their chord
    or proves that there is none.
    """
    _, least = dual.floor(resource)
    _, free = dual.visit(np.zeros(len(dual.limits)))
    known: dict[float, tuple[Visit, float]] = {free.costs[resource]: (free, 0.0)}
    first = _cheapest_worth_most(dual, resource, least, free)
    known.setdefault(first.costs[resource], (first, np.inf))
    spans = [(first, free)]
    while spans and len(known) < most and time.monotonic() < dual.deadline:
        spans.sort(key=lambda span: _area(span, resource))
        below, above = spans.pop()
        run, rise = above.costs[resource] - below.costs[resource], above.value - below.value
        if run <= 0 or rise <= 0:
            continue
        prices = np.zeros(len(dual.limits))
        prices[resource] = rise / run
        upper, found = dual.visit(prices)
        chord = above.value - prices[resource] * (above.costs[resource] - dual.constants[resource])
        if upper <= chord + dual.slack(prices) + TOLERANCE * abs(chord):
            continue
        known[found.costs[resource]] = (found, float(prices[resource]))
        spans += [(below, found), (found, above)]
    return [known[cost] for cost in sorted(known)]


def _area(span: tuple[Visit, Visit], resource: int) -> float:
    below, above = span
    return float((above.costs[resource] - below.costs[resource]) * (above.value - below.value))


def _cheapest_worth_most(dual: Dual, resource: int, least: Visit, free: Visit) -> Visit:
    """Among the choices of least cost, (nearly) the one of most value: the best at a very high price."""
    excess = free.costs[resource] - least.costs[resource]
    if excess <= 0:
        return free
    prices = np.zeros(len(dual.limits))
    prices[resource] = 1e6 * max(free.value - least.value, dual.magnitude[0]) / excess
    _, found = dual.visit(prices)
    return found if found.costs[resource] <= least.costs[resource] else least
