"""Each precision is what it says, computes nearly the same, and passes through where it is there already."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from halpc.errors import CalibrationError, ModelError, UsageError
from halpc.options import PRECISIONS
from passes.cast import cast, cast_for_timing, precision_of

Array = NDArray[Any]


def network(opset: int = 17, *, scale: float = 0.1) -> onnx.ModelProto:
    """Two convolutions with a shortcut, a pool, a classifier; nodes without names."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : {opset}]>
        residual (float[1,8,12,12] x) => (float[1,5] y) {{
            c = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
            r = Relu (c)
            d = Conv <pads = [1, 1, 1, 1]> (r, w2)
            s = Add (d, r)
            p = GlobalAveragePool (s)
            f = Flatten (p)
            y = Gemm <transB = 1> (f, wf, bf)
        }}
    """)
    rng = np.random.default_rng(0)
    shapes = {"w1": (16, 8, 3, 3), "b1": (16,), "w2": (16, 16, 3, 3), "wf": (5, 16), "bf": (5,)}
    for name, shape in shapes.items():
        values = (rng.normal(size=shape) * scale).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def feeds(count: int = 4) -> list[dict[str, Array]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.standard_normal((1, 8, 12, 12)).astype(np.float32)} for _ in range(count)]


def run(model: onnx.ModelProto, feed: Mapping[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(feed))[0], dtype=np.float64)


def weight_types(model: onnx.ModelProto) -> set[int]:
    return {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1}


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 0.0), ("tf32", 0.0), ("fp16", 0.01), ("int8", 0.05)])
def test_a_cast_model_computes_nearly_the_same(precision: str, tolerance: float) -> None:
    model, inputs = network(), feeds()
    exact, found = run(model, inputs[0]), run(cast(model, precision, inputs=inputs), inputs[0])
    assert np.abs(found - exact).max() <= tolerance * np.abs(exact).max()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_casting_leaves_its_model_alone_and_twice_is_once(precision: str) -> None:
    model = network(22)
    before = model.SerializeToString(deterministic=True)
    once = cast(model, precision, inputs=feeds())
    assert model.SerializeToString(deterministic=True) == before
    assert precision_of(once) == ("fp32" if precision == "tf32" else precision)
    assert cast(once, precision, inputs=feeds()) == once


@pytest.mark.parametrize(
    ("precision", "kind"),
    [
        ("fp16", TensorProto.FLOAT16),
        ("bf16", TensorProto.BFLOAT16),
        ("int8", TensorProto.INT8),
        ("fp8", TensorProto.FLOAT8E4M3FN),
    ],
)
def test_weights_have_the_type_and_the_model_passes_the_checker(precision: str, kind: int) -> None:
    found = cast(network(22), precision, inputs=feeds())
    onnx.checker.check_model(found, full_check=True)
    assert weight_types(found) == {kind}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("keep", [True, False])
def test_inputs_and_outputs_stay_float32_only_when_kept(precision: str, keep: bool) -> None:
    found = cast(network(22), precision, keep_io_types=keep)
    half = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    types = {value.type.tensor_type.elem_type for value in (*found.graph.input, *found.graph.output)}
    assert types == ({TensorProto.FLOAT} if keep else {half})


def test_initializer_names_survive_the_half_precisions() -> None:
    names = {tensor.name for tensor in network().graph.initializer}
    for precision in ("fp16", "bf16"):
        assert {tensor.name for tensor in cast(network(22), precision).graph.initializer} == names


def test_bfloat16_is_float32_rounded_to_nearest_even_and_not_through_float16() -> None:
    model = network(22, scale=1e-12)  # far below fp16's least subnormal
    source = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "w1")
    found = next(t for t in cast(model, "bf16").graph.initializer if t.name == "w1")
    bits = np.frombuffer(found.raw_data, np.uint16).reshape(source.shape)
    rounded = (bits.astype(np.uint32) << 16).view(np.float32)
    assert np.abs(rounded - source).max() <= np.abs(source).max() * 2.0**-8
    assert (np.abs(rounded - source) <= np.abs(source) * 2.0**-8).all()
    assert rounded.any()


def test_bfloat16_raises_an_older_operator_set() -> None:
    assert cast(network(17), "bf16").opset_import[0].version == 22


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_quantisation_is_symmetric_and_leaves_biases_alone(precision: str) -> None:
    found = cast(network(), precision, inputs=feeds())
    values = {tensor.name: tensor for tensor in found.graph.initializer}
    points = [values[name] for name in values if name.endswith("zero_point")]
    assert points
    assert not any(any(tensor.raw_data) or any(tensor.int32_data) for tensor in points)
    assert {values["b1"].data_type, values["bf"].data_type} == {TensorProto.FLOAT}


def test_weights_are_quantised_per_channel() -> None:
    found = cast(network(), "int8", inputs=feeds())
    scale = next(tensor for tensor in found.graph.initializer if tensor.name == "w1_scale")
    assert list(scale.dims) == [16]


def values_of(model: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_an_fp8_scale_is_the_largest_magnitude_over_448_per_channel_and_per_activation() -> None:
    model, inputs = network(), feeds()
    before, after = values_of(model), values_of(cast(model, "fp8", inputs=inputs))
    largest = max(np.abs(feed["x"]).max() for feed in inputs)
    assert after["x_scale"] == pytest.approx(largest / 448, rel=1e-6)
    for name in ("w1", "w2", "wf"):
        rows = np.abs(before[name]).reshape(len(before[name]), -1).max(axis=1)
        assert after[f"{name}_scale"] == pytest.approx(rows / 448, rel=1e-6)


def test_an_fp8_weight_is_rounded_from_the_original_and_its_largest_entry_is_448() -> None:
    model = network()
    before, after = values_of(model), values_of(cast(model, "fp8", inputs=feeds()))
    rows = after["w2_quantized"].astype(np.float32).reshape(16, -1)
    assert (np.abs(rows).max(axis=1) == 448).all()
    scale = after["w2_scale"].reshape(-1, 1, 1, 1)
    error = np.abs(after["w2_quantized"].astype(np.float32) * scale - before["w2"])
    assert (error <= np.maximum(np.abs(before["w2"]) * 2.0**-4, scale * 2.0**-9) * 1.001).all()  # half of a step


def test_fp8_computes_nearly_the_same_by_onnx_own_interpreter() -> None:
    model, inputs = network(), feeds()
    exact = run(model, inputs[0])
    found = ReferenceEvaluator(cast(model, "fp8", inputs=inputs)).run(None, inputs[0])[0]
    assert 0 < np.abs(found - exact).max() <= 0.1 * np.abs(exact).max()


def test_a_matrix_whose_columns_are_its_outputs_has_a_scale_per_column() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 17]> g (float[2,6] x) => (float[2,3] y) { y = MatMul (x, w) }'
    )
    weight = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    found = values_of(cast(model, "fp8", inputs=[{"x": np.ones((2, 6), np.float32)}]))
    assert found["w_scale"] == pytest.approx(np.abs(weight).max(axis=0) / 448, rel=1e-6)


def test_what_is_all_zero_has_an_fp8_scale_above_zero() -> None:
    model = network()
    for tensor in model.graph.initializer:
        if tensor.name == "w2":
            whole = numpy_helper.to_array(tensor).copy()
            whole[3] = 0.0
            tensor.CopyFrom(numpy_helper.from_array(whole, "w2"))
    found = cast(model, "fp8", inputs=[{"x": np.zeros((1, 8, 12, 12), np.float32)}])
    values = values_of(found)
    assert all((values[name] > 0).all() for name in values if name.endswith("_scale"))
    assert not values["w2_quantized"][3].astype(np.float32).any()


def test_int8_and_fp8_quantise_at_the_same_places_under_the_same_names() -> None:
    int8, fp8 = (cast(network(19), precision, inputs=feeds()) for precision in ("int8", "fp8"))
    assert list(int8.graph.node) == list(fp8.graph.node)
    shapes = [{t.name: tuple(t.dims) for t in model.graph.initializer} for model in (int8, fp8)]
    assert shapes[0] == shapes[1]
    assert {"w1_quantized", "w1_scale", "w1_zero_point", "x_scale"} <= set(shapes[1])


def test_a_model_whose_weights_are_rounded_to_float8_as_it_runs_is_fp8() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 19]> g (float[2,6] x) => (float[2,3] y) <float scale = {0.1}> {
            q = QuantizeLinear (x, scale, zero)
            d = DequantizeLinear (q, scale, zero)
            y = MatMul (d, w)
        }
    """)
    zero = onnx.helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, (), b"\0", raw=True)
    model.graph.initializer.extend([zero, numpy_helper.from_array(np.ones((6, 3), np.float32), "w")])
    assert precision_of(model) == "fp8"


