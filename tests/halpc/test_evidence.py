"""What calls say of models that are measured beside each other: on noise of known kinds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from halpc.evidence import Call, weigh
from halpc.ir.latency import Timing
from halpc.units import parse_budget

HALF = parse_budget("latency", "50%")


def runs(ms: float) -> Timing:
    """Ten runs that differ by nothing worth mentioning."""
    return Timing(ms * (1 + 1e-4 * np.arange(10)), "", 10)


def calls(seed: int, wander: float, own: float, earlier: int = 20, later: int = 6) -> list[Call]:
    """A baseline of 2 ms; a choice of 1 ms in all calls, one of 0.97 ms in the later ones.

    Args:
        wander: by how much the two wander against the baseline together, as a share, call by call.
        own: and each on its own.
    """
    rng = np.random.default_rng(seed)
    found = []
    for k in range(earlier + later):
        together = wander * rng.standard_normal()
        one, other = (ms * math.exp(together + own * rng.standard_normal()) for ms in (1.0, 0.97))
        found.append(Call(runs(2.0), {"one": runs(one), **({"other": runs(other)} if k >= earlier else {})}))
    return found


def test_choices_that_wander_together_are_known_by_their_ratio() -> None:
    errors, alone, noise = [], [], []
    for seed in range(40):
        measured = calls(seed, wander=0.05, own=0.002)
        found = weigh(measured, HALF, 50.0)
        apart = weigh([Call(c.baseline, {"other": c.models["other"]}) for c in measured[20:]], HALF, 50.0)["other"]
        assert found["other"].share / found["one"].share == pytest.approx(0.97, abs=0.006)
        errors.append(math.log(found["other"].share / 0.97))
        alone.append(math.log(apart.share / 0.97))
        noise.append(found["other"].noise / apart.noise)
    assert np.std(errors) < 0.7 * np.std(alone)
    assert np.median(noise) < 0.6


def test_a_choice_that_wanders_on_its_own_is_known_by_its_ratio_to_the_baseline() -> None:
    rng = np.random.default_rng(0)
    measured = [
        Call(runs(2.0), {"one": runs(math.exp(0.2 * rng.standard_normal())), "other": runs(0.97)}) for _ in range(8)
    ]
    found = weigh(measured, HALF, 50.0)
    assert found["other"].share == pytest.approx(0.97, abs=1e-3)
    assert found["other"].noise < 0.01 < found["one"].noise


@pytest.mark.parametrize("wander, own", [(0.05, 0.002), (0.02, 0.02), (0.0, 0.03)])
def test_intervals_hold_what_is_true_as_often_as_they_say(wander: float, own: float) -> None:
    inside = []
    for seed in range(300):
        found = weigh(calls(seed, wander, own), HALF, 50.0)["other"]
        inside.append(found.low <= 0.97 <= found.high)
    assert np.mean(inside) >= 0.92


def test_a_budget_in_ms_asks_nothing_of_the_baseline() -> None:
    rng = np.random.default_rng(0)
    measured = [Call(runs(2.0 * math.exp(0.3 * rng.standard_normal())), {"one": runs(0.97)}) for _ in range(8)]
    found = weigh(measured, parse_budget("latency", "1ms"), 50.0)["one"]
    assert found.limit_ms == 1.0
    assert found.share == pytest.approx(0.97, abs=1e-3)
    assert found.sure


def test_after_a_single_call_nothing_is_sure() -> None:
    found = weigh([Call(runs(2.0), {"one": runs(0.1), "other": runs(0.1)})], HALF, 50.0)
    assert not any(evidence.sure for evidence in found.values())
    assert all(math.isinf(evidence.high) for evidence in found.values())
