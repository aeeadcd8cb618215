"""What latency to expect of a choice, from the measured ones: laws of the kriging, on models with known errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from halpc.evidence import Evidence, Trial
from halpc.expectation import ALIKE, Expectation, best_aims
from halpc.ir.cost import CostModel, Proportional
from halpc.ir.dims import Leaf
from halpc.ir.problem import Charge, Selection

GROUPS = [f"g{i}" for i in range(6)]
FULL = dict.fromkeys(GROUPS, 64)


def model(scale: float = 1.0, more: float = 0.0) -> CostModel:
    """A chain: each charge is shared by two neighbours."""
    leaf = {name: Leaf(name, 64) for name in GROUPS}
    charges = tuple(
        Charge(f"c{i}", (leaf[a], leaf[b]), Proportional(1e-3)) for i, (a, b) in enumerate(pairwise(GROUPS))
    )
    return CostModel("latency", "ms", 0.5, charges, scale=scale, knee=4.0, more=more)


def trial(widths: Mapping[str, int], share: float, noise: float = 0.001, predicted: float = 1.0) -> Trial:
    chosen = Selection(widths, share, {}, math.inf, {}, "", (), "joint", 0.0)
    low, high = share * math.exp(-noise), share * math.exp(noise)
    return Trial(chosen, (), Evidence(2.0, share, 1.0, share, low, high, 0), predicted)


def expected(cost: CostModel, trials: Sequence[Trial], widths: Mapping[str, int]) -> float:
    return Expectation(cost, trials).at(widths)


def narrowed(**widths: int) -> dict[str, int]:
    return {**FULL, **widths}


@pytest.mark.parametrize("noise", [0.0, 0.01, math.inf])
def test_one_measured_choice_is_one_factor_on_the_model(noise: float) -> None:
    cost, there = model(more=0.2), narrowed(g2=32, g4=16)
    assert expected(cost, [trial(FULL, 1.3, noise)], there) == pytest.approx(1.3 * cost.at(there) / cost.at(FULL))


def test_at_a_choice_measured_without_noise_it_is_what_was_measured() -> None:
    tried = [trial(FULL, 1.2, 0.0), trial(narrowed(g1=40), 1.01, 0.0), trial(narrowed(g4=8), 0.95, 0.0)]
    for known in tried:
        assert expected(model(), tried, known.selection.widths) == pytest.approx(known.evidence.share, rel=1e-6)


def test_neither_a_factor_on_the_model_nor_the_order_matters() -> None:
    tried = [trial(FULL, 1.2), trial(narrowed(g1=40), 1.01, 0.02), trial(narrowed(g4=8), 0.95)]
    there = narrowed(g1=32, g3=56)
    first = expected(model(), tried, there)
    assert expected(model(scale=7.0), tried, there) == pytest.approx(first)
    assert expected(model(), tried[::-1], there) == pytest.approx(first)


def error(cost: CostModel, tried: list[Trial], widths: Mapping[str, int]) -> float:
    return math.log(expected(cost, tried, widths) / cost.at(widths))


def test_the_error_is_most_like_that_of_the_choice_with_most_time_in_common() -> None:
    cost, one, other = model(), narrowed(g0=8), narrowed(g5=8)
    tried = [trial(one, 1.10 * cost.at(one)), trial(other, 0.95 * cost.at(other))]
    near_one, near_other = (error(cost, tried, w) for w in (narrowed(g0=12), narrowed(g5=12)))
    assert math.log(0.95) < near_other < error(cost, tried, FULL) < near_one < math.log(1.10)


def test_what_was_measured_poorly_counts_for_less() -> None:
    cost, one, other = model(), narrowed(g0=8), narrowed(g5=8)

    def between(noise: float) -> float:
        return error(cost, [trial(one, 1.1 * cost.at(one)), trial(other, 0.9 * cost.at(other), noise)], FULL)

    assert between(0.001) < between(0.05) < between(0.5) < math.log(1.1)


def test_choices_that_the_model_cannot_tell_apart_are_averaged() -> None:
    cost = CostModel("latency", "ms", 1.0, (Charge("c", (Leaf("g0", 64),), Proportional(0.0)),))
    tried = [trial({"g0": 8}, 1.02), trial({"g0": 16}, 0.98)]
    assert expected(cost, tried, {"g0": 32}) == pytest.approx(math.sqrt(1.02 * 0.98))


def test_it_errs_less_than_the_last_measurement_alone() -> None:
    """Every kernel's width is off by luck of its own; the choices are a walk of small changes."""
    ours, last = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        cost, luck = model(), rng.standard_normal((5, 65, 65))

        def truth(w: Mapping[str, int], cost: CostModel = cost, luck: np.ndarray = luck) -> float:
            off = [0.0, *(0.08 * luck[i, w[a], w[b]] for i, (a, b) in enumerate(pairwise(GROUPS)))]
            return float(cost.parts(w) @ (1 + np.array(off)))

        walk = [FULL]
        for _ in range(5):
            walk.append({**walk[-1], str(rng.choice(GROUPS)): int(rng.integers(16, 65))})
        tried, there = [trial(w, truth(w)) for w in walk[:-1]], {**walk[1], "g3": 48}
        ours.append(math.log(expected(cost, tried, there) / truth(there)))
        last.append(math.log(expected(cost, tried[-1:], there) / truth(there)))
    assert np.std(ours) < 0.8 * np.std(last)


