"""The rounds of the relaxation: solve around an origin, refine where the relaxed choice lay, solve again.

The origin is what the problem with a few widths per group leads to. It moves to the best choice found while looking
through the costs anew is cheap; else only blocks are cut, and only what lies in these is looked at again.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, field

import numpy as np

from halpc.ir.problem import Problem
from passes.select.blocks import Blocks, geometric, refined
from passes.select.copies import Split, split_to_fit
from passes.select.dual import Dual, Visit, visited, widths_at
from passes.select.elimination import Plan, plan
from passes.select.exact import Limits
from passes.select.factors import Floats, Ints, Link, Sketch, TooLargeError, evaluate_at, sketch
from passes.select.fill import fill
from passes.select.relax import Coarse, tighten
from passes.select.scan import Scan
from passes.select.thin import beginning

ROUNDS = 12
CHEAP = 1 << 24  # combinations of widths that are looked through anew for a better origin
SCANNED = 1 << 31  # and that are looked through at all
RATIOS = (1.25, 1.6, 2.0, 3.0)  # how fast blocks grow away from the origin; the first that fits
GOOD = 1e-4  # relative gap that ends the rounds
FAIR = 1e-3  # and that does once some of the time is spent
FINE = 1e-5  # relative change of the bound that is not looked for within a round
PULLS = 30  # steps on the copies' multipliers per round


@dataclass(slots=True)
class Relaxed:
    """What the rounds have found so far.

    Attributes:
        bound: no feasible choice is worth more.
        floors: float64[resources], no choice costs less.
        copies: how many copies the last round used.
        loose: how many links held of blocks only.
    """

    problem: Problem
    bound: float
    prices: Floats
    floors: Floats
    best: Visit | None = None
    visits: list[Visit] = field(default_factory=list)
    copies: int = 0
    loose: int = 0
    tabled: bool = True

    @property
    def means(self) -> str:
        """What the bound is a bound of."""
        if not self.tabled:
            return (
                "what the groups would keep without any limit: the kernels have too many combinations of widths "
                "for the memory bound"
            )
        loose = f", {self.loose} sums in blocks" if self.loose else ""
        how = "widths in blocks" + loose + (f" and {self.copies} copies of entangled groups" if self.copies else "")
        return (
            "an upper bound on what any choice within the limits keeps (Lagrangian dual of a relaxation, "
            f"linear around the answer, with {how}); it holds, but need not be tight"
        )


@dataclass(slots=True)
class Stage:
    """What stays the same between rounds.

    Attributes:
        scopes: of the tables, in the order of `Scan.tables`.
        constants: float64[resources], fixed parts and charges that touch no group.
    """

    problem: Problem
    drawn: Sketch
    scopes: list[tuple[int, ...]]
    constants: Floats

    @property
    def values(self) -> list[Floats]:
        """float64 per position of each group."""
        return [np.asarray(choice.value, dtype=np.float64) for choice in self.problem.choices]

    @property
    def limits(self) -> Floats:
        """float64[1 + resources]: finite limits, behind a zero for the value."""
        limits = [abs(r.limit) if math.isfinite(r.limit) else 0.0 for r in self.problem.resources]
        return np.array([0.0, *limits])

    def whole(self, position: Ints) -> Ints:
        """Positions of all variables, the sums' and products' derived from the groups'."""
        at = np.zeros(len(self.drawn.sizes), dtype=np.int64)
        at[: len(position)] = position
        for link in self.drawn.links:
            left, right = link.left_widths[at[[link.left]]], link.right_widths[at[[link.right]]]
            at[link.total] = link.position(left, right)[0]
        return at


@dataclass(slots=True)
class Fitted:
    """Blocks for which a plan fits; `loose` are the links that hold of blocks only."""

    blocks: Blocks
    loose: list[Link]
    split: Split
    order: Plan


