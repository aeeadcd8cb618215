"""sampling: at which widths a kernel is measured, in rounds, each of which looks at what the one before found.

First the lines through the centre on a coarse grid, one whole period of a possible staircase and the corners of the
box; then, along the lines, wherever two neighbours differ by more than the noise, the width between them. Where samples
are built, first quarters of all widths and the ends of a period, in which the second step finds the staircase.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from passes.latency.interpolate import DENSE, PERIOD, Point, on_line

NOISE: Final = 0.04
"""Two samples of one kernel differ by about this share on a machine that is not quite quiet."""
LEVELS: Final = 4  # of widths, where kernels and networks are built
_MESHED: Final = 2  # axes that are combined at all levels
_COARSE: Final = 32
_ROUNDS: Final = 4


@dataclass(frozen=True, slots=True)
class Box:
    """Widths that a signature's kernels can have.

    Attributes:
        sizes: widest width per axis.
        grids: per axis, widths are multiples of this, but for `ends`.
        ends: per axis, the full widths of the kernels that share the signature.
        built: the kernels' widths, where every sample is a part of an engine to build, else none. The first round is
            at `LEVELS` parts of these, as whole networks are, so that the builder has timed their layers then.
    """

    sizes: tuple[int, ...]
    grids: tuple[int, ...]
    ends: tuple[tuple[int, ...], ...]
    built: tuple[Point, ...] = ()

    @property
    def centre(self) -> Point:
        """Where the lines cross: about half of each axis, on a period where it is longer than that."""
        if self.built:
            return tuple(widths[LEVELS // 2 - 1] for widths in self._levels(self.sizes))
        grids = (PERIOD if size > DENSE else grid for size, grid in zip(self.sizes, self.grids, strict=True))
        return tuple(_snap(size / 2, grid, size) for size, grid in zip(self.sizes, grids, strict=True))

    def first(self) -> list[Point]:
        """The points of the first round."""
        if self.built:
            return self._lattice()
        lines = [self._on_line(axis, width) for axis in range(len(self.sizes)) for width in self._coarse(axis)]
        corners = itertools.product(*(self._crossings(axis) for axis in range(len(self.sizes))))
        return list(dict.fromkeys([self.centre, *lines, *(corners if len(self.sizes) > 1 else ())]))

    def _lattice(self) -> list[Point]:
        """All combinations of each kernel's levels, and along the lines what a staircase is found from."""
        meshes = [itertools.product(*self._levels(own)) for own in self.built if len(own) <= _MESHED]
        lines = [self._on_line(axis, width) for axis, widths in enumerate(self._levels(self.sizes)) for width in widths]
        for axis, size in enumerate(self.sizes):
            needed = (min(self.grids[axis], size), *self.ends[axis], *((PERIOD, DENSE) if size > DENSE else ()))
            lines += [self._on_line(axis, width) for width in needed]
        return list(dict.fromkeys([self.centre, *lines, *itertools.chain(*meshes)]))

    def _levels(self, sizes: Point) -> list[list[int]]:
        return [
            [_snap(size * part / LEVELS, grid, size) for part in range(1, LEVELS + 1)]
            for size, grid in zip(sizes, self.grids, strict=True)
        ]

    def _on_line(self, axis: int, width: int) -> Point:
        return (*self.centre[:axis], width, *self.centre[axis + 1 :])

    def _coarse(self, axis: int) -> list[int]:
        size, grid = self.sizes[axis], self.grids[axis]
        step = max(grid, _COARSE)
        widths = {min(grid, size), *self.ends[axis], *range(step, min(size, DENSE) + 1, step)}
        if size > DENSE:
            widths.update(range(PERIOD, DENSE, grid))
            widths.update(_doubling(size))
        else:
            fine = max(grid, PERIOD // 8)
            widths.update(range(fine, min(size, PERIOD) + 1, fine))
        return sorted(w for w in widths if 0 < w <= size)

    def _crossings(self, axis: int) -> list[int]:
        """A low and a high width, for what lies off the lines."""
        size = self.sizes[axis]
        grid = PERIOD if size > DENSE else self.grids[axis]
        return sorted({_snap(size / 4, grid, size), size, min(size, max(self.grids[axis], 8))})

    def finer(self, samples: Mapping[Point, float]) -> list[Point]:
        """Points between neighbours on a line that differ by more than the noise; [] when there are none left."""
        found = []
        for axis in range(len(self.sizes)):
            known = on_line(samples, self.centre, axis)
            for low, high in itertools.pairwise(sorted(known)):
                middle = self._between(low, high, self.grids[axis])
                if middle is not None and _differ(known[low], known[high]):
                    found.append(self._on_line(axis, middle))
        return found

    def _between(self, low: int, high: int, grid: int) -> int | None:
        """The width to try between two, or None where the grid has none, or where a period's offsets serve."""
        grid = PERIOD if high > DENSE else grid
        middle = round((low + high) / 2 / grid) * grid
        if high > DENSE and high <= 2 * low:
            return None
        return middle if low < middle < high else None


def rounds() -> Iterable[int]:
    """As many rounds of refinement as bisection of a coarse interval needs."""
    return range(_ROUNDS)


def _differ(a: float, b: float) -> bool:
    return abs(a - b) > 2 * NOISE * max(a, b)


def _snap(width: float, grid: int, size: int) -> int:
    return min(size, max(grid, round(width / grid) * grid))


def _doubling(size: int) -> list[int]:
    """Multiples of the period, each half as large again as the one before or double it."""
    found = []
    width = DENSE
    while width < size:
        found += [width, width + width // 2]
        width *= 2
    return [w for w in found if w < size and w % PERIOD == 0]


def box_of(sizes: Sequence[Sequence[int]], grids: Sequence[int], *, built: bool = False) -> Box:
    """The box of kernels that share a signature.

    Args:
        sizes: full widths of each kernel's axes.
        grids: per axis, what widths are multiples of.
        built: every sample is a part of an engine to build.
    """
    axes = list(zip(*sizes, strict=True))
    own = tuple(dict.fromkeys(map(tuple, sizes))) if built else ()
    return Box(tuple(map(max, axes)), tuple(grids), tuple(tuple(sorted(set(axis))) for axis in axes), own)
