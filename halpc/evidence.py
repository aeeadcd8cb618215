"""What interleaved measurements of a baseline and of slim models say against a budget, and how surely.

A *call* of the profiler measures models in turns, in sessions of their own. What happens to one call (a session's place
in memory, a busy neighbour) repeats in all of its runs, so calls, not runs, are what is counted: intervals are
Student's over the calls' logarithmic ratios, never narrower than the runs within the calls allow. Speeds that drift
cancel, since all models of a call drift together.

They do not cancel wholly: a neighbour that fills the caches slows a model down the more, the more memory it works on,
so over some seconds the ratio of a slim model to its baseline wanders by several per cent. Models that differ little
wander together. A later choice is therefore measured beside an earlier one, and known by its ratio to that, whose own
ratio to the baseline every further call makes better known; or by its ratio to the baseline where that is surer.

Where other programs take the processor away, runs are either undisturbed or far longer, and the longer model is hit
more often: the ratio of medians then says more of the other programs than of the models. The processor time of the runs
tells, or where that is not known the fastest runs, if they say something else by far (on a quiet machine, too, the
fastest run is a matter of luck, and the median is not).

Source: Student, "The probable error of a mean", 1908; Law and Kelton, "Simulation modeling and analysis" (batch means);
Bucher et al., "The results of direct and indirect treatment comparisons in meta-analysis", 1997 (ratios in a chain).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from halpc.ir.latency import Timing
from halpc.ir.problem import Selection
from halpc.units import Budget

CONFIDENCE: Final = 0.95  # of the interval; one side of it, which is what a budget asks about, is 0.975
FINE: Final = 0.003  # a half-width that always suffices
DISTURBED: Final = 0.05  # how far the ratio may be from that of processor times, which nothing has interrupted
UNLIKELY: Final = 0.25  # and from that of the fastest runs, where processor times are not known
COARSE: Final = 0.015  # one that suffices where the budget is far away, or missed
CLEAR: Final = 1.5  # how many times the half-width a choice has to be below the limit to be surely so
_REMEMBERED: Final = 4096  # measurements whose figures are not computed again

Array: TypeAlias = NDArray[np.float64]
Key: TypeAlias = Hashable  # what a measured model is known by


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the profiler: the baseline and the models that took turns with it."""

    baseline: Timing
    models: Mapping[Key, Timing]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What all measurements so far say of one model against a budget.

    Attributes:
        baseline_ms: the chosen percentile of all runs of the baseline.
        measured_ms: that of the model when the baseline takes `baseline_ms`.
        limit_ms: the budget, given that baseline.
        share: latency over limit, what latency models are corrected by: `measured_ms / limit_ms`, or that of
            uninterrupted runs where it is far above.
        low, high: interval of latency over limit at `CONFIDENCE`; (0, inf) after a single call.
        calls: in which the model was measured.
    """

    baseline_ms: float
    measured_ms: float
    limit_ms: float
    share: float
    low: float
    high: float
    calls: int

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
    def factor_to_sure(self) -> float:
        """How many times as many calls would make it surely within the budget, as far as it is known now."""
        distance = -math.log(self.share)
        return (self.noise / distance) ** 2 if distance > FINE else math.inf

    @property
    def decided(self) -> bool:
        """Whether more measuring would change nothing: the interval is narrow beside its distance to the budget."""
        distance = abs(math.log(self.share))
        if self.share > 1 - FINE:  # will not be proven to be within the budget
            return self.noise <= max(COARSE, distance / 5)
        return self.noise <= max(FINE, min(distance / CLEAR, max(COARSE, distance / 5)))

    def as_json(self) -> dict[str, float]:
        """Plain data for reports, in ms."""
        low, high = (min(bound, 1e9) * self.limit_ms for bound in (self.low, self.high))
        return {"limit_ms": self.limit_ms, "measured_ms": self.measured_ms, "low_ms": low, "high_ms": high}


@dataclass(frozen=True, slots=True)
class Trial:
    """A choice of widths that was measured.

    Attributes:
        selection: the widths.
        key: what its model is known by.
        evidence: what was measured of it.
        predicted: its share of the limit as predicted.
        round: in which it was measured; those of the first were predicted by the latency model alone.
    """

    selection: Selection
    key: Key
    evidence: Evidence
    predicted: float
    round: int = 1


def best_sure(trials: Iterable[Trial]) -> Trial | None:
    """The choice worth most among those surely within the budget."""
    return max((t for t in trials if t.evidence.sure), key=lambda t: t.selection.value, default=None)


def weigh(calls: Sequence[Call], budget: Budget, percent: float) -> dict[Key, Evidence]:
    """What all calls together say of every model in them.

    Args:
        calls: at least one.
        budget: on latency.
        percent: the percentile that must be within it.
    """
    before = pooled([call.baseline for call in calls]).percentile_ms(percent)
    limit = budget.limit(before)
    known: dict[Key, _Ratio] = {}
    for key in dict.fromkeys(key for call in calls for key in call.models):
        own = [call for call in calls if key in call.models]
        ways = [_to_limit(own, key, budget, percent)]
        for other, so_far in known.items():
            both = [call for call in own if other in call.models]
            if len(both) > 1:
                beside = [call.models[other] for call in both]
                ways.append(so_far.times(_ratio([call.models[key] for call in both], beside, percent)))
        known[key] = min(ways, key=lambda ratio: ratio.below + ratio.above)
    return {
        key: ratio.evidence(before, limit, sum(key in call.models for call in calls)) for key, ratio in known.items()
    }


@dataclass(frozen=True, slots=True)
class _Ratio:
    """A ratio of latencies, as logarithms.

    Attributes:
        measured: call by call, the mean.
        share: the same, or that of uninterrupted runs where it is far above.
        below, above: how far the interval reaches to either side of `share`.
    """

    measured: float
    share: float
    below: float
    above: float

    def times(self, other: _Ratio) -> _Ratio:
        """The product of two ratios whose errors have nothing to do with each other."""
        below, above = math.hypot(self.below, other.below), math.hypot(self.above, other.above)
        return _Ratio(self.measured + other.measured, self.share + other.share, below, above)

    def evidence(self, baseline_ms: float, limit_ms: float, calls: int) -> Evidence:
        """In ms, of a budget of `limit_ms`."""
        low, high = (float(np.exp(self.share + off)) for off in (-self.below, self.above))
        measured_ms = limit_ms * math.exp(self.measured)
        return Evidence(baseline_ms, measured_ms, limit_ms, math.exp(self.share), low, high, calls)


def _to_limit(calls: Sequence[Call], key: Key, budget: Budget, percent: float) -> _Ratio:
    """The model's latency over the budget: over its share of the baseline measured beside it, or over its ms."""
    before = [call.baseline for call in calls] if budget.share is not None else None
    ratio = _ratio([call.models[key] for call in calls], before, percent)
    one = math.log(budget.limit(1.0))
    return replace(ratio, measured=ratio.measured - one, share=ratio.share - one)


