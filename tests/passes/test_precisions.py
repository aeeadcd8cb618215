"""Weights keep their type through load, couple, slim and verify: float16, bfloat16, float8, int4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from halpc.ir.plan import Plan
from passes.couple import couple
from passes.load import load
from passes.proto import proto_of
from passes.slim import plan_for, slim
from passes.verification.conversion import conversion_error
from passes.verify import verify

BLOCK = 16


def two_layers(element: Any, hidden: str, first: list[onnx.NodeProto], weights: dict[str, Any]) -> onnx.ModelProto:
    """x·w → Relu → ·v with 64 hidden channels; `first` makes w and v where they are quantised."""
    nodes = [
        *first,
        helper.make_node("MatMul", ["x", "w"], ["a"], name="up"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("MatMul", ["b", "v"], ["y"], name="down"),
    ]
    x, y = (helper.make_tensor_value_info(name, element, [3, 32]) for name in "xy")
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, hidden, [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def plain(element: int, dtype: Any) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal(shape).astype(dtype) for name, shape in (("w", (32, 64)), ("v", (64, 32)))}
    return two_layers(element, "plain", [], weights)


def quantised(dtype: Any, per: str) -> onnx.ModelProto:
    """w per channel, v per channel or in blocks of the axis that is summed over."""
    rng = np.random.default_rng(0)
    narrow = (rng.integers(-7, 8, shape).astype(np.float32).astype(dtype) for shape in ((32, 64), (64, 32)))
    scales = {"ws": (64,), "vs": (64 // BLOCK, 32) if per == "block" else (32,)}
    block: dict[str, int] = {"axis": 0, "block_size": BLOCK} if per == "block" else {"axis": 1}
    nodes = [
        helper.make_node("DequantizeLinear", ["wq", "ws"], ["w"], name="w_real", axis=1),
        helper.make_node("DequantizeLinear", ["vq", "vs"], ["v"], name="v_real", **block),
    ]
    weights = dict(zip(("wq", "vq"), narrow, strict=True))
    weights |= {name: rng.uniform(0.1, 1, shape).astype(np.float32) for name, shape in scales.items()}
    return two_layers(TensorProto.FLOAT, per, nodes, weights)


def pruned(model: onnx.ModelProto, folder: Path) -> tuple[onnx.ModelProto, Plan, float]:
    path = folder / "model.onnx"
    onnx.save(model, path)
    loaded = load(path)
    coupling = couple(loaded.twin)
    masks = {name: np.arange(group.size) % 4 != 1 for name, group in coupling.free().items()}
    plan = plan_for(loaded, coupling, masks)
    result = proto_of(slim(loaded, coupling, plan), loaded.header)
    return result, plan, verify(loaded, coupling, plan, result).max_relative_error


MODELS = {
    "float16": lambda: plain(TensorProto.FLOAT16, np.float16),
    "bfloat16": lambda: plain(TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "float64": lambda: plain(TensorProto.DOUBLE, np.float64),
    "int8": lambda: quantised(np.int8, "channel"),
    "int4": lambda: quantised(ml_dtypes.int4, "channel"),
    "int4-blocked": lambda: quantised(ml_dtypes.int4, "block"),
    "float8_e4m3fn": lambda: quantised(ml_dtypes.float8_e4m3fn, "channel"),
    "float8_e4m3fnuz": lambda: quantised(ml_dtypes.float8_e4m3fnuz, "channel"),
    "float8_e5m2": lambda: quantised(ml_dtypes.float8_e5m2, "channel"),
}


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_sliced_without_a_change_of_type(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    result, plan, _ = pruned(model, tmp_path)
    before, after = ({t.name: t for t in proto.graph.initializer} for proto in (model, result))
    assert len(plan.keep) >= 2
    for weight, axes in plan.keep.items():
        expected = numpy_helper.to_array(before[weight])
        for axis, kept in axes.items():
            expected = np.take(expected, kept, axis=axis)
        assert after[weight].data_type == before[weight].data_type
        assert numpy_helper.to_array(after[weight]).tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize("name", MODELS)
def test_a_quarter_of_the_hidden_channels_goes(name: str, tmp_path: Path) -> None:
    _, plan, error = pruned(MODELS[name](), tmp_path)
    widths = {len(kept) for axes in plan.keep.values() for kept in axes.values()}
    assert widths <= {48, 64 // BLOCK * 3 // 4}
    assert error < 1e-2


def test_what_a_conversion_moves_is_seen_where_normal_inputs_give_nan() -> None:
    text = """<ir_version: 9, opset_import: ["" : 17]> g (float[2,3] x) => (float[2,3] y) <float[3,3] w =
        {1, 2, 3, 4, 5, 6, 7, 8, 9}> { root = Sqrt(x) y = MatMul(root, w) }"""
    before, after = onnx.parser.parse_model(text), onnx.parser.parse_model(text.replace("9}", "8}"))
    assert conversion_error(before, after, {"x": (2, 3)}) > 0.01