CALLS = 40


def best_aim(trials: Sequence[Trial]) -> float:
    return best_aims(trials, 0.99, CALLS, 1)[0]


def later(share: float, predicted: float, noise: float = 0.001) -> Trial:
    """Of a round that expectations were there for."""
    return replace(trial(FULL, share, noise, predicted), round=2)


def test_the_aim_is_above_what_surely_met_the_limit_and_lower_the_less_is_known() -> None:
    missed = trial(FULL, 1.05)
    quiet = best_aim([missed])
    assert quiet < 0.99
    assert best_aim([trial(FULL, 1.05, 0.03)]) <= quiet
    assert best_aim([missed, later(1.04, 0.98)]) < quiet
    assert best_aim([missed, later(0.98, 0.98)]) > quiet  # expectations hold
    for share in (0.9, 0.95, 0.97):
        assert best_aim([missed, later(share, share)]) > share


def test_aims_of_one_round_lie_apart() -> None:
    """What would be off together would all miss, or leave as much unused."""
    aims = best_aims([trial(FULL, 1.05), later(1.03, 0.98)], 0.99, CALLS, 3)
    assert np.ptp(aims) > 0.02
    assert all(abs(a - b) > 0.005 for a, b in itertools.combinations(aims, 2))


def test_how_far_off_the_latency_model_was_says_nothing_of_expectations() -> None:
    assert best_aim([trial(FULL, 1.05), trial(FULL, 1.02, predicted=0.8)]) == best_aim([trial(FULL, 1.05)])


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("best", [None, 0.9, 0.96])
def test_no_other_aims_gain_more_on_average(best: float | None, count: int) -> None:
    """Against draws: what the choices take, what is measured of them, and whether all of the interval is within."""
    noise, pairs = 0.01, ((1.0, 1.0), (1.03, 0.98), (1.05, 0.97))
    tried = [later(s * (best or 1.02), p, noise) for s, p in pairs]
    tried[0] = replace(tried[0], round=1)
    misses = [math.log(t.evidence.share / t.predicted) for t in tried[1:]]
    off = math.sqrt((2 * 0.015**2 + sum(m * m for m in misses)) / (2 + len(misses)))
    held = max((t.evidence.share for t in tried if t.evidence.sure), default=0.8)
    rng = np.random.default_rng(0)
    together, alone = rng.normal(0, off * math.sqrt(ALIKE), 100_000), off * math.sqrt(1 - ALIKE)
    miss = together + rng.normal(0, alone, (count, 100_000)) + rng.normal(0, noise / 1.96, (count, 100_000))

    def gain(aims: Sequence[float]) -> float:
        each = np.array(aims)[:, None]
        met = each * np.exp(miss) * math.exp(noise) <= 1
        return float(np.max(met * np.maximum(each - held, 0), axis=0).mean())

    full = [replace(t, evidence=replace(t.evidence, calls=CALLS)) for t in tried]  # measured for as long as may be
    found = best_aims(full, 0.99, CALLS, count)
    grid = np.linspace(max(held, 0.8), 0.99, 48 if count == 1 else 16 if count == 2 else 10)
    assert len(found) == count
    least = 0.97 if count == 1 else 0.95  # one aim after the other is not quite the best of all
    assert gain(found) >= least * max(gain(aims) for aims in itertools.combinations_with_replacement(grid, count))
