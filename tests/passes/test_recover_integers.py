"""Recovery of models that compute in integers: as real numbers, and back."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from passes.calibration import calibrate_from
from passes.recover import recover
from passes.recovery.integers import opened, with_opened
from tests.passes.slimming import cut

KEPT = np.array([0, 2, 3, 5, 7])
TEXT = """
<ir_version: 9, opset_import: ["" : 17, "com.microsoft" : 1]>
g (float[N,3,8,8] x) => (float[N,6] y)
{
    q = QuantizeLinear (x, x_s, point)
    u = QLinearConv <pads = [1,1,1,1]> (q, x_s, point, a, a_s, a_z, u_s, point, a_b)
    v = QLinearConv <pads = [1,1,1,1]> (u, u_s, point, b, b_s, b_z, v_s, point, b_b)
    w = QLinearConv (q, x_s, point, c, c_s, zero, v_s, point)
    s = com.microsoft.QLinearAdd (v, v_s, point, w, v_s, point, s_s, point)
    p = com.microsoft.QLinearGlobalAveragePool <channels_last = 0> (s, s_s, point, s_s, point)
    f = Flatten (p)
    m = QLinearMatMul (f, s_s, point, d, d_s, d_z, m_s, point)
    k = com.microsoft.QLinearMul (m, m_s, point, f, s_s, point, k_s, point)
    y = com.microsoft.QGemm <alpha = 0.5, transB = 1> (k, k_s, point, e, e_s, e_z, e_b)
}
"""


def network() -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    model = onnx.parser.parse_model(TEXT)
    basis = np.einsum("ob,bixy->oixy", rng.normal(size=(8, 4)), rng.normal(size=(4, 3, 3, 3)))
    weights = {
        "a": (basis, 0), "b": (rng.normal(size=(5, 8, 3, 3)), 0), "c": (rng.normal(size=(5, 3, 1, 1)), None),
        "d": (rng.normal(size=(5, 5)), 1), "e": (rng.normal(size=(6, 5)), 0),
    }  # fmt: skip
    steps = {"x_s": 0.03, "u_s": 0.2, "v_s": 0.9, "s_s": 1.0, "m_s": 0.05, "k_s": 0.5}
    arrays: dict[str, NDArray[np.generic]] = {"point": np.uint8(128), "zero": np.int8(0)}  # type: ignore[dict-item]
    arrays |= {name: np.float32(step) for name, step in steps.items()}  # type: ignore[misc]
    for name, (value, axis) in weights.items():
        rest = None if axis is None else tuple(i for i in range(value.ndim) if i != axis)
        step = np.abs(value).max(axis=rest) / 60
        broadcast = step if axis is None else step.reshape([-1 if i == axis else 1 for i in range(value.ndim)])
        arrays[name] = np.rint(value / broadcast).astype(np.int8)
        arrays[f"{name}_s"] = np.asarray(step, np.float32)
        arrays[f"{name}_z"] = np.zeros(np.shape(step), np.int8)
    for name, size in (("a_b", 8), ("b_b", 5), ("e_b", 6)):
        arrays[name] = rng.integers(-300, 300, size).astype(np.int32)
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in arrays.items() if n in used)
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    onnx.checker.check_model(model)
    return model


def outputs(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0])


def sample(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(7).normal(size=(count, 3, 8, 8)).astype(np.float32)


def test_an_opened_model_computes_the_same() -> None:
    model = network()
    real = opened(model)
    onnx.checker.check_model(real)
    assert {node.op_type for node in real.graph.node} == {
        "QuantizeLinear", "DequantizeLinear", "Conv", "Add", "QLinearGlobalAveragePool", "Flatten", "MatMul", "Mul",
        "Gemm",
    }  # fmt: skip
    x = sample(32)
    wanted, found = outputs(model, x), outputs(real, x)
    assert np.ptp(wanted) > 1
    assert np.abs(wanted - found).max() < 0.03 * np.ptp(wanted)  # a step of one activation or two
    assert np.corrcoef(wanted.ravel(), found.ravel())[0, 1] > 0.999


def test_what_computes_in_real_numbers_is_left_as_it_is() -> None:
    real = opened(network())
    assert opened(real) is real


@pytest.mark.parametrize("name", ["u_s", "b_s", "a_z"])
def test_an_operator_whose_parameters_are_computed_stays_closed(name: str) -> None:
    model = network()
    for node in model.graph.node:
        for i, given in enumerate(node.input):
            node.input[i] = f"{name}_" if given == name else given
    model.graph.node.insert(0, onnx.helper.make_node("Identity", [name], [f"{name}_"]))
    assert "QLinearConv" in {node.op_type for node in opened(model).graph.node}
    x = sample(8)
    assert np.abs(outputs(model, x) - outputs(opened(model), x)).max() < 0.03 * np.ptp(outputs(model, x))


def test_what_dequantize_linear_cannot_say_stays_closed() -> None:
    model = network()
    add = next(node for node in model.graph.node if node.op_type == "QLinearAdd")
    add.input[7] = ""
    for item in model.graph.initializer:
        if item.name == "b_z":  # one zero point for a scale per channel
            item.CopyFrom(numpy_helper.from_array(np.int8(0).reshape(()), "b_z"))
    left = [node.op_type for node in opened(model).graph.node if node.op_type.startswith("QLinear")]
    assert left == ["QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool"]


@pytest.mark.parametrize("mode", ["refit", "bias"])
def test_layers_that_compute_in_integers_are_refitted_and_stay_what_they_are(mode: str) -> None:
    model, keep = network(), {"a": {0: KEPT}, "a_s": {0: KEPT}, "a_z": {0: KEPT}, "a_b": {0: KEPT}, "b": {1: KEPT}}
    slim = cut(model, keep)
    result = recover(model, slim, keep, calibrate_from({"x": sample(64)}, model), mode=mode)  # type: ignore[arg-type]
    assert "refit" in {layer.action for layer in result.layers} or mode == "bias"
    assert result.error_after < (0.3 if mode == "refit" else 1) * result.error_before
    x = sample(64)
    wanted = outputs(model, x)
    before, after = (float(np.square(outputs(m, x) - wanted).sum()) for m in (slim, result.model))
    assert after < (0.3 if mode == "refit" else 1) * before
    assert [node.SerializeToString() for node in result.model.graph.node] == [
        node.SerializeToString() for node in slim.graph.node
    ]
    kinds = [{t.name: (t.data_type, tuple(t.dims)) for t in m.graph.initializer} for m in (slim, result.model)]
    assert kinds[0] == kinds[1]


def test_a_bias_that_is_added_to_a_layer_beside_them_is_kept() -> None:
    model = network()
    model.graph.node.insert(0, onnx.helper.make_node("Conv", ["x", "first"], ["x0"], "first", pads=[1, 1, 1, 1]))
    model.graph.node.insert(1, onnx.helper.make_node("Conv", ["x0", "second"], ["x1"], "second"))
    model.graph.node[2].input[0] = "x1"
    rng = np.random.default_rng(5)
    for name, shape in (("first", (8, 3, 3, 3)), ("second", (3, 8, 1, 1))):
        value = rng.normal(size=shape).astype(np.float32) / 3 + (0.5 if name == "second" else 0)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    keep = {"first": {0: KEPT}, "second": {1: KEPT}}
    x = sample(64) + 1
    result = recover(model, cut(model, keep), keep, calibrate_from({"x": x}, model))
    node = next(node for node in result.model.graph.node if node.name == "second")
    assert len(node.input) == 3
    assert node.input[2] in {item.name for item in result.model.graph.initializer}
    assert np.isfinite(outputs(result.model, x)).all()


def test_real_numbers_have_the_axes_of_the_integers_behind_them() -> None:
    real = opened(network())
    found = with_opened({("u", 1): "inner", ("v", 1): "outer"}, real)
    reader = next(n for n in real.graph.node if n.op_type == "Conv" and n.name == "n2")
    assert found[reader.input[0], 1] == "inner"
    assert found[reader.output[0], 1] == "outer"