def _ratio(after: Sequence[Timing], before: Sequence[Timing] | None, percent: float) -> _Ratio:
    """Latencies over those of another model measured beside it, call by call, or over 1 ms."""
    logs = _logs(after, percent) - _logs(before, percent) if before else _logs(after, percent)
    mean = share = float(logs.mean())
    ends = [mean, math.log(pooled(after).percentile_ms(percent))]  # that the two disagree is noise as well
    if before:
        ends[1] -= math.log(pooled(before).percentile_ms(percent))
        quiet, far = _uninterrupted(after, before, percent)
        if abs(quiet - mean) > far:
            ends.append(quiet)
            share = max(mean, quiet)
    if len(after) < 2:
        return _Ratio(mean, share, math.inf, math.inf)
    errors = [_within(*pair, percent) for pair in zip(after, before or itertools.repeat(None), strict=False)]
    spread = max(float(logs.std(ddof=1)), math.sqrt(float(np.mean(np.square(errors)))))
    half = float(student.ppf((1 + CONFIDENCE) / 2, len(after) - 1)) * spread / math.sqrt(len(after))
    return _Ratio(mean, share, share - min(ends) + half, max(ends) - share + half)


def _logs(timings: Sequence[Timing], percent: float) -> Array:
    return np.array([_log(timing, percent) for timing in timings])


@lru_cache(maxsize=_REMEMBERED)
def _log(timing: Timing, percent: float) -> float:
    return math.log(timing.percentile_ms(percent))


def _uninterrupted(after: Sequence[Timing], before: Sequence[Timing], percent: float) -> tuple[float, float]:
    """The logarithmic ratio by what other programs do not change, and how far from that a measured one may be."""
    sides = [[times for t in side if (times := t.uninterrupted_ms) is not None] for side in (after, before)]
    if all(len(side) == len(after) for side in sides):
        levels, far = [float(np.percentile(np.concatenate(side), percent)) for side in sides], DISTURBED
    else:
        levels, far = [min(t.undisturbed_ms for t in side) for side in (after, before)], UNLIKELY
    return math.log(levels[0] / levels[1]), far


@lru_cache(maxsize=_REMEMBERED)
def _within(after: Timing, before: Timing | None, percent: float) -> float:
    """The standard error of one call's log ratio, from how its rounds scatter (of a median, robustly)."""
    rows = [np.log(np.percentile(t.by_round_ms, percent, axis=1)) for t in (after, before) if t is not None]
    count = min(len(row) for row in rows)
    scatter = rows[0][:count] - rows[1][:count] if before is not None else rows[0]
    deviation = 1.4826 * float(np.median(np.abs(scatter - np.median(scatter))))
    return 1.2533 * deviation / math.sqrt(len(scatter))


def pooled(timings: Sequence[Timing]) -> Timing:
    """All runs of several measurements of one model as one."""
    first = timings[0]
    if len(timings) == 1:
        return first
    samples = np.concatenate([t.samples_ms for t in timings])
    return Timing(samples, f"{first.regime}; {len(timings)} such measurements together")
