"""Models compared on one device: measured interleaved, with confidence intervals.

Rounds, not runs, are resampled: a noisy moment covers many runs in a row, and models of one round share it.
So the interval of a ratio comes from pairs of rounds, and stays honest on a busy machine.

Source: Efron, "Bootstrap methods: another look at the jackknife", 1979 (percentile intervals).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from halpc.ir.latency import Comparison, Contender, Timing
from halpc.ir.profiler import Feeds, Model, Profiler

log = logging.getLogger(__name__)

_RESAMPLES: Final = 2000


def bench(
    profiler: Profiler,
    models: Mapping[str, Model],
    *,
    seconds: float = 5.0,
    feeds: Feeds | None = None,
    percent: float = 50.0,
    confidence: float = 0.95,
) -> Comparison:
    """Measure `models` by name, the first of which is the baseline.

    Args:
        profiler: what measures them.
        models: name → model.
        seconds: measuring time for all of them together.
        feeds: inputs for all of them; random where absent.
        percent: the percentile to report, 50 being the median.
        confidence: of the intervals.
    """
    timings = profiler.compare(list(models.values()), seconds=seconds, feeds=feeds)
    comparison = Comparison(profiler.device, percent, confidence, judge(list(models), timings, percent, confidence))
    if not comparison.quiet:
        worst = max(timing.spread for timing in timings)
        log.warning("the machine is not quiet: rounds differ by %.0f %%; close what else is running", worst * 100)
    return comparison


def judge(
    names: list[str], timings: list[Timing], percent: float = 50.0, confidence: float = 0.95, seed: int = 0
) -> tuple[Contender, ...]:
    """What interleaved timings say: percentile, speedup over the first, and the intervals of both."""
    rounds = min(len(timing.by_round_ms) for timing in timings)
    rows = [np.percentile(timing.by_round_ms[:rounds], percent, axis=1) for timing in timings]
    draws = np.random.default_rng(seed).integers(0, rounds, (_RESAMPLES, rounds))
    levels = [np.median(row[draws], axis=1) for row in rows]
    latency = [timing.percentile_ms(percent) for timing in timings]
    return tuple(
        Contender(
            name,
            timing,
            latency[i],
            _interval(levels[i] * latency[i] / np.median(rows[i]), confidence),
            latency[0] / latency[i],
            _interval(levels[0] / levels[i] * _shift(latency, rows, i), confidence) if i else (1.0, 1.0),
        )
        for i, (name, timing) in enumerate(zip(names, timings, strict=True))
    )


def _shift(latency: list[float], rows: list[NDArray[np.float64]], i: int) -> float:
    """Centres the resampled ratio of rounds on the ratio of all runs."""
    return float(latency[0] / latency[i] / (np.median(rows[0]) / np.median(rows[i])))


def _interval(samples: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) * 50
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)
