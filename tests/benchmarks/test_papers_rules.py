"""The rules that the solvers are compared with are brought to the budget, and the peer's choice is read rightly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.instances import resnet50
from benchmarks.papers import peer
from benchmarks.papers.points import Store
from benchmarks.papers.rules import global_threshold, proportional, random_shares, uniform
from halpc.errors import InfeasibleError, PlanError


@pytest.fixture(scope="module")
def problem():
    return resnet50().problem(1000, 0.5)


@pytest.mark.parametrize("rule", [uniform, global_threshold])
def test_a_rule_comes_close_to_the_budget_and_stays_within_it(problem, rule):
    found = rule(problem)
    assert problem.feasible(found.widths)
    resource = problem.resources[0]
    full = resource.spent({c.name: int(c.widths[-1]) for c in problem.choices})
    assert resource.spent(found.widths) > resource.limit - 0.04 * full
    assert found.value == problem.value(found.widths)


@pytest.mark.parametrize("rule", [uniform, global_threshold])
def test_a_rule_removes_no_group_whole(problem, rule):
    gone = tuple(replace(c, widths=np.array([0]), value=np.zeros(1)) for c in problem.choices)
    with pytest.raises(InfeasibleError, match="leaves every group some channels"):
        rule(replace(problem, choices=gone))


def test_uniform_shares_differ_by_at_most_one_width_beside_the_share(problem):
    widths = uniform(problem).widths
    places = {c.name: int(np.searchsorted(c.widths, widths[c.name])) for c in problem.choices}
    wide = [c for c in problem.choices if len(c.widths) > 20]
    shares = [widths[c.name] / c.widths[-1] for c in wide]
    notch = max(float(np.diff(c.widths).max() / c.widths[-1]) for c in wide)
    assert max(shares) - min(shares) <= 2 * notch
    assert all(place >= 0 for place in places.values())


def test_random_plans_meet_the_budget_in_their_proportions(problem):
    plans = [proportional(problem, random_shares(problem, seed)) for seed in (0, 1)]
    assert all(problem.feasible(plan) for plan in plans)
    assert plans[0] != plans[1]


def _model(arrays):
    nodes = [onnx.helper.make_node("Conv", ["x", "w", "b"], ["h"]), onnx.helper.make_node("Conv", ["h", "v"], ["y"])]
    tensor = onnx.helper.make_tensor_value_info
    ends = [tensor(name, onnx.TensorProto.FLOAT, None) for name in ("x", "y")]
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], weights))


def _arrays():
    rng = np.random.default_rng(0)
    shapes = {"w": (8, 3, 1, 1), "b": (8,), "v": (6, 8, 1, 1)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_what_a_peer_kept_is_read_off_the_numbers():
    old, rows, outputs = _arrays(), np.array([0, 3, 4, 7]), np.array([1, 2, 5])
    new = {"w": old["w"][rows], "b": old["b"][rows], "v": old["v"][outputs][:, rows]}
    keep = peer.kept(_model(old), _model(new))
    assert {name: {a: k.tolist() for a, k in axes.items()} for name, axes in keep.items()} == {
        "w": {0: rows.tolist()},
        "b": {0: rows.tolist()},
        "v": {0: outputs.tolist(), 1: rows.tolist()},
    }


def test_numbers_that_were_not_there_are_refused():
    old = _arrays()
    with pytest.raises(PlanError, match="axis 0 is in the result but not in the original"):
        peer.kept(_model(old), _model(old | {"b": old["b"][:4] + 1}))


def test_a_point_is_made_once(tmp_path):
    store = Store(tmp_path / "rows.jsonl")
    row = {"network": "n", "score": "s", "method": "halp-30/16", "budget": "2x"}
    assert not store.has(row)
    store.add(row | {"latency_ms": 1.0})
    assert Store(tmp_path / "rows.jsonl").has(row)
    assert not store.has(row | {"budget": "4x"})
