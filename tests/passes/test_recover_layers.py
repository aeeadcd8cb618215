"""What least squares sees of a layer is what the layer computes: rows times weights plus bias, for every operator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from passes.calibration import calibrate_from
from passes.couple import couple
from passes.load import load
from passes.proto import proto_of
from passes.recover import recover
from passes.recovery.constants import Constants
from passes.recovery.layers import Layer, make_layer
from passes.recovery.segments import open_session
from passes.slim import plan_for, slim
from tests.passes.patterns import model_of

ROWS = {
    "plain": ("y = Conv<pads=[1,1,1,1]>(x, w, b)", [2, 4, 6, 5], [3, 4, 3, 3], [3]),
    "no bias": ("y = Conv(x, w)", [2, 4, 6, 5], [3, 4, 3, 2], None),
    "strided and dilated": (
        "y = Conv<strides=[2,1], dilations=[1,2], pads=[1,0,2,1]>(x, w, b)",
        [2, 4, 9, 8],
        [3, 4, 3, 3],
        [3],
    ),
    "same upper": ('y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w, b)', [2, 4, 7, 8], [3, 4, 3, 2], [3]),
    "same lower": ('y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w, b)', [2, 4, 7, 8], [3, 4, 3, 2], [3]),
    "valid": ('y = Conv<auto_pad="VALID">(x, w, b)', [2, 4, 7, 8], [3, 4, 3, 2], [3]),
    "grouped": ("y = Conv<group=2>(x, w, b)", [2, 4, 6, 5], [6, 2, 3, 3], [6]),
    "depthwise with multiplier": ("y = Conv<group=4, pads=[1,1,1,1]>(x, w, b)", [2, 4, 6, 5], [8, 1, 3, 3], [8]),
    "one axis": ("y = Conv<pads=[2,1]>(x, w, b)", [2, 4, 9], [3, 4, 3], [3]),
    "three axes": ("y = Conv<pads=[1,0,1,1,0,1]>(x, w, b)", [2, 3, 4, 5, 3], [2, 3, 2, 3, 2], [2]),
    "transposed": (
        "y = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,0]>(x, w, b)",
        [2, 4, 4, 5],
        [4, 3, 3, 3],
        [3],
    ),
    "transposed grouped": (
        "y = ConvTranspose<group=2, strides=[1,2], dilations=[2,1]>(x, w, b)",
        [2, 4, 4, 5],
        [4, 3, 3, 2],
        [6],
    ),
    "transposed same": (
        'y = ConvTranspose<auto_pad="SAME_UPPER", strides=[2,2]>(x, w, b)',
        [2, 4, 4, 5],
        [4, 3, 3, 3],
        [3],
    ),
    "transposed to a shape": (
        "y = ConvTranspose<output_shape=[9,9], strides=[2,2]>(x, w, b)",
        [2, 4, 4, 5],
        [4, 3, 3, 3],
        [3],
    ),
    "gemm": ("y = Gemm(x, w, b)", [5, 4], [4, 3], [3]),
    "gemm scaled": ("y = Gemm<transB=1, alpha=0.5, beta=2.0>(x, w, b)", [5, 4], [3, 4], [3]),
    "gemm of a turned input": ("y = Gemm<transA=1>(x, w, b)", [4, 5], [4, 3], [3]),
    "matmul": ("y = MatMul(x, w)", [2, 5, 4], [4, 3], None),
    "matmul and add": ("u = MatMul(x, w)\n y = Add(b, u)", [2, 5, 4], [4, 3], [3]),
}


def _model(body: str, shape: list[int], weight: list[int], bias: list[int] | None) -> onnx.ModelProto:
    sizes = ",".join(str(size) for size in shape)
    text = f"""<ir_version: 9, opset_import: ["" : 17]>
    g (float[{sizes}] x) => (float[] y) {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
    random = np.random.default_rng(3)
    for name, dims in (("w", weight), ("b", bias)):
        if dims is not None:
            model.graph.initializer.append(numpy_helper.from_array(random.normal(size=dims).astype(np.float32), name))
    return model


def _layer(model: onnx.ModelProto) -> tuple[Layer, Constants]:
    constants = Constants(model)
    layer = make_layer(model.graph.node[0], 0, constants)
    assert isinstance(layer, Layer)
    return layer, constants


def _compute(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return np.asarray(open_session(model, 1).run(["y"], {"x": x})[0])


@pytest.mark.parametrize("name", ROWS)
def test_rows_times_weights_are_the_layers_output(name: str) -> None:
    body, shape, weight, bias = ROWS[name]
    model = _model(body, shape, weight, bias)
    layer, constants = _layer(model)
    assert layer.output == "y"
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    y = _compute(model, x)
    picks = np.broadcast_to(np.arange(layer.flat(y).shape[1]), (len(y), layer.flat(y).shape[1]))
    predicted = layer.rows(x, layer.sizes(y), picks) @ layer.weights(constants) + layer.biases(constants)[:, None]
    np.testing.assert_allclose(predicted, layer.targets(y, picks), atol=1e-4)


@pytest.mark.parametrize("op", ["FusedConv", "FusedGemm"])
def test_a_layer_with_its_activation_inside_is_not_refitted_as_if_it_had_none(op: str) -> None:
    model = _model(f'y = com.microsoft.{op}<activation="Relu">(x, w)', [2, 4, 5, 5], [6, 4, 1, 1], None)
    why = make_layer(model.graph.node[0], 0, Constants(model))
    assert isinstance(why, str)
    assert op in why


@pytest.mark.parametrize("name", ROWS)
def test_storing_what_was_read_changes_nothing(name: str) -> None:
    body, shape, weight, bias = ROWS[name]
    model = _model(body, shape, weight, bias)
    layer, constants = _layer(model)
    before = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    layer.store(constants, layer.weights(constants))
    if bias is not None:
        layer.store_bias(constants, layer.biases(constants))
    for item in model.graph.initializer:
        np.testing.assert_allclose(numpy_helper.to_array(item), before[item.name], rtol=1e-6)


def test_picked_positions_are_those_rows_of_all() -> None:
    body, shape, weight, bias = ROWS["strided and dilated"]
    model = _model(body, shape, weight, bias)
    layer, _ = _layer(model)
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    y = _compute(model, x)
    positions = layer.flat(y).shape[1]
    everything = layer.rows(x, layer.sizes(y), np.broadcast_to(np.arange(positions), (2, positions)))
    some = layer.rows(x, layer.sizes(y), np.array([[0, 5], [7, 2]]))
    np.testing.assert_array_equal(some[0], everything[0][[0, 5, positions + 7, positions + 2]])


def test_batch_normalisation_is_a_scale_and_a_shift_per_channel() -> None:
    names = ["scale", "bias", "mean", "variance"]
    node = helper.make_node("BatchNormalization", ["x", *names], ["y"], epsilon=1e-3)
    random = np.random.default_rng(5)
    values = [numpy_helper.from_array(random.uniform(0.5, 2, 4).astype(np.float32), name) for name in names]
    x_info = helper.make_tensor_value_info("x", 1, [3, 4, 2, 2])
    graph = helper.make_graph([node], "g", [x_info], [onnx.ValueInfoProto(name="y")], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    layer, constants = _layer(model)
    x = random.normal(size=(3, 4, 2, 2)).astype(np.float32)
    y = _compute(model, x)
    picks = np.broadcast_to(np.arange(4), (3, 4))
    weights, bias = layer.weights(constants), layer.biases(constants)
    np.testing.assert_allclose(
        layer.rows(x, (2, 2), picks) @ weights + bias[:, None], layer.targets(y, picks), atol=1e-5
    )
    layer.store(constants, 2 * weights)
    layer.store_bias(constants, bias + 1)
    expected = 2 * (y - bias.reshape(1, 4, 1, 1)) + bias.reshape(1, 4, 1, 1) + 1
    np.testing.assert_allclose(_compute(model, x), expected, atol=1e-5)


def test_a_product_of_two_activations_is_no_layer() -> None:
    model = _model("y = MatMul(x, x)", [4, 4], [1, 1], None)
    assert make_layer(model.graph.node[0], 0, Constants(model)) is None


TABLES = """tables (float[N,4] x) => (float[N,3] y)
    <int64[3] square = {-1,6,4}, int64[2] flat = {-1,30}> {
        h = MatMul(x, a)
        r = Relu(h)
        t = Reshape(r, square)
        m = MatMul(t, b)
        f = Reshape(m, flat)
        y = MatMul(f, w)
    }"""


def test_a_product_whose_rows_are_cut_too_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model_of(TABLES, {"a": (4, 24), "b": (4, 5), "w": (30, 3)}), path)
    loaded = load(path)
    coupling = couple(loaded.twin)
    masks = {name: np.arange(group.size) > 0 for name, group in coupling.free().items()}
    plan = plan_for(loaded, coupling, masks)
    small = proto_of(slim(loaded, coupling, plan), loaded.header)
    x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    whole = proto_of(loaded.graph, loaded.header)
    found = recover(whole, small, plan.keep, calibrate_from({"x": x}, whole))
    assert ("skipped", "of its rows, too, some are gone, so that they are not the original's") in [
        (layer.action, layer.reason) for layer in found.layers
    ]


RECURRENT = """recurrent (float[N,6] x, float[1,N,8] h) => (float[N,4] y, float[1,N,8] t)
    <int64[1] first = {0}> {
        a = MatMul(x, w)
        b = Relu(a)
        u = Unsqueeze(b, first)
        s, t = GRU<hidden_size=8>(u, g, r, , , h)
        q = Squeeze(t, first)
        y = MatMul(q, v)
    }"""


def test_a_state_is_compared_over_batches_of_different_sizes(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model_of(RECURRENT, {"w": (6, 12), "g": (1, 24, 12), "r": (1, 24, 8), "v": (8, 4)}), path)
    loaded = load(path)
    coupling = couple(loaded.twin)
    plan = plan_for(loaded, coupling, {n: np.arange(g.size) > 3 for n, g in coupling.free().items()})
    small = proto_of(slim(loaded, coupling, plan), loaded.header)
    random = np.random.default_rng(0)
    x, h = (random.standard_normal(shape).astype(np.float32) for shape in ((200, 6), (1, 200, 8)))
    whole = proto_of(loaded.graph, loaded.header)
    found = recover(whole, small, plan.keep, calibrate_from({"x": x, "h": h}, whole))
    assert 0 < found.error_after <= found.error_before
