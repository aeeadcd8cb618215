"""Rules that the solvers are compared with: each takes a problem and gives widths that fit its limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from halpc.errors import InfeasibleError
from halpc.ir.problem import Choice, Problem, Selection

Widths: TypeAlias = dict[str, int]
Rule: TypeAlias = Callable[[Problem], Selection]

LEAST_SHARE = 0.25  # of its channels that a random plan leaves a group, before the budget is applied


def uniform(problem: Problem) -> Selection:
    """Every group keeps the same share of its channels, to within one admissible width.

    The largest share that fits when widths are rounded down; then groups go up one width, those that rounding
    took the largest share of their channels from first, as far as the limits allow.
    """

    def wanted(choice: Choice, share: float) -> float:
        return share * float(choice.widths[-1])

    share = largest(problem, lambda s: {c.name: below(c.widths, wanted(c, s)) for c in problem.choices})
    widths = {c.name: below(c.widths, wanted(c, share)) for c in problem.choices}
    lost = {c.name: (wanted(c, share) - widths[c.name]) / float(c.widths[-1]) for c in problem.choices}
    for choice in sorted(problem.choices, key=lambda c: -lost[c.name]):
        wider = widths | {choice.name: above(choice.widths, widths[choice.name])}
        if problem.feasible(wider):
            widths = wider
    return selection(problem, widths, "uniform")


def global_threshold(problem: Problem) -> Selection:
    """Every channel whose importance is above one threshold stays (global magnitude at equal latency)."""
    scores = np.sort(np.concatenate([c.scores for c in problem.choices]))[::-1]

    def widths(share: float) -> Widths:
        threshold = scores[min(int(share * (scores.size - 1)), scores.size - 1)]
        return {c.name: nearest(c.widths, float((c.scores >= threshold).sum())) for c in problem.choices}

    return selection(problem, widths(largest(problem, widths)), "global")


def proportional(problem: Problem, shares: dict[str, float]) -> Widths:
    """Widths in the proportions of `shares`, as wide as the limits allow."""

    def widths(scale: float) -> Widths:
        reach = scale / min(shares.values())
        return {c.name: below(c.widths, min(1.0, reach * shares[c.name]) * c.widths[-1]) for c in problem.choices}

    return widths(largest(problem, widths))


def random_shares(problem: Problem, seed: int) -> dict[str, float]:
    """A share per group, drawn evenly between `LEAST_SHARE` and 1."""
    rng = np.random.default_rng(seed)
    return {c.name: float(rng.uniform(LEAST_SHARE, 1.0)) for c in problem.choices}


def largest(problem: Problem, widths_at: Callable[[float], Widths]) -> float:
    """The largest share in [0, 1] whose widths fit, by bisection; 0 where none was found to fit."""
    if problem.feasible(widths_at(1.0)):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if problem.feasible(widths_at(middle)) else (low, middle)
    return low


def selection(problem: Problem, widths: Widths, solver: str) -> Selection:
    """`widths` as what the closed loop expects; nothing is proved."""
    spent = {r.name: r.spent(widths) for r in problem.resources}
    return Selection(widths, problem.value(widths), spent, np.inf, {}, "nothing", (), solver, 0.0)


def _some(admissible: NDArray[np.int64]) -> NDArray[np.int64]:
    some = admissible[admissible > 0]
    if not some.size:
        raise InfeasibleError("a rule leaves every group some channels", budget=0.0, floor=math.inf, resource="latency")
    return some


def nearest(admissible: NDArray[np.int64], wanted: float) -> int:
    """The admissible width nearest to the wanted one, at least the narrowest that is not zero."""
    some = _some(admissible)
    return int(some[np.argmin(np.abs(some - wanted))])


def below(admissible: NDArray[np.int64], wanted: float) -> int:
    """The widest admissible width that is at most `wanted`, at least the narrowest that is not zero."""
    some = _some(admissible)
    return int(some[max(0, int(np.searchsorted(some, wanted + 1e-9, side="right")) - 1)])


def above(admissible: NDArray[np.int64], width: int) -> int:
    """The next wider admissible width, or `width` where it is the widest."""
    wider = admissible[admissible > width]
    return int(wider[0]) if wider.size else width


RULES: dict[str, Rule] = {"uniform": uniform, "global": global_threshold}
