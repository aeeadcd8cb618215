"""widths: the admissible widths of every group, as choices for `select`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from halpc.errors import PlanError
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
        align: widths are multiples of this; None: 1, or a grid of `MOST` widths for large groups.
        min_width: no fewer channels than this, as far as the group has them.
        steps: latency-aware group size per group.
        ceilings: widest width per group, when an earlier plan is continued.
        vanishing: groups that may have no channels at all.

    Raises:
        PlanError: the earlier plan left nothing of a group that cannot vanish.
    """
    made = []
    for name, group in coupling.free().items():
        ceiling = (ceilings or {}).get(name, group.size)
        step = (steps or {}).get(name, 1)
        if ceiling == 0 and name not in vanishing:
            raise PlanError(f"--resume: group {name!r} keeps no channels in that plan, and it cannot vanish here")
        widths = _grid(ceiling, align, min_width) if ceiling else np.empty(0, dtype=np.int64)
        if name in vanishing:
            widths = np.append(0, widths)
        curve = saliency.curve(name)
        scores = np.sort(saliency.scores[name])[::-1]
        made.append(Choice(name, widths, curve[widths], step, scores))
    return tuple(made)


def _grid(size: int, align: int | None, least: int) -> NDArray[np.int64]:
    """Multiples of the alignment from the floor up to the full size, the size itself included."""
    step = align or max(1, 2 ** int(np.ceil(np.log2(size / MOST))))
    first = max(step, -(-least // step) * step)
    return np.unique(np.append(np.arange(first, size, step), size)).astype(np.int64)
