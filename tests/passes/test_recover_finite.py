"""Inputs that give NaN or infinities inside are refused by name; infinities that a network means are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from halpc.errors import CalibrationError
from halpc.ir.dims import Leaf
from passes.calibration import calibrate_from
from passes.data_score import Kind, score_from_data
from passes.recover import Mode, Recovery, recover
from passes.recovery.uses import uses_of
from tests.passes.slimming import cut

KEPT = np.array([0, 2, 3, 4])
ROOT = "s = Sqrt(x)\n u = MatMul(s, a)\n y = MatMul(u, b)"
MASKED = "u = MatMul(x, a)\n v = MatMul(u, b)\n r = Relu(x)\n m = Log(r)\n z = Add(v, m)\n y = {last}(z)"


def _model(body: str, signature: str = "float[N,4] x") -> onnx.ModelProto:
    text = f"""<ir_version: 9, opset_import: ["" : 17]> g ({signature}) => (float[M,4] y) {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    random = np.random.default_rng(1)
    for name, shape in {"a": (4, 6), "b": (6, 4)}.items():
        model.graph.initializer.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    return model


def _inputs(bad: list[int], count: int = 48) -> NDArray[np.float32]:
    inputs = np.random.default_rng(2).random((count, 4), dtype=np.float32) + np.float32(0.1)
    inputs[bad, 1] *= -1
    return inputs


def _recovered(model: onnx.ModelProto, inputs: NDArray[np.float32], mode: Mode = "refit") -> Recovery:
    keep = {"a": {1: KEPT}, "b": {0: KEPT}}
    return recover(model, cut(model, keep), keep, calibrate_from({"x": inputs}, model, "c.npz"), mode=mode)


def _scored(model: onnx.ModelProto, inputs: NDArray[np.float32], kind: Kind) -> NDArray[np.float64]:
    leaf = Leaf("g", 6)
    uses = uses_of(model, {("u", 1): leaf, ("a", 1): leaf, ("b", 0): leaf}, {"g": 6})
    return score_from_data(model, uses, calibrate_from({"x": inputs}, model, "c.npz"), kind)["g"].scores


WAYS: dict[str, Callable[[onnx.ModelProto, NDArray[np.float32]], object]] = {
    "refit": lambda model, inputs: _recovered(model, inputs),
    "bias": lambda model, inputs: _recovered(model, inputs, "bias"),
    "energy": lambda model, inputs: _scored(model, inputs, "energy"),
    "unrecoverable": lambda model, inputs: _scored(model, inputs, "unrecoverable"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "bad, which",
    [([17], r"1 of 48 inputs \(from 0: 17\)"), ([2, 40], r"\(from 0: 2, 40\)"), (list(range(48)), "all 48 inputs")],
)
def test_inputs_that_give_nan_inside_are_named_with_the_layer(way: str, bad: list[int], which: str) -> None:
    with pytest.raises(CalibrationError, match=rf"c\.npz: .*{which}.* give NaN.* in '[uy]' \(layer n2\): leave them"):
        WAYS[way](_model(ROOT), _inputs(bad))


@pytest.mark.parametrize("way", WAYS)
def test_numbers_whose_squares_are_infinite_are_refused_too(way: str) -> None:
    inputs = _inputs([])
    inputs[5] *= 1e5
    with pytest.raises(CalibrationError, match=r"1 of 48 inputs \(from 0: 5\)"):
        WAYS[way](_model(ROOT.replace("s = Sqrt(x)", "h = Mul(x, x)\n f = Mul(h, h)\n s = Mul(f, f)")), inputs)


def test_of_a_model_with_a_fixed_batch_size_whole_batches_are_named() -> None:
    model, inputs = _model(ROOT, "float[2,4] x"), _inputs([17])
    pairs = calibrate_from({"x": inputs}, model).order.reshape(-1, 2)
    both = ", ".join(map(str, sorted(pairs[(pairs == 17).any(axis=1)][0])))
    with pytest.raises(CalibrationError, match=rf"2 of 48 inputs \(from 0: {both}\)"):
        _recovered(model, inputs)


@pytest.mark.parametrize("last", ["Softmax", "Identity"])
def test_a_mask_of_minus_infinity_is_no_obstacle(last: str) -> None:
    model, inputs = _model(MASKED.format(last=last)), _inputs([1, 5, 17])
    result = _recovered(model, inputs)
    assert [layer.action for layer in result.layers] == ["refit"]
    assert 0 < result.error_after < result.error_before < np.inf
    assert all(np.isfinite(_scored(model, inputs, kind)).all() for kind in ("energy", "unrecoverable"))


def test_an_output_that_is_nan_is_named() -> None:
    inputs = _inputs([])
    model = _model("u = MatMul(x, a)\n v = MatMul(u, b)\n y = Sqrt(v)")
    with pytest.raises(CalibrationError, match=r"NaN, Inf .* in the output 'y'"):
        _recovered(model, inputs)


def test_where_only_the_pruned_network_gives_nan_the_layer_is_skipped_and_the_error_infinite() -> None:
    model = _model("t = MatMul(x, a)\n u = Relu(t)\n n = ReduceMax<axes=[1]>(u)\n w = Div(u, n)\n y = MatMul(w, b)")
    values = numpy_helper.to_array(model.graph.initializer[0]).copy()
    values[:, KEPT], values[:, 1] = -1, 1
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "a"))
    result = _recovered(model, _inputs([]))
    assert [(layer.action, "pruned network" in layer.reason) for layer in result.layers] == [("skipped", True)]
    assert result.error_after == np.inf
