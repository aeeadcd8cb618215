"""A session computes what its model says, also where onnxruntime's optimiser does not keep to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from halpc.errors import ModelError
from passes.recovery.segments import open_session
from passes.runtime import level_of, run_within, session_of

KINDS = {"float8_e4m3fn": TensorProto.FLOAT8E4M3FN, "float8_e5m2": TensorProto.FLOAT8E5M2, "uint8": TensorProto.UINT8}


def rounded_behind_a_relu(kind: int, declared: str = "initializer") -> onnx.ModelProto:
    """y = Relu(x), rounded to `kind`, which its zero point says or, where that is absent, an attribute."""
    named, inputs = (f"<output_dtype = {kind}>", "scale") if declared == "attribute" else ("", "scale, zero")
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 21]> g (float[4] x) => (float[4] y) <float scale = {{1.0}}> {{
            r = Relu (x)
            q = QuantizeLinear {named} (r, {inputs})
            y = DequantizeLinear (q, {inputs})
        }}
    """)
    zero = onnx.helper.make_tensor("zero", kind, (), b"\0", raw=True)
    if declared == "initializer":
        model.graph.initializer.append(zero)
    elif declared == "constant":
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["zero"], value=zero))
    return model


@pytest.mark.parametrize("open_", [session_of, open_session])
@pytest.mark.parametrize("declared", ["initializer", "constant", "attribute"])
def test_a_relu_before_float8_is_computed(open_: Callable[..., ort.InferenceSession], declared: str) -> None:
    model = rounded_behind_a_relu(TensorProto.FLOAT8E4M3FN, declared)
    (y,) = open_(model).run(None, {"x": np.array([-2, -1, 1, 2], np.float32)})
    assert list(y) == [0, 0, 1, 2]


@pytest.mark.parametrize("name", KINDS)
def test_only_what_has_float8_goes_without_optimisations(name: str) -> None:
    levels = ort.GraphOptimizationLevel
    expected = levels.ORT_ENABLE_ALL if name == "uint8" else levels.ORT_DISABLE_ALL
    assert level_of(rounded_behind_a_relu(KINDS[name])) == expected
    assert level_of(rounded_behind_a_relu(KINDS[name]), optimise=False) == levels.ORT_DISABLE_ALL


def test_a_loop_that_does_not_end_is_stopped() -> None:
    session = session_of(
        onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]> g (float[4] x) => (float[4] y) <bool on = {1}> {
            y = Loop (, on, x) <body = b (int64 i, bool was, float[4] a) => (bool goes, float[4] b) {
                goes = Identity (was)
                b = Relu (a)
            }>
        }
    """)
    )
    with pytest.raises(ModelError, match=r"more than 0\.2 s; a loop in it may not end"):
        run_within(session, None, {"x": np.ones(4, np.float32)}, seconds=0.2)


def test_what_onnxruntime_says_of_a_run_is_passed_on() -> None:
    session = session_of(
        onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]> g (float[4] x) => (float[N] y) { y = Relu (x) }
    """)
    )
    assert run_within(session, ["y"], {"x": np.full(4, -1.0, np.float32)})[0].tolist() == [0, 0, 0, 0]
    with pytest.raises(Exception, match="Got invalid dimensions"):
        run_within(session, None, {"x": np.ones(5, np.float32)})
