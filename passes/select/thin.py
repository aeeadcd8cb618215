"""Where to begin in a problem of very many widths: with few of them, the best choice; then moves among all."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from halpc.ir.problem import Choice, Problem
from passes.select.dual import Dual, Visit
from passes.select.exact import Limits, exact_dual
from passes.select.factors import Floats, Ints, TooLargeError
from passes.select.fill import fill

FEW = (64, 24, 8)  # widths per group; the first for which an exact model fits


def beginning(problem: Problem, limits: Limits, deadline: float) -> tuple[Visit, Floats]:
    """A good choice, within the limits if that was found, and prices float64[resources] near the best."""
    start, prices = middle(problem), np.zeros(len(problem.resources))
    half = 0.5 * (time.monotonic() + deadline)
    for most in FEW:
        kept = [few(choice, most) for choice in problem.choices]
        thinned = [replace(c, widths=c.widths[k], value=c.value[k]) for c, k in zip(problem.choices, kept, strict=True)]
        try:
            dual, _ = exact_dual(Problem(tuple(thinned), problem.resources), replace(limits, work=limits.work // 32))
        except TooLargeError:
            continue
        best = _solved(dual)
        start = np.array([k[p] for k, p in zip(kept, best.position, strict=True)], dtype=np.int64)
        prices = dual.prices
        break
    return fill(problem, start, prices, bound=np.inf, deadline=half), prices


def _solved(dual: Dual) -> Visit:
    """The best choice within the limits that some price leads to; where there is none, the cheapest."""
    cheapest = [dual.floor(int(resource))[1] for resource in dual.active]
    dual.minimise()
    inside = [visit for visit in dual.visits if dual.within(visit)]
    return max(inside, key=lambda visit: visit.value) if inside else cheapest[0]


def few(choice: Choice, most: int) -> Ints:
    """Positions of at most about `most` widths: where chunks of the latency step end, the first and the last."""
    chunk = choice.widths // choice.step
    ends = np.flatnonzero(np.diff(chunk, prepend=chunk[0] - 1))
    if len(ends) > most:
        ends = ends[np.linspace(0, len(ends) - 1, most).astype(np.int64)]
    return np.unique(np.append(ends, len(choice.widths) - 1)).astype(np.int64)


def middle(problem: Problem) -> Ints:
    """The middle position of every group: a start where nothing better is known."""
    return np.array([len(choice.widths) // 2 for choice in problem.choices], dtype=np.int64)
