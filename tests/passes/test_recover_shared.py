"""Weights that several layers read are refitted once, over all of their inputs, or not at all."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from passes.calibration import calibrate_from
from passes.recover import Recovery, recover
from tests.passes.slimming import cut

KEPT = np.array([0, 2, 3, 5, 7])
Keep = dict[str, dict[int, NDArray[np.int64]]]

HEAD = """
    u = Conv<pads=[1,1,1,1]>(x, a)
    p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)
    v = Conv<pads=[1,1,1,1]>(p, d)
    s = Conv<pads=[1,1,1,1]>(u, wBIAS)
    t = Conv<pads=[1,1,1,1]>(v, wBIAS)
    f = Flatten(s)
    g = Flatten(t)
    y = Concat<axis=1>(f, g)
"""


def _model(body: str, weights: dict[str, NDArray[np.float64]]) -> onnx.ModelProto:
    text = f"""<ir_version: 9, opset_import: ["" : 17]> g (float[N,3,8,8] x) => (float[] y) {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    return model


def _level(seed: int) -> NDArray[np.float64]:
    """Eight filters, of which any four determine the others in the same way for every seed."""
    basis = np.random.default_rng(seed).normal(size=(4, 3, 3, 3))
    return np.einsum("ob,bixy->oixy", np.random.default_rng(3).normal(size=(8, 4)), basis)


RANDOM = np.random.default_rng(0)
WEIGHTS = {"a": _level(1), "d": _level(2), "w": RANDOM.normal(size=(5, 8, 3, 3)), "b": RANDOM.normal(size=5)}
PRUNED: Keep = {"a": {0: KEPT}, "d": {0: KEPT}, "w": {1: KEPT}}


def _recovered(model: onnx.ModelProto, keep: Keep) -> Recovery:
    x = np.random.default_rng(7).normal(size=(64, 3, 8, 8)).astype(np.float32)
    return recover(model, cut(model, keep), keep, calibrate_from({"x": x}, model))


@pytest.mark.parametrize("bias", ["", ", b"])
def test_readers_of_one_weight_on_maps_of_two_sizes_are_fitted_together(bias: str) -> None:
    model = _model(HEAD.replace("BIAS", bias), {k: v for k, v in WEIGHTS.items() if k != "b" or bias})
    result = _recovered(model, PRUNED)
    assert [(layer.name, layer.action) for layer in result.layers] == [("n3", "refit")]
    assert "2 readers" in result.layers[0].reason
    assert result.error_after < 1e-4 < 0.1 < result.error_before
    assert len({node.input[1] for node in result.model.graph.node if node.op_type == "Conv"}) == 3


def test_a_reader_whose_input_was_not_pruned_counts_too() -> None:
    """Half of the readers still see all that they saw: the fit must not forget them."""
    body = "u = Conv(x, a)\n s = Conv(u, w)\n t = Conv(x, w)\n y = Concat<axis=1>(s, t)"
    model = _model(body, {"a": RANDOM.normal(size=(3, 3, 1, 1)), "w": RANDOM.normal(size=(4, 3, 1, 1))})
    slim = cut(model, {})
    slim.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "a"))
    x = np.random.default_rng(7).normal(size=(64, 3, 8, 8)).astype(np.float32)
    result = recover(model, slim, {"a": {0: np.arange(3)}}, calibrate_from({"x": x}, model))
    assert result.layers[0].action in ("refit", "bias", "kept")
    assert result.layers[0].positions == 2 * 51 * 64  # of 51 samples that were not held back
    assert result.error_after <= result.error_before


def test_what_lies_behind_the_nearer_reader_waits_for_the_farther_one() -> None:
    body = """
        u = Conv(x, a)
        s = Conv(u, w)
        m = Conv(u, d)
        t = Conv(m, w)
        k = Conv(s, e)
        y = Concat<axis=1>(k, t)"""
    shapes = {"a": (8, 3, 1, 1), "d": (8, 8, 1, 1), "w": (5, 8, 1, 1), "e": (2, 5, 1, 1)}
    model = _model(body, {name: RANDOM.normal(size=shape) for name, shape in shapes.items()})
    keep: Keep = {"a": {0: KEPT}, "d": {0: KEPT, 1: KEPT}, "w": {1: KEPT}}
    result = _recovered(model, keep)
    assert [layer.name for layer in result.layers] == ["n2", "n1", "n4"]
    assert result.error_after < result.error_before


REFUSED = {
    "one behind another": ("u = Conv(x, a)\n s = Conv(u, w)\n y = Conv(s, w)", {"w": (8, 8, 1, 1)}),
    "biases of their own": (
        "u = Conv(x, a)\n s = Conv(u, w, b)\n t = Conv(u, w, c)\n y = Concat<axis=1>(s, t)",
        {"w": (8, 8, 1, 1), "b": (8,), "c": (8,)},
    ),
    "of which 1 cannot be refitted": (
        "u = Conv(x, a)\n s = Conv(u, w)\n t = Mul(s, w)\n y = Conv(t, e)",
        {"w": (1, 8, 1, 1), "e": (1, 8, 1, 1)},
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_no_single_regression_is_left_alone_with_the_reason(reason: str) -> None:
    body, shapes = REFUSED[reason]
    model = _model(body, {name: RANDOM.normal(size=shape) for name, shape in {"a": (8, 3, 1, 1), **shapes}.items()})
    slim = cut(model, {})
    slim.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((8, 3, 1, 1), np.float32), "a"))
    x = np.random.default_rng(7).normal(size=(64, 3, 8, 8)).astype(np.float32)
    layers = recover(model, slim, {"a": {0: np.arange(8)}}, calibrate_from({"x": x}, model)).layers
    about = [layer for layer in layers if layer.action == "skipped"]
    assert about
    assert all(reason in layer.reason for layer in about)
