"""Cost models: scaled, bent at a knee, and as a resource that limits."""

from __future__ import annotations

import numpy as np
import pytest

from halpc.ir.cost import CostModel, Proportional
from halpc.ir.dims import Leaf
from halpc.ir.problem import Charge
from halpc.ir.response import AS_GIVEN, Response

CHARGE = Charge("a", (Leaf("a", 64),), lambda w: 0.5 * np.asarray(w, dtype=np.float64))


@pytest.mark.parametrize(("knee", "more"), [(0.0, 0.0), (10.0, 0.4), (10.0, -0.3), (18.0, 0.4), (50.0, 0.4)])
@pytest.mark.parametrize("scale", [0.7, 1.0])
@pytest.mark.parametrize(
    "response", [AS_GIVEN, Response((5.0, 12.0, 20.0), (5.5, 15.0, 21.0)), Response((1.0,), (1.2,))]
)
def test_a_resource_admits_what_the_model_says_is_within_the_limit(
    knee: float, more: float, scale: float, response: Response
) -> None:
    cost = CostModel("latency", "ms", 2.0, (CHARGE,), {}, scale, knee, more, response)
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


@pytest.mark.parametrize("cost", [0.0, 0.3, 1.0, 1.7, 2.0, 4.0, 400.0])
def test_a_response_and_its_inverse_undo_each_other_and_keep_the_order(cost: float) -> None:
    response = Response((1.0, 2.0, 4.0), (1.5, 1.6, 8.0))
    assert response.inverse(response.at(cost)) == pytest.approx(cost)
    assert response.at(cost) < response.at(cost + 0.01)


def test_a_response_has_the_ratio_of_its_ends_beyond_them() -> None:
    response = Response((1.0, 2.0), (1.5, 2.2))
    assert (response.at(0.5), response.at(20.0)) == (pytest.approx(0.75), pytest.approx(22.0))
    assert AS_GIVEN.at(3.0) == AS_GIVEN.inverse(3.0) == 3.0


def test_a_limit_at_a_cost_admits_it_but_for_rounding() -> None:
    """Whatever the response of the moment: what takes the limit is within it by a billionth of it."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        knots = np.cumsum(rng.uniform(0.1, 3.0, (2, 24)), axis=1)
        response = Response(tuple(knots[0].tolist()), tuple(knots[1].tolist()))
        cost = CostModel("latency", "ms", 2.0, (CHARGE,), {}, rng.uniform(0.5, 2), 10.0, 0.3, response)
        resource = cost.resource(cost.at({}))
        assert resource.spent({}) <= resource.limit * (1 + 1e-9)
