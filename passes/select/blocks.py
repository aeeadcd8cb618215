"""Blocks: widths in runs that are looked at together, fine around an origin and coarse far from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from passes.select.factors import Floats, Ints


@dataclass(frozen=True, slots=True)
class Blocks:
    """A partition of every variable's positions: `starts[v]` is the ascending first position of each block."""

    starts: tuple[Ints, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Blocks per variable."""
        return tuple(len(s) for s in self.starts)

    def ends(self, variable: int, size: int) -> Ints:
        """The position behind the last of each block of a variable that has `size` positions."""
        return np.append(self.starts[variable][1:], size)


def geometric(size: int, centre: int, ratio: float, single: bool) -> Ints:
    """Blocks around `centre` whose lengths grow by `ratio`; all of length 1 where `single`."""
    if single or size <= 4:
        return np.arange(size, dtype=np.int64)
    reach = [0]
    length = 1.0
    while reach[-1] < size:
        reach.append(reach[-1] + max(1, int(length)))
        length = min(length * ratio, float(size))
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


def by_block(reduce: np.ufunc, array: Floats, scope: Sequence[int | None], blocks: Blocks) -> Floats:
    """`array` over the variables of `scope`, reduced block by block along each axis."""
    for axis, v in enumerate(scope):
        if v is not None and len(blocks.starts[v]) < array.shape[axis]:
            array = reduce.reduceat(array, blocks.starts[v], axis=axis)
    return np.asarray(array, dtype=np.float64)
