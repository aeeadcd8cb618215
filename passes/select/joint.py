"""`joint`: the widths that keep most, and a proof of how much is left to gain.

    1. model     the problem as tables over widths (`factors`) and an elimination order (`elimination`)
    2. floors    the least each resource can cost: the budget is infeasible below it
    3. dual      prices per resource whose unconstrained best lies at the limit (`dual`); the certificate
    4. fill      the best choices met on the way, completed by local moves (`fill`)
    5. search    what is still open between the two, by branch and bound (`branch`)

Where the tables outgrow `Limits`, `relax` takes the place of the exact model; its bound still holds.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np

from halpc.errors import InfeasibleError, UsageError
from halpc.ir.problem import Problem, Resource, Selection, Widths
from passes.select.branch import close
from passes.select.dual import Dual, Visit, hull, position_of, visited, widths_at
from passes.select.entangled import cheapest_met, relaxed, unbounded
from passes.select.exact import Limits, exact_dual
from passes.select.factors import Floats, Ints, TooLargeError
from passes.select.fill import fill
from passes.select.outcome import selection

EXACT = "an upper bound on what any choice within the limits keeps (Lagrangian dual, eliminated exactly)"
SEARCHED = EXACT.replace("exactly", "exactly, and branch and bound")
STARTS = 6  # choices met on the way that the fill starts from, until it leads to one within the limits


def joint(
    problem: Problem, limits: Limits | None = None, near: Widths | None = None, *, prove: bool = True
) -> Selection:
    """Widths that keep as much as the limits allow, with a certificate.

    Args:
        near: admissible widths; the answer is then what local moves make of them, if that keeps the limits. The
            certificate says what staying near them costs.
        prove: whether branch and bound goes on where prices and local moves have not closed the gap.

    Raises:
        InfeasibleError: no choice fits; it carries the floor.
        UsageError: `near` is not admissible.
    """
    started = time.perf_counter()
    limits = limits or Limits()
    try:
        dual, oracle = exact_dual(problem, limits)
    except TooLargeError:
        return _joint_relaxed(problem, limits, started, near)
    _check_floors(problem, dual)
    dual.minimise()
    if nearby := _nearby(problem, near, dual.prices, dual.bound, limits):
        return _certified(problem, nearby, dual.bound, dual.prices, EXACT, started)
    best, bound = _primal(problem, dual, limits), dual.bound
    if prove:
        best, bound = close(dual, oracle, best, limits.entries // 2)
    return _certified(problem, best, bound, dual.prices, SEARCHED if bound < dual.bound else EXACT, started)


def _certified(problem: Problem, best: Visit, bound: float, prices: Floats, means: str, started: float) -> Selection:
    named = {r.name: float(p) for r, p in zip(problem.resources, prices, strict=True)}
    return selection(
        problem, widths_at(problem, best.position), solver="joint", started=started,
        bound=max(bound, best.value), bound_means=means, prices=named,
    )  # fmt: skip


def _nearby(problem: Problem, near: Widths | None, prices: Floats, bound: float, limits: Limits) -> Visit | None:
    """What local moves from `near` lead to; None where they lead to nothing within the limits."""
    if near is None:
        return None
    deadline = time.monotonic() + limits.seconds
    found = fill(problem, position_of(problem, near), prices, bound=bound, deadline=deadline)
    return found if np.all(found.costs <= [resource.limit for resource in problem.resources]) else None


def _joint_relaxed(problem: Problem, limits: Limits, started: float, near: Widths | None = None) -> Selection:
    """The answer where exact tables are too large."""
    deadline = time.monotonic() + limits.seconds
    try:
        state = relaxed(problem, limits, deadline)
    except TooLargeError:
        state = unbounded(problem, limits, deadline)
    for resource, floor in zip(problem.resources, state.floors, strict=True):
        if floor > resource.limit:
            raise _below_floor(resource, floor, "at least ")
    if state.best is None:
        nearest = min(state.visits, key=lambda v: _excess(problem, v)[0])
        raise _unmet(problem, nearest)
    best = _nearby(problem, near, state.prices, state.bound, limits) or state.best
    return _certified(problem, best, state.bound, state.prices, state.means, started)


def cheapest(problem: Problem, limits: Limits | None = None) -> dict[str, int]:
    """Widths of the least cost (of the first limited resource; the widest where nothing is limited).

    Raises:
        InfeasibleError: even they do not fit.
    """
    limits = limits or Limits()
    try:
        dual, _ = exact_dual(problem, limits)
    except TooLargeError:
        return dict(_cheapest_relaxed(problem, limits))
    if not len(dual.active):
        return {choice.name: int(choice.widths[-1]) for choice in problem.choices}
    _check_floors(problem, dual)
    return dict(widths_at(problem, dual.visits[0].position))


def _cheapest_relaxed(problem: Problem, limits: Limits) -> Widths:
    """The cheapest met by the relaxation; where that does not fit, what `joint` finds."""
    deadline = time.monotonic() + limits.seconds
    try:
        least = cheapest_met(problem, limits, deadline)
    except TooLargeError:
        least = visited(problem, np.zeros(len(problem.choices), dtype=np.int64))
    if np.all(least.costs <= [resource.limit for resource in problem.resources]):
        return widths_at(problem, least.position)
    return _joint_relaxed(problem, limits, time.perf_counter()).widths


def _check_floors(problem: Problem, dual: Dual) -> None:
    for number in dual.active:
        resource = problem.resources[number]
        floor, found = dual.floor(int(number))
        rounding = 1e-12 * max(abs(resource.limit), abs(floor))
        if not math.isfinite(floor) or found.costs[number] > resource.limit + rounding:
            raise _below_floor(resource, float(found.costs[number]), "")


def _below_floor(resource: Resource, floor: float, about: str) -> InfeasibleError:
    return InfeasibleError(
        f"{resource.name}: no choice of widths fits {resource.spell(resource.limit)}; "
        f"the floor is {about}{resource.spell(floor)}",
        budget=resource.limit, floor=floor, resource=resource.name,
    )  # fmt: skip


def _primal(problem: Problem, dual: Dual, limits: Limits) -> Visit:
    """The best choice that the fill makes of the choices met."""
    deadline = time.monotonic() + limits.seconds
    prices = dual.prices
    worth = [v.value - float(prices @ np.where(prices > 0, v.costs, 0.0)) for v in dual.visits]
    order = sorted(range(len(worth)), key=lambda i: -worth[i])
    starts: dict[bytes, Ints] = {}
    for visit in (dual.visits[i] for i in order):
        starts.setdefault(visit.position.tobytes(), visit.position)
    inside = [v for v in dual.visits if dual.within(v)]
    best = max(inside, key=lambda v: v.value, default=None)
    for position in list(starts.values())[:STARTS]:
        found = fill(problem, position, prices, bound=dual.bound, deadline=deadline)
        if dual.within(found) and (best is None or found.value > best.value):
            best = found
        if best is not None:
            break
    if best is None:
        raise _unmet(problem, min(dual.visits, key=lambda v: _excess(problem, v)[0]))
    return visited(problem, best.position)


def _excess(problem: Problem, found: Visit) -> tuple[float, int]:
    """The largest relative overspending of any resource, and which."""
    over = [
        (float(cost) - resource.limit) / max(abs(resource.limit), 1e-300) if np.isfinite(resource.limit) else -np.inf
        for cost, resource in zip(found.costs, problem.resources, strict=True)
    ]
    worst = int(np.argmax(over))
    return over[worst], worst


def _unmet(problem: Problem, nearest: Visit) -> InfeasibleError:
    """No choice was found that keeps all limits at once; says how near the nearest came."""
    worst = _excess(problem, nearest)[1]
    resource, floor = problem.resources[worst], float(nearest.costs[worst])
    return InfeasibleError(
        f"{resource.name}: no choice of widths found that keeps all limits together; the nearest costs "
        f"{resource.spell(floor)} (the floor found) against {resource.spell(resource.limit)}",
        budget=resource.limit, floor=floor,
    )  # fmt: skip


def frontier(problem: Problem, *, points: int | None = None, limits: Limits | None = None) -> list[Selection]:
    """The choices that are best at some price, by rising cost: the concave frontier of one resource.

    Each is optimal for a budget of exactly what it costs, so its bound is its value. The limit is ignored.
    With `points`, at most that many, those that leave the least area unknown.

    Raises:
        UsageError: several limited resources.
    """
    started = time.perf_counter()
    if len(problem.resources) != 1:
        raise UsageError("the frontier needs exactly one resource")
    resource = problem.resources[0]
    dual, _ = exact_dual(Problem(problem.choices, (replace(resource, limit=0.0),)), limits or Limits())
    vertices = hull(dual, 0, points or 10_000)
    free = Problem(problem.choices, (replace(resource, limit=np.inf),))
    return [
        selection(
            free, widths_at(free, v.position), solver="joint", started=started,
            bound=v.value + dual.slack(np.array([price])),
            bound_means=EXACT, prices={resource.name: price},
        )
        for v, price in vertices
    ]  # fmt: skip
