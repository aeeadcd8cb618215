"""The ledger: what every single change of width would do to value and costs, kept up to date.

One call of a kernel's cost function covers all options of all its groups. An axis that is a plain sum of
groups (most are) is its width now plus the change; others are evaluated group by group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from halpc.ir.dims import Dim, Leaf, Product, Sum, leaves, width
from halpc.ir.problem import Charge, Problem
from passes.select.dual import Visit, visited, widths_at
from passes.select.factors import Floats, Ints

NARROW = 4


@dataclass(frozen=True, slots=True)
class Move:
    """New positions for some groups."""

    to: tuple[tuple[int, int], ...]
    gain: float


@dataclass(slots=True)
class Line:
    """One charge over all options of its groups, the others where they stand.

    Attributes:
        options: int64[k], numbers of the options.
        scales: per axis int64[k], how often the option's group is in the axis; None where it is no plain sum.
        change: float64[k], cost of the option less the cost now.
        now: the cost now.
    """

    resource: int
    charge: Charge
    groups: tuple[int, ...]
    options: Ints
    scales: tuple[Ints | None, ...]
    change: Floats
    now: float = 0.0


class Ledger:
    """Where the groups stand, and what every other width of each would change, alone.

    Attributes:
        gains: float64[options], change of value.
        costs: float64[resources, options], change of cost (inf where forbidden).
        group: int64[options], which group an option belongs to.
        start: int64[groups + 1], where each group's options lie.
        shared: per group, per neighbour, the lines that hold both and at most NARROW groups. What wider
            ones (fed by a concat) add to a pair beyond the sum is left to the check before a move is made.
    """

    def __init__(self, problem: Problem, position: Ints) -> None:
        self.problem = problem
        self.limits = np.array([r.limit for r in problem.resources])
        self.start = np.concatenate([[0], np.cumsum([len(c.widths) for c in problem.choices])]).astype(np.int64)
        self.group = np.repeat(np.arange(len(problem.choices)), np.diff(self.start))
        self.widths = np.concatenate([np.zeros(0, dtype=np.int64), *(c.widths for c in problem.choices)])
        self.values = np.concatenate([np.zeros(0), *(c.value for c in problem.choices)])
        self.lines = [self._line(number, charge) for number, r in enumerate(problem.resources) for charge in r.charges]
        self.shared = _shared(self.lines, len(problem.choices))
        self.banned: set[tuple[tuple[int, int], ...]] = set()
        self.at = visited(problem, position)
        self._refresh(set(range(len(problem.choices))))

    def _line(self, resource: int, charge: Charge) -> Line:
        place = {choice.name: g for g, choice in enumerate(self.problem.choices)}
        names = {leaf.name for axis in charge.axes for leaf in leaves(axis)}
        groups = tuple(sorted(place[name] for name in names if name in place))
        spans = [np.arange(self.start[g], self.start[g + 1]) for g in groups]
        options = np.concatenate([np.zeros(0, dtype=np.int64), *spans])
        scales: list[Ints | None] = []
        for axis in charge.axes:
            count = _plain_sum(axis, place)
            per_group = None if count is None else np.array([count[g] for g in groups], dtype=np.int64)
            scales.append(None if per_group is None else np.repeat(per_group, [len(span) for span in spans]))
        return Line(resource, charge, groups, options, tuple(scales), np.zeros(len(options)))

    def _refresh(self, moved: set[int]) -> None:
        """Recompute the charges of `moved`, then the sums."""
        here = self.start[:-1] + self.at.position
        self.gains = self.values - self.values[here][self.group]
        self.costs = np.zeros((len(self.limits), len(self.group)))
        widths = widths_at(self.problem, self.at.position)
        delta = self.widths - self.widths[here][self.group]
        for line in self.lines:
            if not moved.isdisjoint(line.groups):
                line.now = float(line.charge.at(widths))
                line.change = self._changes(line, widths, delta)
            self.costs[line.resource, line.options] += line.change

    def _changes(self, line: Line, widths: Mapping[str, int], delta: Ints) -> Floats:
        axes: list[Ints] = []
        for axis, scale in zip(line.charge.axes, line.scales, strict=True):
            if scale is None:
                axes.append(self._one_by_one(line, axis, widths))
            else:
                axes.append(int(width(axis, widths)) + scale * delta[line.options])
        with np.errstate(invalid="ignore"):
            change = np.broadcast_to(line.charge.cost(*axes), line.options.shape) - line.now
        return np.asarray(np.nan_to_num(change, nan=0.0, posinf=np.inf, neginf=-np.inf), dtype=np.float64)

    def _one_by_one(self, line: Line, axis: Dim, widths: Mapping[str, int]) -> Ints:
        parts: list[Any] = []
        for g in line.groups:
            choice = self.problem.choices[g]
            parts.append(np.broadcast_to(width(axis, {**widths, choice.name: choice.widths}), choice.widths.shape))
        return np.concatenate(parts)

    def spare(self) -> Floats:
        """Unspent budget per resource; negative where it is overspent."""
        return np.asarray(self.limits - self.at.costs, dtype=np.float64)

    def option(self, number: int) -> tuple[int, int]:
        """Group and position of an option."""
        g = int(self.group[number])
        return g, int(number - self.start[g])

    def make(self, move: Move) -> bool:
        """Make a move if it really keeps every limit, in the floats that `Problem.feasible` sees."""
        position = self.at.position.copy()
        for g, to in move.to:
            position[g] = to
        there = visited(self.problem, position)
        better = there.value > self.at.value or bool(np.any(self.spare() < 0))
        if not better or not np.all(there.costs <= self.limits):
            self.banned.add(move.to)
            return False
        self.stand(there, {g for g, _ in move.to})
        return True

    def stand(self, there: Visit, moved: set[int]) -> None:
        """Stand where the groups `moved` differ from before."""
        self.at = there
        self.banned.clear()
        self._refresh(moved)


def _plain_sum(axis: Dim, place: Mapping[str, int]) -> Counter[int] | None:
    """How often each group occurs in an axis that is a sum of groups and constants; None for another."""
    match axis:
        case Leaf(name, _):
            return Counter([place[name]] if name in place else [])
        case Sum(parts):
            total: Counter[int] = Counter()
            for part in parts:
                count = _plain_sum(part, place)
                if count is None:
                    return None
                total.update(count)
            return total
        case Product():
            return Counter() if all(leaf.name not in place for leaf in leaves(axis)) else None


def _shared(lines: list[Line], groups: int) -> list[dict[int, list[Line]]]:
    shared: list[dict[int, list[Line]]] = [{} for _ in range(groups)]
    for line in lines:
        for g in line.groups if len(line.groups) <= NARROW else ():
            for h in line.groups:
                if h != g:
                    shared[g].setdefault(h, []).append(line)
    return shared
