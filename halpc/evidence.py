"""What repeated interleaved measurements of a baseline and a slim model say against a budget, and how surely.

A *pair* is one call of the profiler: both models, in turns, in sessions of their own. What happens to one call (a
session's place in memory, a busy neighbour) repeats in all of its runs, so calls, not runs, are what is counted: the
interval is Student's over the calls' logarithmic ratios, never narrower than the runs within the calls allow. Speeds
that drift cancel, since both models of a pair drift together.

Where other programs take the processor away, runs are either undisturbed or far longer, and the longer model is hit
more often: the ratio of medians then says more of the other programs than of the models. The processor time of the runs
tells, or where that is not known the fastest runs, if they say something else by far (on a quiet machine, too, the
fastest run is a matter of luck, and the median is not).

Source: Student, "The probable error of a mean", 1908; Law and Kelton, "Simulation modeling and analysis" (batch means).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from scipy.stats import t as student

from halpc.ir.latency import Timing
from halpc.ir.problem import Selection
from halpc.units import Budget

CONFIDENCE: Final = 0.98  # of the interval; one side of it, which is what a budget asks about, is 0.99
FINE: Final = 0.003  # a half-width that always suffices
DISTURBED: Final = 0.05  # how far the ratio may be from that of processor times, which nothing has interrupted
UNLIKELY: Final = 0.25  # and from that of the fastest runs, where processor times are not known
COARSE: Final = 0.015  # one that suffices where the budget is far away, or missed
CLEAR: Final = 1.5  # how many times the half-width a choice has to be below the limit to be surely so

Pair: TypeAlias = tuple[Timing, Timing]  # baseline and slim model, measured interleaved


@dataclass(frozen=True, slots=True)
class Evidence:
    """The measurements of one pair of models against a budget.

    Attributes:
        baseline_ms, measured_ms: the chosen percentile of all runs of each.
        limit_ms: the budget, given that baseline.
        share: latency over limit, call by call, the geometric mean: what latency models are corrected by. That of
            uninterrupted runs where it is far above.
        low, high: interval of latency over limit at `CONFIDENCE`; (0, inf) after a single call.
    """

    baseline_ms: float
    measured_ms: float
    limit_ms: float
    share: float
    low: float
    high: float

    @property
    def met(self) -> bool:
        """Within the budget as measured."""
        return self.measured_ms <= self.limit_ms

    @property
    def sure(self) -> bool:
        """Within the budget, and the noise does not reach it."""
        return self.met and self.high <= 1

    @property
    def noise(self) -> float:
        """Half the interval's width, as a share of the latency."""
        return math.log(self.high / self.low) / 2 if self.low > 0 else math.inf

    @property
    def decided(self) -> bool:
        """Whether more measuring would change nothing: the interval is narrow beside its distance to the budget."""
        distance = abs(math.log(self.share))
        if self.share > 1 - FINE:  # will not be proven to be within the budget
            return self.noise <= max(COARSE, distance / CLEAR)
        return self.noise <= max(FINE, min(distance / CLEAR, max(COARSE, distance / 5)))

    def as_json(self) -> dict[str, float]:
        """Plain data for reports, in ms."""
        low, high = (min(bound, 1e9) * self.limit_ms for bound in (self.low, self.high))
        return {"limit_ms": self.limit_ms, "measured_ms": self.measured_ms, "low_ms": low, "high_ms": high}


@dataclass(frozen=True, slots=True)
class Trial:
    """A choice of widths, everything that was measured of it, and its latency over the limit as predicted before."""

    selection: Selection
    pairs: tuple[Pair, ...]
    evidence: Evidence
    predicted: float


def weigh(pairs: Sequence[Pair], budget: Budget, percent: float) -> Evidence:
    """What all calls together say.

    Args:
        pairs: at least one.
        budget: on latency.
        percent: the percentile that must be within it.
    """
    before, after = (pooled([pair[i] for pair in pairs]).percentile_ms(percent) for i in (0, 1))
    limit = budget.limit(before)
    logs = np.array([math.log(a.percentile_ms(percent) / budget.limit(b.percentile_ms(percent))) for b, a in pairs])
    share = math.exp(float(logs.mean()))
    ends = [share, after / limit]  # that the two disagree is noise as well
    if budget.share is not None:
        quiet, far = _uninterrupted(pairs, budget, percent)
        if abs(math.log(quiet / share)) > far:
            ends.append(quiet)
            share = max(share, quiet)
    if len(pairs) < 2:
        return Evidence(before, after, limit, share, 0.0, math.inf)
    within = math.sqrt(float(np.mean([_within(pair, budget, percent) ** 2 for pair in pairs])))
    spread = max(float(logs.std(ddof=1)), within)
    half = float(student.ppf((1 + CONFIDENCE) / 2, len(pairs) - 1)) * spread / math.sqrt(len(pairs))
    return Evidence(before, after, limit, share, min(ends) * math.exp(-half), max(ends) * math.exp(half))


def _uninterrupted(pairs: Sequence[Pair], budget: Budget, percent: float) -> tuple[float, float]:
    """Latency over limit by what other programs do not change, and how far from that a measured one may be."""
    busy = [[times for pair in pairs if (times := pair[i].uninterrupted_ms) is not None] for i in (0, 1)]
    if all(len(each) == len(pairs) for each in busy):
        before, after = (float(np.percentile(np.concatenate(each), percent)) for each in busy)
        return after / budget.limit(before), DISTURBED
    before, after = (min(pair[i].undisturbed_ms for pair in pairs) for i in (0, 1))
    return after / budget.limit(before), UNLIKELY


def _within(pair: Pair, budget: Budget, percent: float) -> float:
    """The standard error of one call's log ratio, from how its rounds scatter (of a median, robustly)."""
    rows = [np.log(np.percentile(timing.by_round_ms, percent, axis=1)) for timing in pair]
    count = min(len(row) for row in rows)
    scatter = rows[1][:count] - rows[0][:count] if budget.share is not None else rows[1]
    deviation = 1.4826 * float(np.median(np.abs(scatter - np.median(scatter))))
    return 1.2533 * deviation / math.sqrt(len(scatter))


def pooled(timings: Sequence[Timing]) -> Timing:
    """All runs of several measurements of one model as one."""
    first = timings[0]
    if len(timings) == 1:
        return first
    samples = np.concatenate([t.samples_ms for t in timings])
    return Timing(samples, f"{first.regime}; {len(timings)} such measurements together")
