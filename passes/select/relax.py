"""`joint` where the exact tables would outgrow memory: a relaxation whose bound still holds.

What `scan` knows of the costs is linear parts, width by width, and least entries of the rest, block by block; a
block's least entry stands for all of it. Two more things may be given up where a graph asks for it:

    links     S = a + b holds of blocks: S may be in any block that some a, b of their blocks lead to
    copies    entangled groups as copies that need not agree (`copies`), with multipliers that urge them to

All of it can only raise the maximum. What costs depend on S linearly is charged to a and b instead, which is the same
wherever S = a + b and leaves little to gain where it is not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from passes.select.blocks import Blocks, by_block
from passes.select.copies import Split
from passes.select.dual import Answer
from passes.select.elimination import Plan, lookups, maximise, reward
from passes.select.factors import Floats, Ints, Link, Table
from passes.select.scan import Scan

WINDOW = 0.125  # share of a sum's range, to each side of the origin, over which its slope is taken


class Coarse:
    """Bounds `weight · Σ value − Σ price · cost` from above, at any prices.

    Attributes:
        lines: per variable float64[resources, n_v], the linear part of the costs around the origin.
        urges: per copy float64[n_v], multiplier that its owner pays and it receives.
        magnitude: value, then each resource: the largest numbers that sums are made of, added up, for rounding bounds.
    """

    def __init__(
        self, values: Sequence[Floats], constants: Floats, scan: Scan, loose: Sequence[Link], split: Split, order: Plan
    ) -> None:
        self.values, self.constants, self.blocks = values, constants, scan.blocks
        self.split, self.order = split, order
        self.lines, self.base = _linear(scan, len(constants))
        for link in reversed(loose):
            _charge_to_parts(self.lines, link, scan.origin)
        size = scan.magnitude() + sum(np.abs(line).max(axis=1) for line in self.lines) + np.abs(constants)
        self.magnitude = 8.0 * np.append(sum(float(np.abs(v).max()) for v in values), size)
        tables = [*scan.tables(), *(_allowed(link, scan.blocks) for link in loose)]
        self.reduced = [_renamed(table, scope) for table, scope in zip(tables, split.scopes, strict=True)]
        self.urges = {v: np.zeros(self.lines[o].shape[1]) for v, o in enumerate(split.owner) if v != o}
        self.lookups = lookups(order, split.links, [len(scan.blocks.starts[o]) for o in split.owner])
        self.at: Ints = scan.origin

    def __call__(self, prices: Floats, weight: float = 1.0) -> Answer:
        """The relaxed maximum, where its owners stand, and the plane of the relaxed choice."""
        exact = self._exact(prices, weight)
        unary = [by_block(np.maximum, u, (o,), self.blocks) for u, o in zip(exact, self.split.owner, strict=True)]
        tables = [reward(t.costs, t.forbidden, prices) for t in self.reduced]
        sizes = [len(u) for u in unary]
        best, chosen = maximise(self.order, [*unary, *tables], self.split.links, sizes, self.lookups)
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


def _linear(scan: Scan, resources: int) -> tuple[list[Floats], Floats]:
    """Lines per variable float64[resources, n_v], and costs at the origin float64[resources]."""
    lines, base = [np.zeros((resources, n)) for n in scan.drawn.sizes], np.zeros(resources)
    for kernel in scan.kernels:
        base[kernel.resource] += kernel.corner
        for v, line in zip(kernel.scope, kernel.lines, strict=True):
            lines[v][kernel.resource] += line
    return lines, base


def _charge_to_parts(lines: list[Floats], link: Link, origin: Ints) -> None:
    """Take the slope that costs have in a sum off the sum, and charge it to its parts."""
    if not link.invertible:
        return
    totals, at = link.totals, int(origin[link.total])
    reach = max(1, int(WINDOW * len(totals)))
    low, high = max(0, at - reach), min(len(totals) - 1, at + reach)
    if high == low:
        return
    slope = (lines[link.total][:, high] - lines[link.total][:, low]) / (totals[high] - totals[low])
    for v, widths, sign in (
        (link.total, totals, -1.0),
        (link.left, link.left_widths, 1.0),
        (link.right, link.right_widths, 1.0),
    ):
        lines[v] += sign * np.outer(slope, widths - widths[origin[v]])


def _allowed(link: Link, blocks: Blocks) -> Table:
    """Which blocks of left, right and total can go together: a table of nothing but what is forbidden."""
    low, high = {}, {}
    for v, widths in ((link.left, link.left_widths), (link.right, link.right_widths), (link.total, link.totals)):
        low[v], high[v] = widths[blocks.starts[v]], widths[blocks.ends(v, len(widths)) - 1]
    least, most = (link.joined(side[link.left][:, None], side[link.right])[:, :, None] for side in (low, high))
    forbidden = (most < low[link.total]) | (least > high[link.total])
    return Table(link.scope, {0: np.zeros(forbidden.shape)}, forbidden)


def _renamed(table: Table, scope: Sequence[int]) -> Table:
    """The table over a scope of copies, its axes ascending."""
    order = np.argsort(scope)
    costs = {resource: cost.transpose(order) for resource, cost in table.costs.items()}
    forbidden = None if table.forbidden is None else table.forbidden.transpose(order)
    return Table(tuple(sorted(scope)), costs, forbidden)


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