def relaxed(problem: Problem, limits: Limits, deadline: float) -> Relaxed:
    """Rounds until the gap is small, nothing changes, or time is up.

    Raises:
        TooLargeError: the kernels have too many combinations of widths to look through.
    """
    stage = prepare(problem, limits)
    begun, prices = beginning(problem, limits, deadline)
    state = Relaxed(problem, everything(problem), prices, np.full(len(prices), -np.inf))
    if np.all(begun.costs <= [resource.limit for resource in problem.resources]):
        state.best = begun
    origin = stage.whole(begun.position)
    fitted = fit(stage, origin, None, limits)
    scan = Scan(stage.drawn, origin, fitted.blocks)
    cheap = stage.drawn.table_entries() <= CHEAP
    for _ in range(ROUNDS):
        before = (state.bound, state.best.value if state.best else -np.inf)
        coarse = Coarse(stage.values, stage.constants, scan, fitted.loose, fitted.split, fitted.order)
        state.copies, state.loose = len(coarse.urges), len(fitted.loose)
        _round(state, stage, coarse, deadline)
        good = GOOD if time.monotonic() < deadline - 0.85 * limits.seconds else FAIR
        if state.best is not None and state.bound - state.best.value <= good * abs(state.bound):
            break
        if time.monotonic() > deadline or _infeasible(state):
            break
        moved = stage.whole(state.best.position if state.best is not None else state.visits[-1].position)
        unmoved = bool(np.all(moved == origin))
        if unmoved and before == (state.bound, state.best.value if state.best else -np.inf):
            break
        fitted = fit(stage, origin, _refine(stage, fitted, state.visits[-3:], moved), limits)
        if cheap and not unmoved:
            origin = moved
            scan = Scan(stage.drawn, origin, fitted.blocks)
        else:
            scan.refine(fitted.blocks)
    return state


def _infeasible(state: Relaxed) -> bool:
    return any(floor > r.limit for floor, r in zip(state.floors, state.problem.resources, strict=True))


def everything(problem: Problem) -> float:
    """Value without any limit, rounding included."""
    tops = [float(choice.value.max()) for choice in problem.choices]
    return sum(tops) + 1e-12 * sum(abs(top) for top in tops)


def unbounded(problem: Problem, limits: Limits, deadline: float) -> Relaxed:
    """The last resort where there are too many combinations: solve for fewer widths, then fill in all of them.

    The bound is what nothing can exceed; that of the problem with fewer widths would not hold.
    """
    found, prices = beginning(problem, limits, deadline)
    state = Relaxed(problem, everything(problem), prices, np.full(len(prices), -np.inf), tabled=False)
    state.visits = [found]
    state.best = found if problem.feasible(widths_at(problem, found.position)) else None
    return state


def cheapest_met(problem: Problem, limits: Limits, deadline: float) -> Visit:
    """A choice of little cost of the first limited resource: the relaxation's cheapest, moved and solved again."""
    stage = prepare(problem, limits)
    position = np.zeros(len(problem.choices), dtype=np.int64)
    resource = next(r for r, budget in enumerate(problem.resources) if np.isfinite(budget.limit))
    best = visited(problem, position)
    for _ in range(ROUNDS):
        origin = stage.whole(best.position)
        fitted = fit(stage, origin, None, limits)
        scan = Scan(stage.drawn, origin, fitted.blocks)
        coarse = Coarse(stage.values, stage.constants, scan, fitted.loose, fitted.split, fitted.order)
        dual = Dual(problem, coarse, coarse.magnitude + stage.limits, stage.constants, deadline)
        _, found = dual.floor(resource)
        if not found.costs[resource] < best.costs[resource] or time.monotonic() > deadline:
            break
        best = found
        if stage.drawn.table_entries() > CHEAP:
            break
    return best


def prepare(problem: Problem, limits: Limits) -> Stage:
    """The encoding with the fewest combinations to look through; sums as variables where that is fewer.

    Raises:
        TooLargeError: they are too many.
    """
    drawn = [sketch(problem, compound=compound, room=max(limits.entries, CHEAP)) for compound in (1, 2, 3)]
    best = min(drawn, key=Sketch.table_entries)
    if best.table_entries() > SCANNED:
        raise TooLargeError("the kernels have too many combinations of widths")
    constants = np.array([resource.fixed for resource in problem.resources], dtype=np.float64)
    for entry in best.entries:
        if not entry.scope:
            constants[entry.resource] += float(evaluate_at(best, entry, []))
    scopes = list(dict.fromkeys(entry.scope for entry in best.entries if len(entry.scope) > 1))
    return Stage(problem, best, scopes, constants)


