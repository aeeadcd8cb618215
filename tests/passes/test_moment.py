"""The machine's state of the moment: what changed by size is found, and one network's own luck is not taken for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halpc.ir.cost import CostModel, Proportional
from halpc.ir.dims import Leaf
from halpc.ir.problem import Charge
from halpc.ir.table import LatencyTable, NetworkSample
from passes.latency.moment import REFERENCES, at_the_moment, references
from passes.profile import for_now, profile
from tests.passes.kernel_models import CHAIN, prepared
from tests.passes.made_up_device import DEVICE, MadeUp, device_ms

COST = CostModel("latency", "ms", 0.1, (Charge("c", (Leaf("g", 1000),), Proportional(1e-2)),), scale=0.9)
CONTEXT = [NetworkSample("n", {"g": width}, COST.at({"g": width}), {}, 9) for width in range(20, 1001, 35)]
PLANS = np.linspace(20, 1000, 50).astype(int).tolist()


def crowded(ms: float) -> float:
    """Networks of 2 to 5 ms do not fit the caches any more."""
    return ms * (1.05 + 0.12 * float(np.exp(-((np.log(ms / 3)) ** 2) / 0.5)))


def known() -> list[NetworkSample]:
    return references(CONTEXT, 100)


def error(cost: CostModel) -> float:
    return max(abs(cost.at({"g": width}) / crowded(COST.at({"g": width})) - 1) for width in PLANS)


def test_what_changed_by_the_size_of_networks_is_found() -> None:
    now = [crowded(network.ms) for network in known()]
    scaled = COST.corrected({}, crowded(COST.at({})))
    found = at_the_moment(COST, known(), now)
    assert error(found) < 0.025
    assert error(scaled) > 3 * error(found)


def test_one_network_that_is_off_in_its_own_way_moves_little() -> None:
    now = [network.ms * (1.06 if i == 4 else 1.0) for i, network in enumerate(known())]
    found = at_the_moment(COST, known(), now)
    moved = [found.at({"g": width}) / COST.at({"g": width}) - 1 for width in PLANS]
    assert 0.005 < max(moved) < 0.05
    assert abs(moved[0]) < 0.01


@pytest.mark.parametrize("now", [[1.0], [3.0], [0.2]])
def test_a_single_network_tells_a_factor(now: list[float]) -> None:
    found = at_the_moment(COST, CONTEXT[10:11], now)
    factor = now[0] / CONTEXT[10].ms
    assert [found.at({"g": w}) for w in PLANS] == pytest.approx([factor * COST.at({"g": w}) for w in PLANS])


def test_the_order_of_networks_stays_whatever_is_measured() -> None:
    now = [network.ms * (2.0 if i % 2 else 0.5) for i, network in enumerate(known())]
    found = at_the_moment(COST, known(), now)
    assert (np.diff([found.at({"g": width}) for width in range(1, 1000)]) > 0).all()


def test_references_reach_from_the_fastest_to_the_slowest() -> None:
    found = known()
    assert 5 <= len(found) <= REFERENCES
    assert (found[0], found[-1]) == (CONTEXT[0], CONTEXT[-1])
    assert [network.ms for network in found] == sorted(network.ms for network in found)
    assert len(references(CONTEXT, 0)) == 1
    assert references(CONTEXT[:1], 8) == CONTEXT[:1]


@pytest.mark.parametrize("kind, most", [("cpu", REFERENCES + 1), ("cuda", 1)])
def test_on_a_gpu_no_engines_of_calibration_networks_are_built_again(tmp_path: Path, kind: str, most: int) -> None:
    model, coupling = prepared(CHAIN, tmp_path)
    device = MadeUp(device=replace(DEVICE, kind=kind))
    profiled = profile(model, coupling, LatencyTable(device.device), device, networks=10)
    device.asked.clear()
    cost = for_now(model, coupling, profiled, device, 50.0)
    assert len(device.asked) == 1
    assert 1 <= device.asked[0] <= most
    assert (device.asked[0] == 1) == (kind == "cuda")
    assert cost.at({}) == pytest.approx(device_ms((model, coupling), {}))


def test_what_a_table_says_that_networks_take_does_not_make_measuring_endless(tmp_path: Path) -> None:
    asked: list[float] = []

    class Asked(MadeUp):
        def compare(self, *models: Any, seconds: float = 2.0, **options: Any) -> Any:
            asked.append(seconds)
            return MadeUp.compare(self, *models, seconds=seconds, **options)

    model, coupling = prepared(CHAIN, tmp_path)
    profiled = profile(model, coupling, LatencyTable(DEVICE), MadeUp(), networks=10)
    absurd = replace(profiled, context=tuple(replace(network, ms=1e8) for network in profiled.context))
    for_now(model, coupling, absurd, Asked(), 50.0)
    assert 0 < asked[-1] <= 60
