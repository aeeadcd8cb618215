"""What latency to expect of a choice of widths, from the latency model and from what was measured of other choices.

Every choice is off the latency model by several per cent in ways of its own, and choices that differ little share most
of that. So the model's error at a choice is drawn from those of the measured ones, by how much of the time the two
choices have in common: ordinary kriging of the logarithmic errors. With one measured choice that is one factor.

Source: Matheron, "Principles of geostatistics", Economic Geology 58 (1963).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from halpc.evidence import FINE, Trial, best_sure
from halpc.ir.cost import CostModel

SPREAD: Final = 0.04  # how far choices are off the latency model, each in its own way
REACH: Final = 0.3  # the share of the time that has changed over which errors are forgotten (to 1/e)
DEVIATIONS: Final = 1.96  # of a normal distribution, in half an interval at 95 %
ALIKE: Final = 0.85  # of the variance of how far choices of one round are off is common to all of them
USUAL, PRIOR = 0.015, 2  # how far choices are off what was expected of them, and how many trials that is worth
_TINY: Final = 1e-9  # ms
_NODES: Final = 15  # of quadrature over what choices are off by together
NOTHING: Final = 0.8  # share of the limit that a choice is taken to use where none is sure to meet it; the lowest aim


class Expectation:
    """Latency over limit to expect at widths, from the measured choices."""

    def __init__(self, cost: CostModel, trials: Sequence[Trial]) -> None:
        """What is the same for all widths.

        Args:
            cost: the latency model; a factor on all of it changes nothing.
            trials: at least one.
        """
        known = [trial.selection.widths for trial in trials]
        self._cost = cost
        self._parts = np.array([cost.parts(widths) for widths in known])
        self._errors = np.log([t.evidence.share / cost.at(widths) for t, widths in zip(trials, known, strict=True)])
        noise = [min(trial.evidence.noise, 1.0) / DEVIATIONS / SPREAD for trial in trials]
        self._system = np.ones((len(trials) + 1, len(trials) + 1))
        self._system[:-1, :-1] = [self._like(parts) for parts in self._parts] + np.diag(np.square(noise) + 1e-9)
        self._system[-1, -1] = 0.0

    def at(self, widths: Mapping[str, int]) -> float:
        """The share of the limit to expect at `widths`."""
        like = self._like(self._cost.parts(widths))
        weights = np.linalg.solve(self._system, np.append(like, 1.0))[:-1]
        return self._cost.at(widths) * math.exp(float(weights @ self._errors))

    def _like(self, parts: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64[trials]: how much of its error a choice with these parts shares with each measured one."""
        total = np.maximum(self._parts.sum(axis=1), _TINY)
        apart = np.abs(self._parts - parts).sum(axis=1) / np.minimum(total, max(float(parts.sum()), _TINY))
        return np.asarray(np.exp(-apart / REACH))


@dataclass(frozen=True, slots=True)
class Outlook:
    """How sure what is expected of the next choices is.

    Attributes:
        off: how far they will be off it, a standard deviation of logarithms.
        half: half the interval that will be left of them when they are measured, likewise.
    """

    off: float
    half: float

    def chances(self, shares: Any, common: Any = 0.0, alike: float = 0.0) -> NDArray[np.float64]:
        """How likely choices expected at `shares` of the limit turn out to be surely within it.

        Args:
            common: what all choices of a round are off by together, in standard deviations.
            alike: the share of the variance that is of that kind.
        """
        known = self.off * math.sqrt(alike) * np.asarray(common)
        unknown = math.hypot(self.off * math.sqrt(1 - alike), self.half / DEVIATIONS)
        return np.asarray(norm.cdf((-self.half - np.log(shares) - known) / unknown))


def outlook(trials: Sequence[Trial], calls: int) -> Outlook:
    """From the trials so far.

    Args:
        trials: at least one; those of the first round were predicted by the latency model alone and say nothing of
            expectations.
        calls: that the next choices may be measured for.
    """
    left = [t.evidence.noise * math.sqrt(min(t.evidence.calls / calls, 1.0)) for t in trials]
    missed = [math.log(t.evidence.share / t.predicted) for t in trials if t.round > 1]
    off = math.sqrt((PRIOR * USUAL**2 + sum(each**2 for each in missed)) / (PRIOR + len(missed)))
    return Outlook(off, max(FINE, min(float(np.median(left)), 0.1)))


def best_aims(trials: Sequence[Trial], most: float, calls: int, count: int) -> list[float]:
    """The shares of the limit to select for next, so that the best that surely meets it gains most on average.

    A choice will be off what is expected of it, its measurement is noisy, and its whole interval has to lie within the
    limit: aiming high often gains nothing, aiming low little. The gain is over the choice worth most that surely met
    it. Each aim after the first is that which adds most to what those before it gain; since choices of one round are
    off together, most of the time, it is another one.

    Args:
        trials: at least one.
        most: the highest aim.
        calls: that the next choices may be measured for.
        count: of aims, at most: none is there where all of the limit is used.

    Source: Jones, Schonlau and Welch, "Efficient global optimization of expensive black-box functions", Journal of
    Global Optimization 13 (1998): expected improvement. Chevalier and Ginsbourger, "Fast computation of the
    multi-points expected improvement", LION 7 (2013): of several points at once.
    """
    kept = best_sure(trials)
    best = NOTHING if kept is None else kept.evidence.share
    aims = np.linspace(NOTHING, most, 200)
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    sure = outlook(trials, calls).chances(aims, nodes[:, None], ALIKE)
    found: list[float] = []
    held: list[tuple[float, Any]] = [(0.0, weights / weights.sum())]  # gains so far, and how likely at every node
    for _ in range(count):
        more = sum((likely @ sure) * np.maximum(aims - best - gain, 0.0) for gain, likely in held)
        chosen = int(np.argmax(more))
        if more[chosen] <= 0:
            break
        found.append(float(aims[chosen]))
        held = [
            (max(gain, other), likely * chance)
            for gain, likely in held
            for other, chance in ((found[-1] - best, sure[:, chosen]), (0.0, 1 - sure[:, chosen]))
        ]
    return found
