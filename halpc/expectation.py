"""What latency to expect of a choice of widths, from the latency model and from what was measured of other choices.

Every choice is off the latency model by several per cent in ways of its own, and choices that differ little share most
of that. So the model's error at a choice is drawn from those of the measured ones, by how much of the time the two
choices have in common: ordinary kriging of the logarithmic errors. With one measured choice that is one factor.

Source: Matheron, "Principles of geostatistics", Economic Geology 58 (1963).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from scipy.stats import norm

from halpc.evidence import FINE, Trial
from halpc.ir.cost import CostModel

SPREAD: Final = 0.04  # how far choices are off the latency model, each in its own way
REACH: Final = 0.3  # the share of the time that has changed over which errors are forgotten (to 1/e)
DEVIATIONS: Final = 1.96  # of a normal distribution, in half an interval at 95 %
USUAL, PRIOR = 0.015, 2  # how far choices are off what was expected of them, and how many trials that is worth
_TINY: Final = 1e-9  # ms
NOTHING: Final = 0.8  # share of the limit that a choice is taken to use where none is sure to meet it; the lowest aim


def expected(cost: CostModel, trials: Sequence[Trial], widths: Mapping[str, int]) -> float:
    """Latency over limit to expect at `widths`.

    Args:
        cost: the latency model; a factor on all of it changes nothing.
        trials: at least one.
    """
    known = [trial.selection.widths for trial in trials]
    errors = np.log([trial.evidence.share / cost.at(w) for trial, w in zip(trials, known, strict=True)])
    parts = np.array([cost.parts(w) for w in [*known, widths]])
    total = np.maximum(parts.sum(axis=1), _TINY)
    apart = np.abs(parts[:, None, :] - parts[None, :, :]).sum(axis=2) / np.minimum(total[:, None], total[None, :])
    like = np.exp(-apart / REACH)
    noise = [min(trial.evidence.noise, 1.0) / DEVIATIONS / SPREAD for trial in trials]
    count = len(trials)
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = like[:count, :count] + np.diag(np.square(noise) + 1e-9)
    system[count, count] = 0.0
    weights = np.linalg.solve(system, np.append(like[:count, count], 1.0))[:count]
    return cost.at(widths) * math.exp(float(weights @ errors))


def best_aims(trials: Sequence[Trial], most: float, calls: int, count: int) -> list[float]:
    """The shares of the limit to select for next, so that the best that surely meets it gains most on average.

    A choice will be off what is expected of it, its measurement is noisy, and its whole interval has to lie within the
    limit: aiming high often gains nothing, aiming low little. The gain is over the choice worth most that surely met
    it. Each aim after the first is that which adds most to what those before it gain.

    Args:
        trials: at least one; those of the first round were predicted by the latency model alone and say nothing of
            expectations.
        most: the highest aim.
        calls: that the next choices may be measured for.
        count: of aims, at most: none is there where all of the limit is used.

    Source: Jones, Schonlau and Welch, "Efficient global optimization of expensive black-box functions", Journal of
    Global Optimization 13 (1998): expected improvement. Chevalier and Ginsbourger, "Fast computation of the
    multi-points expected improvement", LION 7 (2013): of several points at once.
    """
    left = [t.evidence.noise * math.sqrt(min(t.evidence.calls / calls, 1.0)) for t in trials]
    half = max(FINE, min(float(np.median(left)), 0.1))
    missed = [math.log(t.evidence.share / t.predicted) for t in trials if t.round > 1]
    off = math.sqrt((PRIOR * USUAL**2 + sum(each**2 for each in missed)) / (PRIOR + len(missed)))
    kept = max((t for t in trials if t.evidence.sure), key=lambda t: t.selection.value, default=None)
    best = NOTHING if kept is None else kept.evidence.share
    aims = np.linspace(NOTHING, most, 200)
    sure = norm.cdf((-half - np.log(aims)) / math.hypot(off, half / DEVIATIONS))
    found: list[float] = []
    gains = {0.0: 1.0}  # gain of the aims so far → its probability, each aim being as lucky as the others
    for _ in range(count):
        more = sure * sum(chance * np.maximum(aims - best - gain, 0.0) for gain, chance in gains.items())
        chosen = int(np.argmax(more))
        if more[chosen] <= 0:
            break
        found.append(float(aims[chosen]))
        gains = _at_least(gains, found[-1] - best, float(sure[chosen]))
    return found


def _at_least(gains: Mapping[float, float], gain: float, chance: float) -> dict[float, float]:
    """The distribution of the larger of two gains, the second of which there is with `chance`."""
    found: dict[float, float] = {}
    for other, likely in gains.items():
        for value, share in ((max(other, gain), chance), (other, 1 - chance)):
            found[value] = found.get(value, 0.0) + likely * share
    return found
