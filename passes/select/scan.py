"""Scan: what the costs are around an origin, block by block, without ever holding a whole table.

Every charge is rewritten as what it is on the axes through the origin, which is linear in the groups, plus a
second difference that vanishes there:

    T(x, y) = T(x, y₀) + T(x₀, y) − T(x₀, y₀) + D(x, y)          D(x₀, ·) = D(·, y₀) = 0

The linear parts are kept width by width. Of D the least entry of each block of widths is kept. Nothing is known of a
cost function but its values, so each is evaluated at every combination once, slab by slab; where blocks are cut, only
these again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from passes.select.blocks import Blocks, by_block
from passes.select.factors import Entry, Floats, Ints, Sketch, Table, TooLargeError, evaluate_at, no_number

SLAB = 1 << 17  # entries evaluated at once
WIDEST = 1 << 23  # entries of the axes that are not cut into slabs


@dataclass(frozen=True, slots=True)
class Kernel:
    """All charges of one resource over one scope, around an origin.

    Attributes:
        lines: per axis float64[n_v], cost there less that at the origin; 0 where it is infinite.
        corner: cost at the origin; 0 where it is infinite.
    """

    resource: int
    scope: tuple[int, ...]
    entries: tuple[Entry, ...]
    lines: tuple[Floats, ...]
    corner: float


class Scan:
    """The costs around an origin.

    Attributes:
        kernels: per scope and resource.
        least: per kernel of several variables float64[blocks of each], inf where every combination is forbidden.
    """

    def __init__(self, drawn: Sketch, origin: Ints, blocks: Blocks) -> None:
        self.drawn, self.origin, self.blocks = drawn, origin, blocks
        self.kernels = [_kernel(drawn, origin, *key, entries) for key, entries in _together(drawn).items()]
        self.least = [self._whole(kernel) for kernel in self.kernels if len(kernel.scope) > 1]

    def refine(self, blocks: Blocks) -> None:
        """The same around the same origin for other blocks; only what lies in blocks that are new is scanned."""
        before, self.blocks = self.blocks, blocks
        several = [kernel for kernel in self.kernels if len(kernel.scope) > 1]
        self.least = [self._again(kernel, old, before) for kernel, old in zip(several, self.least, strict=True)]

    def tables(self) -> list[Table]:
        """One table of least entries per scope of several variables."""
        costs: dict[tuple[int, ...], dict[int, Floats]] = {}
        several = (kernel for kernel in self.kernels if len(kernel.scope) > 1)
        for kernel, least in zip(several, self.least, strict=True):
            costs.setdefault(kernel.scope, {})[kernel.resource] = least
        return [_table(scope, by_resource) for scope, by_resource in costs.items()]

    def magnitude(self) -> Floats:
        """Per resource the largest numbers that the sums of a bound are made of, added up: float64[resources]."""
        total = np.zeros(len(self.drawn.problem.resources))
        for kernel in self.kernels:
            total[kernel.resource] += abs(kernel.corner) + sum(float(np.abs(line).max()) for line in kernel.lines)
        several = (kernel for kernel in self.kernels if len(kernel.scope) > 1)
        for kernel, least in zip(several, self.least, strict=True):
            total[kernel.resource] += float(np.abs(least[np.isfinite(least)]).max(initial=0.0))
        return total

    def _whole(self, kernel: Kernel) -> Floats:
        sizes = [len(line) for line in kernel.lines]
        axis = sizes.index(max(sizes))
        return self._strip(kernel, axis, np.arange(len(self.blocks.starts[kernel.scope[axis]])))

    def _again(self, kernel: Kernel, old: Floats, before: Blocks) -> Floats:
        parents, fresh = [], []
        for v, line in zip(kernel.scope, kernel.lines, strict=True):
            starts, ends = self.blocks.starts[v], self.blocks.ends(v, len(line))
            parent = np.searchsorted(before.starts[v], starts, side="right") - 1
            inside = ends <= before.ends(v, len(line))[parent]
            same = (before.starts[v][parent] == starts) & (before.ends(v, len(line))[parent] == ends)
            if not inside.all():
                return self._whole(kernel)
            parents.append(parent)
            fresh.append(np.flatnonzero(~same))
        least: Floats = np.ascontiguousarray(old[np.ix_(*parents)])
        for axis, chosen in enumerate(fresh):
            if len(chosen):
                at = tuple(chosen if a == axis else slice(None) for a in range(least.ndim))
                least[at] = self._strip(kernel, axis, chosen)
        return least

    def _strip(self, kernel: Kernel, axis: int, chosen: Ints) -> Floats:
        """Least entries of the `chosen` blocks along `axis` and all blocks along the others."""
        v, own = kernel.scope[axis], kernel.lines[axis]
        starts, ends = self.blocks.starts[v], self.blocks.ends(v, len(own))
        others = [a for a in range(len(kernel.scope)) if a != axis]
        across = math.prod(len(kernel.lines[a]) for a in others)
        if across > WIDEST:
            raise TooLargeError(f"{across} combinations beside one width")
        rows = max(1, SLAB // across)
        result = []
        for block in chosen:
            least: Floats | None = None
            for start in range(int(starts[block]), int(ends[block]), rows):
                at = np.arange(start, min(start + rows, int(ends[block])))
                part = self._slab(kernel, axis, at)
                least = part if least is None else np.minimum(least, part)
            assert least is not None
            for a in others:
                least = least - _along(kernel.lines[a], a, least.ndim)
            if np.isnan(least).any() or np.isneginf(least).any():
                raise no_number(kernel.entries[0])
            result.append(by_block(np.minimum, least - kernel.corner, self._scope(kernel, axis), self.blocks))
        return np.concatenate(result, axis=axis)

    def _scope(self, kernel: Kernel, axis: int) -> Sequence[int | None]:
        return [None if a == axis else v for a, v in enumerate(kernel.scope)]

    def _slab(self, kernel: Kernel, axis: int, at: Ints) -> Floats:
        """The least of some positions along `axis`, kept as an axis of one, its line taken off."""
        positions = [at if a == axis else np.arange(len(line)) for a, line in enumerate(kernel.lines)]
        cost = _cost(self.drawn, kernel.entries, positions) - _along(kernel.lines[axis][at], axis, len(positions))
        return np.asarray(cost.min(axis=axis, keepdims=True))


def _together(drawn: Sketch) -> dict[tuple[int, tuple[int, ...]], list[Entry]]:
    """Entries by resource and scope; those without a variable are constants."""
    found: dict[tuple[int, tuple[int, ...]], list[Entry]] = {}
    for entry in drawn.entries:
        if entry.scope:
            found.setdefault((entry.resource, entry.scope), []).append(entry)
    return found


def _kernel(drawn: Sketch, origin: Ints, resource: int, scope: tuple[int, ...], entries: list[Entry]) -> Kernel:
    here = [origin[v : v + 1] for v in scope]
    corner = float(np.squeeze(_cost(drawn, entries, here)))
    corner = corner if math.isfinite(corner) else 0.0
    lines = []
    for axis, v in enumerate(scope):
        at = [np.arange(len(drawn.widths[v])) if a == axis else p for a, p in enumerate(here)]
        cost = np.broadcast_to(_cost(drawn, entries, at), [len(p) for p in at]).reshape(-1)
        if np.isnan(cost).any() or np.isneginf(cost).any():
            raise no_number(entries[0])
        lines.append(np.where(np.isinf(cost), 0.0, cost - corner))
    return Kernel(resource, scope, tuple(entries), tuple(lines), corner)


def _cost(drawn: Sketch, entries: Sequence[Entry], positions: Sequence[Ints]) -> Floats:
    total = evaluate_at(drawn, entries[0], positions)
    for entry in entries[1:]:
        total = total + evaluate_at(drawn, entry, positions)
    return total


def _along(line: Floats, axis: int, axes: int) -> Floats:
    return line.reshape([-1 if a == axis else 1 for a in range(axes)])


def _table(scope: tuple[int, ...], costs: dict[int, Floats]) -> Table:
    infinite = np.logical_or.reduce([np.isinf(cost) for cost in costs.values()])
    if not infinite.any():
        return Table(scope, costs, None)
    return Table(scope, {resource: np.where(infinite, 0.0, cost) for resource, cost in costs.items()}, infinite)
