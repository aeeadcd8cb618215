"""`joint` where the exact tables would outgrow memory: a relaxation whose bound still holds.

Around an origin (the best choice so far), every table is rewritten as what it is on the axes through the
origin, which is linear in the groups, plus a second difference that vanishes there:

    T(x, y) = T(x, y₀) + T(x₀, y) − T(x₀, y₀) + D(x, y)          D(x₀, ·) = D(·, y₀) = 0

The linear parts stay exact, width by width. Of D only what two relaxations leave is kept:

    blocks    widths in blocks that grow away from the origin; D's least entry stands for a block
    copies    entangled groups as copies that need not agree (`copies`), with multipliers that urge them to

Both can only raise the maximum. Solving, moving the origin to what was found and refining the blocks that
were chosen is the linearised iteration of the papers, with a bound.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from passes.select.copies import Split
from passes.select.dual import Answer
from passes.select.elimination import Plan, maximise, reward
from passes.select.factors import Floats, Ints, Model, Table


@dataclass(frozen=True, slots=True)
class Blocks:
    """A partition of every variable's positions: `starts[v]` is the ascending first position of each block."""

    starts: tuple[Ints, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Blocks per variable."""
        return tuple(len(s) for s in self.starts)


def geometric(size: int, centre: int, ratio: float, single: bool) -> Ints:
    """Blocks around `centre` whose lengths grow by `ratio`; all of length 1 where `single`."""
    if single or size <= 4:
        return np.arange(size, dtype=np.int64)
    reach = [0]
    length = 1.0
    while reach[-1] < size:
        reach.append(reach[-1] + max(1, int(length)))
        length *= ratio
    starts = {0, *(centre + r for r in reach), *(centre + 1 - r for r in reach)}
    return np.array(sorted(s for s in starts if 0 <= s < size), dtype=np.int64)


def refined(starts: Ints, size: int, position: int, parts: int) -> Ints:
    """`starts` with the block around `position` cut into `parts`, and `position` on its own."""
    block = int(np.searchsorted(starts, position, side="right")) - 1
    low = int(starts[block])
    high = int(starts[block + 1]) if block + 1 < len(starts) else size
    cuts = np.linspace(low, high, parts + 1).astype(np.int64)[:-1]
    extra = [p for p in (position, position + 1) if low <= p < high]
    return np.unique(np.concatenate([starts, cuts, extra])).astype(np.int64)


class Coarse:
    """Bounds `weight · Σ value − Σ price · cost` from above, at any prices.

    Attributes:
        lines: per variable float64[resources, n_v], the linear part of the costs around the origin.
        urges: per copy float64[n_v], multiplier that its owner pays and it receives.
    """

    def __init__(self, model: Model, split: Split, order: Plan, origin: Ints, blocks: Blocks) -> None:
        self.values, self.constants, sizes = model.values, model.constants, model.sizes
        self.split, self.order, self.blocks = split, order, blocks
        self.lines = [np.zeros((len(self.constants), n)) for n in sizes]
        self.base = np.zeros(len(self.constants))
        self.reduced = [
            self._reduce(table, scope, origin) for table, scope in zip(model.tables, split.scopes, strict=True)
        ]
        self.urges = {v: np.zeros(sizes[o]) for v, o in enumerate(split.owner) if v != o}
        self.at: Ints = origin

    def _reduce(self, table: Table, scope: Sequence[int], origin: Ints) -> Table:
        """The second difference of a table, least entry per block; its linear part goes to `lines`."""
        costs: dict[int, Floats] = {}
        corner = tuple(origin[v] for v in table.scope)
        order = np.argsort(scope)
        for resource, cost in table.costs.items():
            rest = cost - cost[corner]
            for axis, v in enumerate(table.scope):
                line = cost[tuple(slice(None) if a == axis else p for a, p in enumerate(corner))] - cost[corner]
                self.lines[v][resource] += line
                rest = rest - line.reshape([-1 if a == axis else 1 for a in range(cost.ndim)])
            self.base[resource] += cost[corner]
            if table.forbidden is not None:
                rest = np.where(table.forbidden, np.inf, rest)
            costs[resource] = _by_block(np.minimum, rest, table.scope, self.blocks).transpose(order)
        forbidden: NDArray[np.bool_] | None = None
        if table.forbidden is not None:
            forbidden = np.isinf(next(iter(costs.values())))
            costs = {resource: np.where(forbidden, 0.0, cost) for resource, cost in costs.items()}
        return Table(tuple(sorted(scope)), costs, forbidden)

    def __call__(self, prices: Floats, weight: float = 1.0) -> Answer:
        """The relaxed maximum, where its owners stand, and the plane of the relaxed choice."""
        exact = self._exact(prices, weight)
        unary = [_by_block(np.maximum, u, (o,), self.blocks) for u, o in zip(exact, self.split.owner, strict=True)]
        tables = [reward(t.costs, t.forbidden, prices) for t in self.reduced]
        sizes = [len(u) for u in unary]
        best, chosen = maximise(self.order, [*unary, *tables], self.split.links, sizes)
        at = np.array([self._within(u, o, b) for u, o, b in zip(exact, self.split.owner, chosen, strict=True)])
        self.at = at
        value = sum(float(v[p]) for v, p in zip(self.values, at, strict=False))
        value += sum(float(urge[at[c]] - urge[at[self.split.owner[c]]]) for c, urge in self.urges.items())
        costs = self.constants + self.base
        for line, p in zip(self.lines, at, strict=False):
            costs = costs + line[:, p]
        for table in self.reduced:
            for resource, cost in table.costs.items():
                costs[resource] += cost[tuple(chosen[v] for v in table.scope)]
        return Answer(best - float(prices @ self.base), at[: len(self.values)], (value, costs))

    def _exact(self, prices: Floats, weight: float) -> list[Floats]:
        """Unary rewards per variable and copy, width by width."""
        exact = [-(prices @ line) for line in self.lines]
        for v, value in enumerate(self.values):
            exact[v] = exact[v] + weight * value
        if weight:
            for copy, urge in self.urges.items():
                exact[self.split.owner[copy]] = exact[self.split.owner[copy]] - weight * urge
        exact += [weight * self.urges[c] for c in range(len(exact), len(self.split.owner))]
        return exact

    def _within(self, line: Floats, owner: int, block: int) -> int:
        starts = self.blocks.starts[owner]
        stop = starts[block + 1] if block + 1 < len(starts) else len(line)
        return int(starts[block] + np.argmax(line[starts[block] : stop]))

    def disagreement(self) -> int:
        """How far copies stand from their owners, in positions."""
        return int(sum(abs(int(self.at[c]) - int(self.at[self.split.owner[c]])) for c in self.urges))

    def urge(self, step: float) -> None:
        """One subgradient step: slopes between a copy and its owner change by `step` so that they approach."""
        for copy, urge in self.urges.items():
            here, there = int(self.at[copy]), int(self.at[self.split.owner[copy]])
            slope = np.zeros(len(urge))
            low, high = min(here, there), max(here, there)
            slope[low + 1 : high + 1] = -step if here > there else step
            urge += np.cumsum(slope)


def _by_block(reduce: np.ufunc, array: Floats, scope: Sequence[int], blocks: Blocks) -> Floats:
    for axis, v in enumerate(scope):
        if len(blocks.starts[v]) < array.shape[axis]:
            array = reduce.reduceat(array, blocks.starts[v], axis=axis)
    return np.asarray(array, dtype=np.float64)


def tighten(coarse: Coarse, prices: Floats, target: float, credit: float, steps: int, deadline: float) -> float:
    """Polyak steps on the copies' multipliers at fixed prices; the least relaxed maximum plus `credit` met."""
    best, pace = np.inf, 1.0
    kept = {c: u.copy() for c, u in coarse.urges.items()}
    for _ in range(steps):
        upper = coarse(prices, 1.0).upper + credit
        if upper < best:
            best, kept = upper, {c: u.copy() for c, u in coarse.urges.items()}
        else:
            pace *= 0.9
        apart = coarse.disagreement()
        if not apart or upper <= target or time.monotonic() > deadline:
            break
        coarse.urge(pace * (upper - target) / apart)
    coarse.urges = kept
    return best
