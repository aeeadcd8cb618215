"""Weights that a file stores once and uses in several ways: they stay one, and budgets are shares of the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from halpc.cli import main
from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from passes.count import params
from passes.couple import couple
from passes.coupling.members import weights_of
from passes.load import load
from passes.loading.stored import stored_entries
from passes.proto import proto_of
from passes.score import layers
from passes.slim import plan_for, slim
from passes.verify import verify
from tests.passes.patterns import model_of

EMBEDDING = """tied (int64[1,5] x) => (float[1,5,50] y) {
    e = Gather(table, x)
    f = MatMul(e, up)
    g = Relu(f)
    h = MatMul(g, down)
    s = Add(e, h)
    back = Transpose<perm = [1, 0]>(table)
    y = MatMul(s, back)
}"""
TABLES = {"table": (50, 12), "up": (12, 20), "down": (20, 12)}
ENCODER = """tied (float[3,10] x) => (float[3,10] y) {
    a = MatMul(x, w)
    b = Relu(a)
    back = Transpose(w)
    y = MatMul(b, back)
}"""
ALONE = ENCODER.replace("MatMul(x, w)", "MatMul(x, v)")
EXPANDED = """grown (float[1,3,8,8] x) => (float[1,4,8,8] y) <int64[4] size = {16, 3, 3, 3}> {
    w = Expand(small, size)
    a = Conv<pads = [1, 1, 1, 1]>(x, w)
    b = Relu(a)
    y = Conv(b, v)
}"""


def solved(text: str, weights: dict[str, tuple[int, ...]], folder: Path) -> tuple[Model, Coupling]:
    onnx.save(model_of(text, weights), folder / "tied.onnx")
    model = load(folder / "tied.onnx")
    return model, couple(model.twin)


@pytest.mark.parametrize(
    ("text", "weights", "left"),
    [(EMBEDDING, TABLES, 50 * 6 + 6 * 10 + 10 * 6), (ENCODER, {"w": (10, 16)}, 10 * 8)],
)
def test_a_weight_that_is_read_turned_as_well_is_cut_and_written_once(
    text: str, weights: dict[str, tuple[int, ...]], left: int, tmp_path: Path
) -> None:
    model, coupling = solved(text, weights, tmp_path)
    masks = {name: np.arange(group.size) % 2 == 0 for name, group in coupling.free().items()}
    plan = plan_for(model, coupling, masks)
    proto = proto_of(slim(model, coupling, plan))
    onnx.checker.check_model(proto, full_check=True)
    verify(model, coupling, plan, proto)
    assert {t.name for t in proto.graph.initializer} == set(weights)
    cost = params(model.twin, coupling)
    assert cost.at({}) == model.stored == sum(np.prod(shape) for shape in weights.values())
    assert cost.at(plan.widths) == stored_entries(proto) == left


def test_a_weight_that_is_only_read_turned_is_folded(tmp_path: Path) -> None:
    model, _ = solved(ALONE, {"w": (10, 16), "v": (10, 16)}, tmp_path)
    assert [node.op for node in model.graph.nodes] == ["MatMul", "Relu", "MatMul"]


def test_a_layer_that_reads_a_weight_turned_is_a_layer(tmp_path: Path) -> None:
    model, _ = solved(EMBEDDING, TABLES, tmp_path)
    last = model.twin.nodes[-1]
    assert [t.name for t in weights_of(last)] == ["table"]
    assert [(layer.tensor.name, layer.axis) for layer in layers(model.twin)] == [
        ("table", 1), ("up", 1), ("down", 1), ("table", 0),
    ]  # fmt: skip


def test_a_budget_on_parameters_is_a_share_of_what_the_file_stores(tmp_path: Path) -> None:
    onnx.save(model_of(EXPANDED, {"small": (16, 3, 1, 1), "v": (4, 16, 1, 1)}), tmp_path / "grown.onnx")
    assert main(["compile", str(tmp_path / "grown.onnx"), "--params", "80%", "-o", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["baseline"]["params"] == 16 * 3 + 4 * 16
    assert report["result"]["params"] == stored_entries(onnx.load(tmp_path / "out" / "pruned.onnx"))
    assert report["result"]["params"] <= 0.8 * report["baseline"]["params"]
    assert any("496 parameters, where the file stores 112" in note for note in report["notes"])


def test_all_that_a_file_stores_counts() -> None:
    values = numpy_helper.from_array(np.ones(3, np.float32), "sparse")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.arange(3), "places"), [10, 10])
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones((2, 3), np.float32)))
    listed = helper.make_node("Constant", [], ["d"], value_floats=[1.0, 2.0])
    whole = helper.make_node("Constant", [], ["n"], value_ints=[1, 2])
    weight = numpy_helper.from_array(np.ones((4, 5), np.float16), "w")
    body = helper.make_graph([constant], "body", [], [onnx.ValueInfoProto(name="c")], [weight])
    branch = helper.make_node("If", ["on"], ["y"], then_branch=body, else_branch=body)
    function = helper.make_function("own", "Own", [], ["d"], [listed], [helper.make_opsetid("", 17)])
    counted = numpy_helper.from_array(np.arange(9), "index")
    on = helper.make_tensor_value_info("on", TensorProto.BOOL, [])
    graph = helper.make_graph([whole, branch], "all", [on], [], [counted], sparse_initializer=[sparse])
    assert stored_entries(helper.make_model(graph, functions=[function])) == 100 + 2 * (6 + 20) + 2
