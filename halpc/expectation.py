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

from halpc.evidence import Trial
from halpc.ir.cost import CostModel

SPREAD: Final = 0.04  # how far choices are off the latency model, each in its own way
REACH: Final = 0.3  # the share of the time that has changed over which errors are forgotten (to 1/e)
DEVIATIONS: Final = 2.33  # of a normal distribution, in half an interval at 98 %


def expected(cost: CostModel, trials: Sequence[Trial], widths: Mapping[str, int]) -> float:
    """Latency over limit to expect at `widths`.

    Args:
        cost: the latency model; a factor on all of it changes nothing.
        trials: at least one.
    """
    known = [trial.selection.widths for trial in trials]
    errors = np.log([trial.evidence.share / cost.at(w) for trial, w in zip(trials, known, strict=True)])
    parts = np.array([cost.parts(w) for w in [*known, widths]])
    total = parts.sum(axis=1)
    apart = np.abs(parts[:, None, :] - parts[None, :, :]).sum(axis=2) / np.minimum(total[:, None], total[None, :])
    like = np.exp(-apart / REACH)
    noise = [min(trial.evidence.noise, 1.0) / DEVIATIONS / SPREAD for trial in trials]
    count = len(trials)
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = like[:count, :count] + np.diag(np.square(noise) + 1e-9)
    system[count, count] = 0.0
    weights = np.linalg.solve(system, np.append(like[:count, count], 1.0))[:count]
    return cost.at(widths) * math.exp(float(weights @ errors))
