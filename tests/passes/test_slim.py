"""Slimming equals masking, branches vanish, plans can be replayed, counts agree with the shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from halpc.errors import PlanError, VerificationError
from halpc.ir.dims import Mask
from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from halpc.ir.plan import read_plan
from passes.count import macs, params
from passes.couple import couple
from passes.load import load
from passes.proto import proto_of
from passes.slim import plan_for, slim
from passes.vanish import vanishable
from passes.verify import verify
from tests.passes.patterns import model_of
from tests.small import SHAPES, model, saved


@pytest.fixture
def network(tmp_path: Path) -> tuple[Model, Coupling]:
    loaded = load(saved(tmp_path))
    return loaded, couple(loaded.twin)


def halves(coupling: Coupling) -> dict[str, Mask]:
    return {name: np.arange(group.size) % 2 == 0 for name, group in coupling.free().items()}


def test_the_residual_network_has_two_groups(network: tuple[Model, Coupling]) -> None:
    assert {name: group.size for name, group in network[1].free().items()} == {"net.a": 16, "net.c": 24}


def test_slim_equals_masked_and_keeps_every_name(network: tuple[Model, Coupling]) -> None:
    loaded, coupling = network
    plan = plan_for(loaded, coupling, halves(coupling))
    proto = proto_of(slim(loaded, coupling, plan), loaded.header)
    assert verify(loaded, coupling, plan, proto).passed
    assert {t.name for t in proto.graph.initializer} == set(SHAPES)
    assert [n.name for n in proto.graph.node] == [n.name for n in model().graph.node]


def test_a_slim_model_with_a_wrong_weight_fails_verification(network: tuple[Model, Coupling]) -> None:
    loaded, coupling = network
    plan = plan_for(loaded, coupling, halves(coupling))
    proto = proto_of(slim(loaded, coupling, plan), loaded.header)
    values = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    values.flat[0] += 1
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, proto.graph.initializer[0].name))
    with pytest.raises(VerificationError, match="differs from the masked original"):
        verify(loaded, coupling, plan, proto)


def test_a_dynamic_batch_stays_dynamic(network: tuple[Model, Coupling]) -> None:
    loaded, coupling = network
    proto = proto_of(slim(loaded, coupling, plan_for(loaded, coupling, halves(coupling))), loaded.header)
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_only_the_inside_of_a_residual_branch_may_vanish(network: tuple[Model, Coupling]) -> None:
    assert vanishable(*network) == ("net.c",)


def test_a_vanished_branch_is_a_constant_and_its_nodes_are_gone(network: tuple[Model, Coupling]) -> None:
    loaded, coupling = network
    plan = plan_for(loaded, coupling, {"net.c": np.zeros(24, dtype=np.bool_), "net.a": np.arange(16) < 10})
    proto = proto_of(slim(loaded, coupling, plan), loaded.header)
    assert verify(loaded, coupling, plan, proto).passed
    assert [n.op_type for n in proto.graph.node].count("Conv") == 1


def test_a_sum_keeps_one_operand_of_full_shape(tmp_path: Path) -> None:
    """Two convolutions of one group, added: with no channels both would be constants, and the shape be lost."""
    text = """g (float[1,3,8,8] x) => (float[1,4,8,8] y) {
        a = Conv(x, wa) b = Conv(a, wb) c = Conv(a, wc) s = Add(b, c) d = Conv(x, wd) e = Conv(d, we)
        t = Add(s, e) u = Relu(t) y = Conv(u, wy) }"""
    shapes = {"wa": (6, 3, 1, 1), "wb": (5, 6, 1, 1), "wc": (5, 6, 1, 1), "wd": (7, 3, 1, 1), "we": (5, 7, 1, 1),
              "wy": (4, 5, 1, 1)}  # fmt: skip
    onnx.save(model_of(text, shapes), tmp_path / "sum.onnx")
    loaded = load(tmp_path / "sum.onnx")
    coupling = couple(loaded.twin)
    (name,) = vanishable(loaded, coupling)
    assert coupling.groups[name].size == 7
    masks = {n: np.full(g.size, n != name) for n, g in coupling.free().items()}
    plan = plan_for(loaded, coupling, masks)
    assert verify(loaded, coupling, plan, proto_of(slim(loaded, coupling, plan), loaded.header)).passed


def test_counts_of_the_slim_model_are_what_the_cost_models_say(network: tuple[Model, Coupling]) -> None:
    loaded, coupling = network
    masks = halves(coupling)
    widths = {name: int(mask.sum()) for name, mask in masks.items()}
    proto = proto_of(slim(loaded, coupling, plan_for(loaded, coupling, masks)), loaded.header)
    counted = sum(int(np.prod(t.dims)) for t in proto.graph.initializer)
    assert params(loaded.twin, coupling).at(widths) == counted
    sizes = {t.name: list(t.dims) for t in proto.graph.initializer}
    convolutions = sum(64 * int(np.prod(sizes[w])) for w in ("w0", "w1", "w2"))
    assert macs(loaded.twin, coupling).at(widths) == convolutions + int(np.prod(sizes["w3"]))


def test_a_plan_replays_onto_the_original_weights(network: tuple[Model, Coupling], tmp_path: Path) -> None:
    loaded, coupling = network
    plan = plan_for(loaded, coupling, halves(coupling))
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan.as_json()))
    again = read_plan(path)
    proto = proto_of(slim(loaded, coupling, plan), loaded.header)
    small = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    for tensor in model().graph.initializer:
        values = numpy_helper.to_array(tensor)
        for axis, kept in again.keep.get(tensor.name, {}).items():
            values = values.take(kept, axis=axis)
        assert np.array_equal(values, small[tensor.name])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "halpc.plan", "version": 9}', '{"format": "halpc.plan", "version": 1}']
)
def test_a_damaged_plan_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(PlanError):
        read_plan(path)


def test_pinning_by_name_keeps_a_layer_whole(tmp_path: Path) -> None:
    loaded = load(saved(tmp_path))
    assert set(couple(loaded.twin, freeze=["c"]).free()) == {"net.a"}


def test_the_slim_model_passes_the_checker_and_the_shapes_it_declares_are_right(
    network: tuple[Model, Coupling],
) -> None:
    loaded, coupling = network
    proto = proto_of(slim(loaded, coupling, plan_for(loaded, coupling, halves(coupling))), loaded.header)
    onnx.checker.check_model(proto, full_check=True)


SHARED = """shared (float[1,3,4,4] x) => (float[1,2,16] y, float[1,8,16] z) <int64[3] target = {1,8,16}> {
        a = Conv(x, w)
        f = Reshape(a, target)
        y = Conv(f, v)
        b = Conv(x, u)
        z = Reshape(b, target)
    }"""
SHARED_WEIGHTS = {"w": (8, 3, 1, 1), "v": (2, 8, 1), "u": (8, 3, 1, 1)}


def test_a_target_that_two_reshapes_share_becomes_two(tmp_path: Path) -> None:
    """One of them loses channels, the other gives them out."""
    onnx.save(model_of(SHARED, SHARED_WEIGHTS), tmp_path / "model.onnx")
    loaded = load(tmp_path / "model.onnx")
    coupling = couple(loaded.twin)
    plan = plan_for(loaded, coupling, halves(coupling))
    assert set(plan.keep) == {"w", "v"}
    small = proto_of(slim(loaded, coupling, plan), loaded.header)
    assert verify(loaded, coupling, plan, small).passed
