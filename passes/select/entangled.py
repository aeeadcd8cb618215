"""The rounds of the relaxation: solve around an origin, move it, refine where the relaxed choice lay."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, field, replace

import numpy as np

from halpc.ir.problem import Problem
from passes.select.copies import Split, split_to_fit
from passes.select.dual import Dual, Visit, visited, widths_at
from passes.select.elimination import Plan, plan
from passes.select.factors import Floats, Ints, Model, Sketch, TooLargeError, sketch, tabulate
from passes.select.fill import fill, spread
from passes.select.relax import Blocks, Coarse, geometric, refined, tighten

ROUNDS = 12
RATIOS = (1.25, 1.6, 2.0, 3.0)  # how fast blocks grow away from the origin; the first that fits
GOOD = 1e-4  # relative gap that ends the rounds
PULLS = 30  # steps on the copies' multipliers per round


@dataclass(slots=True)
class Relaxed:
    """What the rounds have found so far.

    Attributes:
        bound: no feasible choice is worth more.
        floors: float64[resources], no choice costs less.
        copies: how many copies the last round used.
    """

    problem: Problem
    bound: float
    prices: Floats
    floors: Floats
    best: Visit | None = None
    visits: list[Visit] = field(default_factory=list)
    copies: int = 0
    tabled: bool = True

    @property
    def means(self) -> str:
        """What the bound is a bound of."""
        if not self.tabled:
            return "what the groups would keep without any limit: the kernels' tables exceed the memory bound"
        how = "widths in blocks" + (f" and {self.copies} copies of entangled groups" if self.copies else "")
        return (
            "an upper bound on what any choice within the limits keeps (Lagrangian dual of a relaxation, "
            f"linear around the answer, with {how}); it holds, but need not be tight"
        )


@dataclass(slots=True)
class Stage:
    """What stays the same between rounds."""

    drawn: Sketch
    model: Model
    scopes: list[tuple[int, ...]]
    magnitude: Floats
    linked: set[int]

    def whole(self, position: Ints) -> Ints:
        """Positions of all variables, the sums' and products' derived from the groups'."""
        at = np.zeros(len(self.drawn.sizes), dtype=np.int64)
        at[: len(position)] = position
        for link in self.drawn.links:
            at[link.total] = link.index[at[link.left], at[link.right]]
        return at


