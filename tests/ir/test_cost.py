"""Cost models: scaled, bent at a knee, and as a resource that limits."""

from __future__ import annotations

import numpy as np
import pytest

from halpc.ir.cost import CostModel, Proportional
from halpc.ir.dims import Leaf
from halpc.ir.problem import Charge

CHARGE = Charge("a", (Leaf("a", 64),), lambda w: 0.5 * np.asarray(w, dtype=np.float64))


@pytest.mark.parametrize(("knee", "more"), [(0.0, 0.0), (10.0, 0.4), (10.0, -0.3), (18.0, 0.4), (50.0, 0.4)])
@pytest.mark.parametrize("scale", [0.7, 1.0])
def test_a_resource_admits_what_the_model_says_is_within_the_limit(knee: float, more: float, scale: float) -> None:
    cost = CostModel("latency", "ms", 2.0, (CHARGE,), {}, scale, knee, more)
    limit = cost.at({"a": 32})
    resource = cost.resource(limit)
    assert resource.limit == limit
    assert resource.spent({"a": 32}) == pytest.approx(limit, rel=1e-12)
    assert resource.spent({"a": 31}) < limit < resource.spent({"a": 33})


def test_a_limit_without_end_is_one() -> None:
    cost = CostModel("latency", "ms", 2.0, (CHARGE,), {}, 1.3, 10.0, 0.2)
    resource = cost.resource(np.inf)
    assert resource.limit == np.inf
    assert resource.spent({}) == pytest.approx(cost.at({}), rel=1e-12)


def test_a_correction_is_exact_where_it_was_measured() -> None:
    cost = CostModel("latency", "ms", 2.0, (CHARGE,), {}, 1.3, 10.0, 0.2).corrected({"a": 8}, 9.0)
    assert cost.at({"a": 8}) == pytest.approx(9.0, rel=1e-12)


def test_a_cost_is_above_zero_where_the_sum_is_not() -> None:
    cost = CostModel("latency", "ms", -2.0, (CHARGE,), {}, 1.3, 10.0, 0.2)
    assert cost.at({"a": 0}) > 0


@pytest.mark.parametrize("more", [0.0, 0.3])
def test_a_model_through_two_measurements_predicts_both_and_keeps_the_order_between(more: float) -> None:
    charges = (Charge("a", (Leaf("g", 10),), Proportional(2.0)), Charge("b", (Leaf("h", 10),), Proportional(1.0)))
    before = CostModel("latency", "ms", 100.0, charges, scale=0.5, knee=115.0, more=more)
    after = before.through({}, 60.0, {"g": 2, "h": 1}, 12.0)
    assert after.at({}) == pytest.approx(60.0)
    assert after.at({"g": 2, "h": 1}) == pytest.approx(12.0)
    assert after.at({"g": 5, "h": 5}) < after.at({"g": 6, "h": 5}) < after.at({"g": 6, "h": 8})
