"""Models that take turns, so that a noisy moment, or a machine that slows down, falls on all of them alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

Timed: TypeAlias = Callable[[], tuple[float, float]]
"""Runs a model once: wall time and processor time of the calling thread, in seconds."""

_BURST_S = 10e-3
_BURST_RUNS = 40
_WARM_S, _WARM_RUNS = 3e-3, 3
_LONG_S = 0.1
_LEAST_ROUNDS = 7


def take_turns(models: Sequence[Timed], seconds: float) -> tuple[list[list[tuple[float, float]]], int]:
    """Every run's times per model, and how many rounds they came in, equally many runs each.

    In every round each model runs a burst of at least 10 ms. Its first runs, up to three in 3 ms, find the caches full
    of other models, more so the more others there are, and are not counted (nor is one run's worth of a longer model,
    unless it is so long that it does not matter). The order turns by one each round.

    Args:
        models: run once each before, so that nothing is set up any more.
        seconds: for all of them together.
    """
    bursts = [burst(_estimate(model)) for model in models]
    samples: list[list[tuple[float, float]]] = [[] for _ in models]
    deadline = time.perf_counter() + seconds
    rounds = 0
    while rounds < _LEAST_ROUNDS or time.perf_counter() < deadline:
        for i in ((rounds + k) % len(models) for k in range(len(models))):
            runs, dropped = bursts[i]
            samples[i] += [models[i]() for _ in range(runs)][dropped:]
        rounds += 1
    return samples, rounds


def _estimate(model: Timed) -> float:
    """About how long a run takes, in seconds: the shorter of two, or of three where those are short."""
    twice = min(model()[0], model()[0])
    return twice if twice > _BURST_S else min(twice, model()[0])


def burst(estimate_s: float) -> tuple[int, int]:
    """Runs in a row, and how many of them are not counted."""
    if estimate_s > _LONG_S:
        return 1, 0
    shortest = max(estimate_s, 1e-7)
    dropped = min(_WARM_RUNS, math.ceil(_WARM_S / shortest))
    return min(_BURST_RUNS, math.ceil(_BURST_S / shortest)) + dropped, dropped
