"""Operators that onnxruntime has in the standard domain and ONNX has not, or has only at newer opsets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper, numpy_helper

from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from passes.couple import couple
from passes.latency.clusters import HEAVY
from passes.load import load
from passes.loading.fold import interpret
from passes.proto import FOREIGN, check_model, proto_of
from passes.score import layers
from passes.slim import plan_for, slim
from passes.verify import verify

FLOAT = TensorProto.FLOAT
ROWS = 32  # of a table of positions: as many as halpc assumes steps


def network(op: str, opset: int, *, steps: int | str = 3, inputs: int = 2) -> onnx.ModelProto:
    """dense · the operator · dense behind a table of positions that is cut to the length of what comes in."""
    rng = np.random.default_rng(0)
    shapes = {"table": (ROWS, 6), "w": (6, 8), "u": (8, 8), "v": (8, 4), "scale": (8,), "bias": (8,)}
    weights = [
        numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), name)
        for name, s in shapes.items()
        if name != "bias" or inputs > 2
    ]
    weights += [numpy_helper.from_array(np.array([n]), name) for name, n in (("zero", 0), ("one", 1))]
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["length"]),
        helper.make_node("Slice", ["table", "zero", "length", "zero"], ["positions"]),
        helper.make_node("Add", ["x", "positions"], ["z"]),
        helper.make_node("MatMul", ["z", "w"], ["h"], name="first"),
        helper.make_node(op, ["h", "scale", "bias"][:inputs], ["g"]),
        helper.make_node("MatMul", ["g", "u"], ["f"], name="second"),
        helper.make_node("MatMul", ["f", "v"], ["y"], name="last"),
    ]
    ports = [helper.make_tensor_value_info(name, FLOAT, [2, steps, n]) for name, n in (("x", 6), ("y", 4))]
    graph = helper.make_graph(nodes, "net", ports[:1], ports[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def coupled(model: onnx.ModelProto, folder: Path) -> tuple[Model, Coupling]:
    onnx.save(model, folder / "net.onnx")
    loaded = load(folder / "net.onnx")
    return loaded, couple(loaded.twin)


def halved(model: Model, coupling: Coupling) -> onnx.ModelProto:
    """Every second channel of every group gone, and judged."""
    plan = plan_for(model, coupling, {name: np.arange(g.size) % 2 == 0 for name, g in coupling.free().items()})
    result = proto_of(slim(model, coupling, plan))
    verify(model, coupling, plan, result)
    return result


@pytest.mark.parametrize(
    "op, opset, inputs",
    [("LayerNormalization", 14, 3), ("SimplifiedLayerNormalization", 14, 2), ("SimplifiedLayerNormalization", 23, 2)],
)
def test_normalisations_of_onnxruntime_are_read_and_pruned_around(
    op: str, opset: int, inputs: int, tmp_path: Path
) -> None:
    model, coupling = coupled(network(op, opset, inputs=inputs), tmp_path)
    assert "second" in coupling.free()
    assert "first" not in coupling.free()
    halved(model, coupling)


@pytest.mark.parametrize("op, opset, inputs", [("LayerNormalization", 17, 3), ("SimplifiedLayerNormalization", 17, 2)])
def test_a_table_with_as_many_rows_as_a_size_was_assumed_to_be_is_still_cut(
    op: str, opset: int, inputs: int, tmp_path: Path
) -> None:
    model, coupling = coupled(network(op, opset, steps="steps", inputs=inputs), tmp_path)
    assert model.shapes["x"][1] == ROWS
    assert "Slice" in [node.op_type for node in halved(model, coupling).graph.node]


def test_checking_leaves_the_model_as_it_was() -> None:
    model = network("SimplifiedLayerNormalization", 17)
    before = model.SerializeToString()
    check_model(model)
    assert model.SerializeToString() == before
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model)


def test_what_neither_knows_is_still_refused() -> None:
    with pytest.raises(onnx.checker.ValidationError, match="SimplerNormalization"):
        check_model(network("SimplerNormalization", 17))


@pytest.mark.parametrize("op", FOREIGN)
def test_onnx_does_not_have_them_before_the_opset_that_is_said(op: str) -> None:
    assert not onnx.defs.has(op, min(FOREIGN[op] - 1, onnx.defs.onnx_opset_version()), "")
    assert FOREIGN[op] > onnx.defs.onnx_opset_version() or onnx.defs.has(op, FOREIGN[op], "")


def test_shapes_behind_fused_layers_are_inferred(tmp_path: Path) -> None:
    """A Reshape that reads the batch from behind them stays a Reshape of any batch."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        net (float[batch,3,4,4] x) => (float[batch,4] y) <float[8,3,1,1] w = {0}, float[8,8,1,1] v = {0},
            float[128,4] d = {0}, int64[1] rest = {-1}, int64[1] zero = {0}> {
            h = com.microsoft.FusedConv <activation: string = "Relu"> (x, w)
            g = com.microsoft.FusedConv <activation: string = "Relu"> (h, v, , h)
            s = Shape (g)
            b = Gather (s, zero)
            t = Concat <axis: int = 0> (b, rest)
            f = Reshape (g, t)
            y = com.microsoft.FusedGemm <activation: string = "Tanh"> (f, d)
        }""")
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    del model.graph.initializer[:3]
    rng = np.random.default_rng(0)
    model.graph.initializer.extend(
        numpy_helper.from_array(rng.standard_normal(shapes[name]).astype(np.float32), name) for name in "wvd"
    )
    assert interpret(gs.import_onnx(model), {"x": (5, 3, 4, 4)}).tensors["y"].shape == (5, 4)
    loaded, coupling = coupled(model, tmp_path)
    halved(loaded, coupling)


@pytest.mark.parametrize("op, transposed, axis", [("FusedGemm", 0, 1), ("FusedGemm", 1, 0), ("FusedConv", 0, 0)])
def test_fused_layers_are_scored_along_their_outputs_and_measured_as_layers(
    op: str, transposed: int, axis: int
) -> None:
    weight = gs.Constant("w", np.zeros((4, 6, 1, 1) if op == "FusedConv" else (4, 6), np.float32))
    node = gs.Node(op, "it", {"transB": transposed}, [gs.Variable("x"), weight], [gs.Variable("y")], "com.microsoft")
    assert [layer.axis for layer in layers(gs.Graph([node]))] == [axis]
    assert op in HEAVY
