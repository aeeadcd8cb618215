"""Recovery of models whose weights stand behind a DequantizeLinear, or in half precision."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from passes.calibration import calibrate_from
from passes.recover import Recovery, recover
from passes.recovery.constants import Constants
from passes.recovery.grids import grids_of
from tests.passes.slimming import cut

KEPT = np.array([0, 2, 3, 5, 7])
BODY = """
<ir_version: 9, opset_import: ["" : 19]>
g (float[N,3,8,8] x) => (float[N,5,8,8] y)
{
    u = Conv <pads = [1,1,1,1]> (x, a)
    w = DequantizeLinear <axis = 0> (WEIGHT)
    c = DequantizeLinear <axis = 0> (b_q, b_s)
    y = Conv <pads = [1,1,1,1]> (u, w, c)
}
"""


def _first() -> NDArray[np.float64]:
    basis = np.random.default_rng(2).normal(size=(4, 3, 3, 3))
    return np.einsum("ob,bixy->oixy", np.random.default_rng(3).normal(size=(8, 4)), basis)


FLOAT8 = [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]


def _model(fake: bool, kind: type = np.int8) -> onnx.ModelProto:
    """Filters that four determine, then a layer of int8 or float8 weights with room to grow."""
    text = BODY.replace("WEIGHT", "w_q, w_s, w_z")
    if fake:
        text = text.replace("    w = ", "    q = QuantizeLinear <axis = 0> (w_f, w_s, w_z)\n    w = ").replace(
            "w_q", "q"
        )
    model = onnx.parser.parse_model(text)
    weights = np.random.default_rng(0).normal(size=(5, 8, 3, 3))
    scale = np.abs(weights).max(axis=(1, 2, 3)) / 40
    steps = weights / scale[:, None, None, None]
    stored = (np.rint(steps) if kind is np.int8 else steps).astype(kind)
    items = {"a": _first(), "w_s": scale, "b_s": scale * 0.01}
    for name, value in items.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    kept = {"w_f": weights.astype(np.float32)} if fake else {"w_q": stored}
    for name, array in {**kept, "w_z": np.zeros(5, kind), "b_q": np.arange(-200, 300, 100, dtype=np.int32)}.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    return model


def _recovered(model: onnx.ModelProto, keep: dict[str, dict[int, NDArray[np.int64]]], **kw: object) -> Recovery:
    kind = helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    x = np.random.default_rng(7).normal(size=(64, 3, 8, 8)).astype(kind)
    return recover(model, cut(model, keep), keep, calibrate_from({"x": x}, model), **kw)  # type: ignore[arg-type]


@pytest.mark.parametrize("fake", [False, True])
@pytest.mark.parametrize("mode", ["refit", "bias"])
@pytest.mark.parametrize("kind", [np.int8, *FLOAT8])
def test_quantised_weights_are_refitted_on_their_own_grid(fake: bool, mode: str, kind: type) -> None:
    model, name = _model(fake, kind), "w_f" if fake else "w_q"
    keep = {"a": {0: KEPT}, name: {1: KEPT}}
    result = _recovered(model, keep, mode=mode)
    before, after = (
        {item.name: numpy_helper.to_array(item) for item in m.graph.initializer}
        for m in (cut(model, keep), result.model)
    )
    assert [layer.action for layer in result.layers] == [mode]
    assert result.error_after < (0.02 if mode == "refit" else 1) * result.error_before
    assert {k: (v.dtype, v.shape) for k, v in before.items()} == {k: (v.dtype, v.shape) for k, v in after.items()}
    assert (after[name] != before[name]).any() == (mode == "refit")
    np.testing.assert_array_equal(after["w_s"], before["w_s"])
    np.testing.assert_array_equal(after["b_s"], before["b_s"])


def test_without_a_zero_point_an_attribute_says_what_the_grid_is() -> None:
    model = _model(fake=True)
    model.opset_import[0].version = 21
    quantises = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    for node in model.graph.node:
        if "w_z" in node.input:
            node.input.remove("w_z")
    assert grids_of(model)["w"].kind == np.uint8
    quantises.attribute.append(helper.make_attribute("output_dtype", TensorProto.INT8))
    assert grids_of(model)["w"].kind == np.int8
    assert _recovered(model, {"a": {0: KEPT}, "w_f": {1: KEPT}}).layers[0].action == "refit"


def test_what_is_reported_is_the_error_of_the_weights_as_stored() -> None:
    """On a grid of a few steps the unrounded solution is far better than any that can be stored."""
    model = _model(fake=False)
    for item in model.graph.initializer:
        if item.name == "w_s":
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item) * 20, "w_s"))
        elif item.name == "w_q":
            item.CopyFrom(numpy_helper.from_array(np.rint(numpy_helper.to_array(item) / 20).astype(np.int8), "w_q"))
    layer = _recovered(model, {"a": {0: KEPT}, "w_q": {1: KEPT}}).layers[0]
    assert 1e-3 < layer.after <= layer.before


def test_a_layer_without_bias_gets_none_where_runtimes_compute_in_integers() -> None:
    model = _model(fake=False)
    del model.graph.node[3].input[2:]
    del model.graph.node[2]
    result = _recovered(model, {"a": {0: KEPT}, "w_q": {1: KEPT}})
    assert list(result.model.graph.node[2].input) == ["u", "w"]
    assert result.error_after < result.error_before


@pytest.mark.parametrize("kind", [np.int8, *FLOAT8])
def test_a_grid_gives_the_nearest_number_and_clips_beyond_it(kind: type) -> None:
    model = _model(fake=False, kind=kind)
    grid = grids_of(model)["w"]
    values = Constants(model).get("w")
    np.testing.assert_allclose(grid.decoded(grid.encoded(values)), values)
    step = grid.scale if kind is np.int8 else np.abs(values) * float(ml_dtypes.finfo(kind).eps) / 2
    np.testing.assert_allclose(grid.decoded(grid.encoded(values + 0.4 * step)), values)
    most = 127 if kind is np.int8 else float(ml_dtypes.finfo(kind).max)
    assert (grid.encoded(values + 1e9) == most).all()


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_half_precision_is_recovered_in_float32_and_stored_as_it_was(kind: int) -> None:
    text = f"""<ir_version: 10, opset_import: ["" : 22]>
    g ({"float16" if kind == TensorProto.FLOAT16 else "bfloat16"}[N,3,8,8] x) => (float[N,5,8,8] y) {{
        u = Conv<pads=[1,1,1,1]>(x, a)\n v = Conv<pads=[1,1,1,1]>(u, b)\n y = Cast<to=1>(v) }}"""
    model = onnx.parser.parse_model(text)
    for name, value in (("a", _first()), ("b", np.random.default_rng(0).normal(size=(5, 8, 3, 3)))):
        array = value.astype(helper.tensor_dtype_to_np_dtype(kind))
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    result = _recovered(model, {"a": {0: KEPT}, "b": {1: KEPT}})
    assert {item.name: item.data_type for item in result.model.graph.initializer} == dict.fromkeys(
        ["a", "b", "b.bias"], kind
    )
    assert result.error_after < 1e-3 < result.error_before
    assert result.error_after > 1e-9  # the rounding of what is stored


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan])
def test_scales_that_are_not_above_zero_are_left_alone(scale: float) -> None:
    model = _model(fake=False)
    item = next(item for item in model.graph.initializer if item.name == "w_s")
    values = numpy_helper.to_array(item).copy()
    values[2] = scale
    item.CopyFrom(numpy_helper.from_array(values, "w_s"))
    assert "w" not in grids_of(model)


@pytest.mark.parametrize("attribute", [("block_size", 2)])
def test_blocked_scales_are_left_alone(attribute: tuple[str, int]) -> None:
    model = _model(fake=False)
    model.graph.node[1].attribute.append(helper.make_attribute(*attribute))
    assert "w" not in grids_of(model)


def test_integer_operators_are_skipped_with_the_reason() -> None:
    text = """<ir_version: 9, opset_import: ["" : 17]>
    g (uint8[N,4] x) => (int32[N,3] y) { u = MatMulInteger(x, a)\n v = Cast<to=2>(u)\n y = MatMulInteger(v, b) }"""
    model = onnx.parser.parse_model(text)
    for name, shape in (("a", (4, 6)), ("b", (6, 3))):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.uint8), name))
    keep = {"a": {1: np.array([0, 1])}, "b": {0: np.array([0, 1])}}
    x = np.random.default_rng(7).integers(0, 5, size=(16, 4)).astype(np.uint8)
    layers = recover(model, cut(model, keep), keep, calibrate_from({"x": x}, model)).layers
    assert [(layer.op, layer.action) for layer in layers] == [("MatMulInteger", "skipped")]
    assert "integers" in layers[0].reason
    assert model.graph.initializer[0].data_type == TensorProto.UINT8