def fit(stage: Stage, origin: Ints, blocks: Blocks | None, limits: Limits) -> Fitted:
    """The finest blocks for which a plan fits: with links that hold exactly, else of blocks, else with copies.

    Raises:
        TooLargeError: none does.
    """
    work = limits.work // 8
    links, owner = list(stage.drawn.links), list(range(len(stage.drawn.sizes)))
    for loose in ([], links) if links else ([],):
        scopes = [*stage.scopes, *(link.scope for link in loose)]
        exact = [] if loose else links
        if sum(link.pairs for link in exact) > limits.entries // 4:
            continue
        for candidate in _candidates(stage, origin, blocks, exact):
            split = Split(list(scopes), list(exact), list(owner))
            order = plan(candidate.sizes, split.ascending(), exact, by_fill=False)
            if order.work <= work and order.memory <= limits.entries:
                return Fitted(candidate, loose, split, order)
    last = [blocks] if blocks is not None and max(blocks.sizes) <= 64 else [candidate]
    for coarsest in [*last, _around(stage, origin, math.inf, exact)]:
        largest = max((math.prod(coarsest.sizes[v] for v in scope) for scope in scopes), default=1)
        joint = max(work // 64, largest)
        with contextlib.suppress(TooLargeError):
            split, order = split_to_fit(coarsest.sizes, scopes, exact, joint=joint, work=work, memory=limits.entries)
            return Fitted(coarsest, loose, split, order)
    raise TooLargeError("not even blocks of very many widths fit the memory bound")


def _candidates(stage: Stage, origin: Ints, blocks: Blocks | None, exact: list[Link]) -> list[Blocks]:
    """Blocks to try, the finest first; where links are exact, only such as hold their variables' positions apart."""
    around = [_around(stage, origin, ratio, exact) for ratio in RATIOS]
    single = {v for link in exact for v in link.scope}
    apart = blocks is not None and all(len(blocks.starts[v]) == stage.drawn.sizes[v] for v in single)
    return [blocks, *around] if blocks is not None and apart else around


def _around(stage: Stage, origin: Ints, ratio: float, exact: list[Link]) -> Blocks:
    single = {v for link in exact for v in link.scope}
    return Blocks(tuple(geometric(n, int(origin[v]), ratio, v in single) for v, n in enumerate(stage.drawn.sizes)))


def _refine(stage: Stage, fitted: Fitted, visits: list[Visit], origin: Ints) -> Blocks:
    starts = list(fitted.blocks.starts)
    for position in [origin, *(stage.whole(visit.position) for visit in visits)]:
        for v, n in enumerate(stage.drawn.sizes):
            starts[v] = refined(starts[v], n, int(position[v]), 4)
    return Blocks(tuple(starts))


def _round(state: Relaxed, stage: Stage, coarse: Coarse, deadline: float) -> None:
    """One dual around one origin: bound, floors, and the best choice that filling leads to."""
    problem = state.problem
    dual = Dual(problem, coarse, coarse.magnitude + stage.limits, stage.constants, deadline)
    dual.tolerance = FINE
    for resource in dual.active:
        floor, _ = dual.floor(int(resource))
        rounding = dual.slack(np.eye(len(dual.limits))[resource], 0.0)
        state.floors[resource] = max(state.floors[resource], floor - rounding)
    dual.minimise(state.prices)
    if coarse.urges:
        credit = float(dual.prices[dual.active] @ (dual.limits - dual.constants)[dual.active])
        target = state.best.value if state.best is not None else 0.0
        tightened = tighten(coarse, dual.prices, target, credit, PULLS, deadline)
        dual.bound = min(dual.bound, tightened + dual.slack(dual.prices))
        dual.minimise(dual.prices)
    if dual.bound < state.bound:
        state.bound, state.prices = dual.bound, dual.prices
    state.visits = dual.visits
    last = [*dual.visits[-2:], *(v for v in dual.visits if dual.within(v))]
    starts = sorted(last, key=lambda v: (not dual.within(v), -v.value))[:2] + dual.visits[-1:]
    for start in {v.position.tobytes(): v.position for v in starts}.values():
        found = fill(problem, start, dual.prices, bound=state.bound, deadline=deadline)
        if dual.within(found) and (state.best is None or found.value > state.best.value):
            state.best = visited(problem, found.position)