def relaxed(problem: Problem, *, entries: int, work: int, deadline: float) -> Relaxed:
    """Rounds until the gap is small, nothing changes, or time is up.

    Raises:
        TooLargeError: the kernels' tables exceed the memory bound.
    """
    stage = prepare(problem, entries)
    everything = _everything(problem)
    state = Relaxed(problem, everything, np.zeros(len(problem.resources)), np.full(len(problem.resources), -np.inf))
    origin = stage.whole(spread(problem))
    blocks: Blocks | None = None
    for _ in range(ROUNDS):
        before = (state.bound, state.best.value if state.best else -np.inf)
        coarse = _coarse(stage, origin, blocks, entries, work // 4)
        blocks = coarse.blocks
        state.copies = len(coarse.urges)
        _round(state, stage, coarse, deadline)
        if state.best is not None and state.bound - state.best.value <= GOOD * abs(state.bound):
            break
        if time.monotonic() > deadline or any(
            f > r.limit for f, r in zip(state.floors, problem.resources, strict=True)
        ):
            break
        moved = stage.whole(state.best.position if state.best is not None else state.visits[-1].position)
        unmoved = bool(np.all(moved == origin))
        if unmoved and before == (state.bound, state.best.value if state.best else -np.inf) and state.copies:
            break
        origin, blocks = moved, _refine(stage, blocks, state.visits[-3:], moved)
    return state


def _everything(problem: Problem) -> float:
    """Value without any limit, rounding included."""
    tops = [float(choice.value.max()) for choice in problem.choices]
    return sum(tops) + 1e-12 * sum(abs(top) for top in tops)


def unbounded(problem: Problem, *, entries: int, work: int, deadline: float) -> Relaxed:
    """The last resort where the tables are too large: solve for fewer widths, then fill in all of them.

    The bound is what nothing can exceed; that of the problem with fewer widths would not hold.
    """
    none = np.zeros(len(problem.resources))
    state = Relaxed(problem, _everything(problem), none, np.full(len(none), -np.inf), tabled=False)
    start, prices = np.zeros(len(problem.choices), dtype=np.int64), none
    for most in (256, 64, 16):
        kept = [np.unique(np.linspace(0, len(c.widths) - 1, most).astype(np.int64)) for c in problem.choices]
        fewer = [replace(c, widths=c.widths[k], value=c.value[k]) for c, k in zip(problem.choices, kept, strict=True)]
        with contextlib.suppress(TooLargeError):
            half = 0.5 * (time.monotonic() + deadline)
            found = relaxed(Problem(tuple(fewer), problem.resources), entries=entries, work=work, deadline=half)
            if found.best is not None:
                start = np.array([k[p] for k, p in zip(kept, found.best.position, strict=True)], dtype=np.int64)
                prices = found.prices
            break
    filled = fill(problem, start, prices, bound=state.bound, deadline=deadline)
    state.visits, state.prices = [filled], prices
    state.best = filled if problem.feasible(widths_at(problem, filled.position)) else None
    return state


def cheapest_met(problem: Problem, *, entries: int, work: int, deadline: float) -> Visit:
    """A choice of little cost of the first limited resource: the relaxation's cheapest, moved and solved again."""
    stage = prepare(problem, entries)
    position = np.zeros(len(problem.choices), dtype=np.int64)
    resource = next(r for r, budget in enumerate(problem.resources) if np.isfinite(budget.limit))
    best = visited(problem, position)
    for _ in range(ROUNDS):
        coarse = _coarse(stage, stage.whole(best.position), None, entries, work // 4)
        dual = Dual(problem, coarse, stage.magnitude, stage.model.constants, deadline)
        _, found = dual.floor(resource)
        if not found.costs[resource] < best.costs[resource] or time.monotonic() > deadline:
            break
        best = found
    return best


def _coarse(stage: Stage, origin: Ints, blocks: Blocks | None, entries: int, work: int) -> Coarse:
    blocks, split, order = _fitted(stage, origin, blocks, entries, work)
    return Coarse(stage.model, split, order, origin, blocks)


def prepare(problem: Problem, entries: int) -> Stage:
    """The encoding with the smallest tables; sums as variables where that is smaller.

    Raises:
        TooLargeError: they do not fit.
    """
    drawn: list[Sketch] = []
    for compound in (1, 2, 3):
        with contextlib.suppress(TooLargeError):
            drawn.append(sketch(problem, compound=compound, room=entries))
    best = min(drawn, key=Sketch.table_entries, default=None)
    if best is None or best.table_entries() > entries:
        raise TooLargeError("the tables of all kernels exceed the memory bound")
    model = tabulate(best)
    linked = {v for link in best.links for v in link.scope}
    return Stage(best, model, [table.scope for table in model.tables], 8.0 * model.magnitude, linked)


def _fitted(stage: Stage, origin: Ints, blocks: Blocks | None, entries: int, work: int) -> tuple[Blocks, Split, Plan]:
    """The finest blocks for which a plan fits, without copies if possible."""
    tried = [] if blocks is None else [blocks]
    tried += [_around(stage, origin, ratio) for ratio in RATIOS]
    whole = Split(list(stage.scopes), list(stage.drawn.links), list(range(len(stage.drawn.sizes))))
    for candidate in tried:
        order = plan(candidate.sizes, stage.scopes, stage.drawn.links, by_fill=False)
        if order.work <= work and order.memory <= entries:
            return candidate, whole, order
    coarsest = tried[0] if blocks is not None and max(blocks.sizes) <= 64 else tried[-1]
    largest = max(math.prod(coarsest.sizes[v] for v in scope) for scope in stage.scopes)
    split, order = split_to_fit(
        coarsest.sizes,
        stage.scopes,
        stage.drawn.links,
        joint=max(work // 64, largest),
        work=work,
        memory=entries,
    )
    return coarsest, split, order


def _around(stage: Stage, origin: Ints, ratio: float) -> Blocks:
    sizes = stage.drawn.sizes
    return Blocks(tuple(geometric(n, int(origin[v]), ratio, v in stage.linked) for v, n in enumerate(sizes)))


def _refine(stage: Stage, blocks: Blocks, visits: list[Visit], origin: Ints) -> Blocks:
    starts = list(blocks.starts)
    for position in [origin, *(stage.whole(visit.position) for visit in visits)]:
        for v, n in enumerate(stage.drawn.sizes):
            if v not in stage.linked:
                starts[v] = refined(starts[v], n, int(position[v]), 4)
    return Blocks(tuple(starts))


def _round(state: Relaxed, stage: Stage, coarse: Coarse, deadline: float) -> None:
    """One dual around one origin: bound, floors, and the best choice that filling leads to."""
    problem = state.problem
    dual = Dual(problem, coarse, stage.magnitude, stage.model.constants, deadline)
    for resource in dual.active:
        floor, _ = dual.floor(int(resource))
        rounding = dual.slack(np.eye(len(dual.limits))[resource], 0.0)
        state.floors[resource] = max(state.floors[resource], floor - rounding)
    dual.minimise()
    if coarse.urges:
        credit = float(dual.prices[dual.active] @ (dual.limits - dual.constants)[dual.active])
        target = state.best.value if state.best is not None else 0.0
        tightened = tighten(coarse, dual.prices, target, credit, PULLS, deadline)
        dual.bound = min(dual.bound, tightened + dual.slack(dual.prices))
        dual.minimise()
    if dual.bound < state.bound:
        state.bound, state.prices = dual.bound, dual.prices
    state.visits = dual.visits
    last = [*dual.visits[-2:], *(v for v in dual.visits if dual.within(v))]
    starts = sorted(last, key=lambda v: (not dual.within(v), -v.value))[:2] + dual.visits[-1:]
    for start in {v.position.tobytes(): v.position for v in starts}.values():
        found = fill(problem, start, dual.prices, bound=state.bound, deadline=deadline)
        if dual.within(found) and (state.best is None or found.value > state.best.value):
            state.best = visited(problem, found.position)
