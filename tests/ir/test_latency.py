"""Devices and timings."""

from __future__ import annotations

import numpy as np
import pytest

from halpc.errors import TableError
from halpc.ir.latency import Device, Timing

DEVICE = Device("cpu", "Some CPU", "onnxruntime", "1.31", "cpu", details={"b": "2", "a": "1"})


def test_a_device_survives_json() -> None:
    again = Device.from_json(DEVICE.as_json())
    assert again == DEVICE
    assert again.key == DEVICE.key
    assert DEVICE.differences(again) == []


@pytest.mark.parametrize("change", [{"kind": 3}, {"threads": "two"}, {"details": []}, {"extra": "x"}])
def test_a_damaged_device_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(TableError):
        Device.from_json({**DEVICE.as_json(), **change})
    with pytest.raises(TableError):
        Device.from_json("cpu")


def test_spread_is_that_of_rounds_not_of_runs() -> None:
    rounds = np.array([[1.0, 9.0, 1.0], [1.0, 1.0, 7.0], [8.0, 1.0, 1.0]])
    assert Timing(rounds.reshape(-1), "", rounds=3).spread == 0.0
    assert Timing(rounds.reshape(-1), "", rounds=3).quiet
    assert not Timing(np.array([1.0, 1.0, 2.0, 2.0]), "").quiet


def test_a_processor_clock_too_coarse_for_a_run_says_nothing_of_it() -> None:
    """At ticks of 1 ms the processor times of runs that take less are 0 or a whole tick."""
    walls = np.array([0.5, 0.4, 0.45])
    assert Timing(walls, "", busy_ms=np.zeros(3)).undisturbed_ms == 0.4
    assert Timing(walls, "", busy_ms=np.array([0.0, 1.0, 0.0])).undisturbed_ms == 0.4
    assert Timing(walls, "", busy_ms=np.array([0.38, 0.39, 0.4])).undisturbed_ms == 0.38
    assert Timing(walls, "").undisturbed_ms == 0.4


def test_a_typical_run_is_the_median_less_what_others_took_of_it() -> None:
    walls = np.array([0.4, 0.5, 9.0, 0.45, 0.55])
    assert Timing(walls, "").typical_ms == 0.5
    assert Timing(walls, "", busy_ms=np.array([0.4, 0.48, 0.42, 0.45, 0.55])).typical_ms == 0.45
    assert Timing(walls, "", busy_ms=np.zeros(5)).typical_ms == 0.5


def test_percentiles_are_of_all_runs() -> None:
    timing = Timing(np.arange(1.0, 101.0), "", rounds=10)
    assert timing.min_ms == 1.0
    assert timing.median_ms == timing.percentile_ms(50) == 50.5
    assert timing.percentile_ms(100) == 100.0
    assert timing.by_round_ms.shape == (10, 10)