def test_the_residual_add_and_the_classifier_take_quantised_inputs() -> None:
    found = cast(network(), "int8", inputs=feeds())
    makers = {output: node.op_type for node in found.graph.node for output in node.output}
    for node in found.graph.node:
        if node.op_type in ("Conv", "Gemm", "Add"):
            assert [makers.get(name) for name in node.input[:2]] == ["DequantizeLinear"] * 2
    assert makers["y"] == "Gemm"


def test_a_model_of_another_precision_is_refused_with_the_mend() -> None:
    with pytest.raises(ModelError, match=r"already int8 .*--precision int8"):
        cast(cast(network(), "int8", inputs=feeds()), "fp16")
    with pytest.raises(ModelError, match="already fp16"):
        cast(cast(network(), "fp16"), "fp32")


def test_an_unknown_precision_lists_the_known() -> None:
    with pytest.raises(UsageError, match=r"fp64.*fp32, tf32, fp16, bf16, int8, fp8"):
        cast(network(), "fp64")


def test_a_weight_beyond_float16_is_named() -> None:
    model = network()
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.full(16, 7e4, np.float32), "b1"))
    with pytest.raises(ModelError, match=r"'b1' reaches 7e\+04.*--precision bf16"):
        cast(model, "fp16")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "needs calibration inputs"),
        ([{"z": np.zeros(1)}], "input 0: 'x' is missing"),
        ([feeds(1)[0], {"x": np.zeros((1, 8, 12))}], r"input 1: 'x' has shape \(1, 8, 12\)"),
        ([{"x": np.zeros((2, 8, 12, 12))}], r"input 0: 'x' has shape \(2,"),
    ],
)
def test_calibration_inputs_are_checked(inputs: list[dict[str, Array]], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        cast(network(), "int8", inputs=inputs)


def test_a_model_with_nothing_to_quantise_is_refused() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu (x) }
    """)
    with pytest.raises(ModelError, match="nothing in the model can be made int8"):
        cast(model, "int8", inputs=[{"x": np.zeros(2, np.float32)}])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_timing_needs_no_calibration_inputs(precision: str) -> None:
    assert cast_for_timing(network(22), precision).graph.output[0].name == "y"


def test_quantising_says_nothing_to_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    handlers = list(logging.getLogger().handlers)
    cast(network(), "fp8", inputs=feeds())
    assert capsys.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers
