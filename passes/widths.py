"""widths: the admissible widths of every group, as choices for `select`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from halpc.errors import PlanError
from halpc.ir.dims import Dim, Leaf, Product, Sum, leaves
from halpc.ir.groups import Coupling
from halpc.ir.problem import Choice
from halpc.ir.saliency import Saliency

MOST = 64  # candidate widths per group; wider groups are sampled on a coarser grid


def choices(
    coupling: Coupling,
    saliency: Saliency,
    *,
    align: int | None = None,
    min_width: int = 1,
    steps: Mapping[str, int] | None = None,
    ceilings: Mapping[str, int] | None = None,
    vanishing: Collection[str] = (),
) -> tuple[Choice, ...]:
    """One choice per free group.

    Args:
        align: axes of weights are multiples of this (see `grids`); None: any width, or `MOST` of them for large groups.
        min_width: no fewer channels than this, as far as the group has them.
        steps: latency-aware group size per group.
        ceilings: widest width per group, when an earlier plan is continued.
        vanishing: groups that may have no channels at all.

    Raises:
        PlanError: the earlier plan left nothing of a group that cannot vanish.
    """
    made = []
    aligned = grids(coupling, align) if align else {}
    for name, group in coupling.free().items():
        ceiling = (ceilings or {}).get(name, group.size)
        step = (steps or {}).get(name, 1)
        if ceiling == 0 and name not in vanishing:
            raise PlanError(f"--resume: group {name!r} keeps no channels in that plan, and it cannot vanish here")
        widths = _grid(ceiling, aligned.get(name), min_width) if ceiling else np.empty(0, dtype=np.int64)
        if name in vanishing:
            widths = np.append(0, widths)
        curve = saliency.curve(name)
        scores = np.sort(saliency.scores[name])[::-1]
        made.append(Choice(name, widths, curve[widths], step, scores))
    return tuple(made)


def grids(coupling: Coupling, align: int) -> dict[str, int]:
    """Free group → what its widths are multiples of, so that axes of weights are multiples of `align`.

    A factor of a product needs no more than what the others lack: heads of 64 channels may be any number. Of several
    factors that may shrink the largest is aligned by itself.
    """
    free = coupling.free()
    return {
        name: math.lcm(*(_lacking(coupling.axes[m.tensor, m.axis], name, free, align) for m in group.members))
        if group.members
        else align
        for name, group in free.items()
    }


def _lacking(dim: Dim, name: str, free: Collection[str], align: int) -> int:
    """What a group's width must be a multiple of for one axis of a weight."""
    match dim:
        case Leaf(own):
            return align if own == name else 1
        case Sum(parts):
            return math.lcm(*(_lacking(part, name, free, align) for part in parts))
        case Product(factors):
            count = [leaf.name for leaf in leaves(dim)].count(name)
            shrinking = [factor for factor in factors if isinstance(factor, Leaf) and factor.name in free]
            if count == 0 or count > 1 or name not in [factor.name for factor in shrinking]:
                return align if count else 1
            fixed = math.prod(f.size for f in factors if isinstance(f, Leaf) and f.name not in free)
            missing = align // math.gcd(align, fixed)
            largest = max(shrinking, key=lambda factor: factor.size)
            return missing if largest.name == name else missing // math.gcd(missing, largest.size)


def _grid(size: int, align: int | None, least: int) -> NDArray[np.int64]:
    """Multiples of the alignment from the floor up to the full size, the size itself included."""
    step = align or max(1, 2 ** int(np.ceil(np.log2(size / MOST))))
    first = max(step, -(-least // step) * step)
    return np.unique(np.append(np.arange(first, size, step), size)).astype(np.int64)
