"""select: widths per group that keep the most importance within the limits.

    joint     the Lagrangian dual by variable elimination, with a certificate (the default)
    halp      HALP's augmented knapsack in k steps
    sp-lamp   SP-LAMP scores and a group knapsack

One interface: a `Problem` in, a `Selection` out.
"""

from __future__ import annotations

from halpc.errors import UsageError
from halpc.ir.problem import Problem, Selection, Widths
from halpc.options import SOLVERS
from passes.select.halp import halp, schedule
from passes.select.joint import joint
from passes.select.sp_lamp import sp_lamp, sp_lamp_scores


def select(
    problem: Problem,
    *,
    solver: str = "joint",
    steps: int = 1,
    start: Widths | None = None,
    near: Widths | None = None,
    prove: bool = True,
) -> Selection:
    """Choose widths for `problem`.

    Args:
        start: widths that the papers' solvers prune from.
        near: widths that `joint` stays near; the papers' solvers know no such thing.
        prove: whether `joint` closes the gap that prices and local moves leave, which takes up to ten seconds.

    Raises:
        InfeasibleError: no choice fits the limits; the message names the floor.
        UsageError: `solver` is none of `SOLVERS`.
    """
    if solver == "joint":
        return joint(problem, near=near, prove=prove)
    if solver == "halp":
        return halp(problem, steps=steps, start=start)
    if solver == "sp-lamp":
        return sp_lamp(problem, start=start)
    raise UsageError(f"--solver {solver!r}: expected one of {', '.join(SOLVERS)}")


__all__ = ["schedule", "select", "sp_lamp_scores"]
