"""A branch that vanishes takes along what it costs at any width."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from halpc.ir.cost import CostModel, Proportional
from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from halpc.ir.problem import Charge
from halpc.ir.table import NetworkSample
from passes.couple import couple
from passes.latency.clusters import Cluster, clusters_by_rule
from passes.latency.vanishing import with_vanishing
from passes.load import load
from passes.vanish import dead_without, vanishable
from tests.small import model, saved, weights

BRANCH = """
<ir_version: 9, opset_import: ["" : 17]>
net (float[1, 16, 8, 8] x) => (float[1, 16, 8, 8] y)
{
    a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 16> (x, w0)
    b = Conv <kernel_shape = [1, 1]> (a, w1, b1)
    c = Relu (b)
    d = Conv <kernel_shape = [1, 1]> (c, w2, b2)
    y = Add (d, x)
}
"""
SHAPES = {"w0": (16, 1, 3, 3), "w1": (32, 16, 1, 1), "b1": (32,), "w2": (16, 32, 1, 1), "b2": (16,)}
DEPTHWISE, EXPAND, PROJECT = "/net/a/Conv", "/net/b/Conv", "/net/d/Conv"


@pytest.fixture
def network(tmp_path: Path) -> tuple[Model, Coupling, tuple[Cluster, ...]]:
    loaded = load(saved(tmp_path, model(BRANCH, weights(SHAPES))))
    return loaded, couple(loaded.twin), clusters_by_rule(loaded.twin)


def cost_of(coupling: Coupling, name: str) -> CostModel:
    axis = next(dim for dim in coupling.axes.values() if getattr(dim, "name", "") == name)
    charges = (Charge(EXPAND, (axis,), Proportional(0.01)), Charge(PROJECT, (axis,), Proportional(0.02)))
    return CostModel("latency", "ms", 3.0, charges)


def sampled(name: str, width: int) -> NetworkSample:
    layers = {DEPTHWISE: 1.0, EXPAND: 0.01 * width + 0.3, PROJECT: 0.02 * width + 0.2}
    return NetworkSample("key", {name: width}, sum(layers.values()) + 1.5, layers, 10)


def test_without_channels_everything_that_only_the_branch_needs_is_gone(
    network: tuple[Model, Coupling, tuple[Cluster, ...]],
) -> None:
    loaded, coupling, _ = network
    (name,) = vanishable(loaded, coupling)
    assert dead_without(loaded.twin, coupling.groups[name]) == {DEPTHWISE, EXPAND, "/net/c/Relu", PROJECT}


def test_at_no_channels_the_constant_part_of_the_branch_is_not_charged(
    network: tuple[Model, Coupling, tuple[Cluster, ...]],
) -> None:
    loaded, coupling, clusters = network
    (name,) = vanishable(loaded, coupling)
    before = cost_of(coupling, name)
    samples = [sampled(name, width) for width in (8, 16, 32)]
    after = with_vanishing(before, loaded.twin, coupling, [name], clusters, samples)
    for width in (8, 24, 32):
        assert after.at({name: width}) == pytest.approx(before.at({name: width}))
    assert before.at({name: 0}) == pytest.approx(3.0)
    assert after.at({name: 0}) == pytest.approx(3.0 - 1.0 - 0.3 - 0.2)


def test_no_more_than_the_fixed_part_can_vanish(network: tuple[Model, Coupling, tuple[Cluster, ...]]) -> None:
    loaded, coupling, clusters = network
    (name,) = vanishable(loaded, coupling)
    before = replace(cost_of(coupling, name), fixed=0.5)
    after = with_vanishing(before, loaded.twin, coupling, [name], clusters, [sampled(name, 32)])
    assert after.at({name: 0}) == pytest.approx(0.05)
    assert after.at({name: 32}) == pytest.approx(before.at({name: 32}))


def test_where_layers_were_not_timed_nothing_is_known(network: tuple[Model, Coupling, tuple[Cluster, ...]]) -> None:
    loaded, coupling, clusters = network
    (name,) = vanishable(loaded, coupling)
    before = cost_of(coupling, name)
    untimed = NetworkSample("key", {name: 32}, 3.0, {}, 10)
    assert with_vanishing(before, loaded.twin, coupling, [name], clusters, [untimed]) is before
