"""float8: which models have it, and Q/DQ models in int8 retyped as E4M3FN.

A scale is amax / 448, E4M3FN's largest number: per output channel of a weight, per tensor of an activation. E4M3FN has
no infinity: what is larger would be NaN, so it is clipped.

Source: ONNX, "Float stored in 8 bits"; arXiv 2209.05433, "FP8 Formats for Deep Learning".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from passes.loading.widen import mentions

FLOAT8: Final = (
    TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ,
)  # fmt: skip
LARGEST: Final = float(ml_dtypes.finfo(ml_dtypes.float8_e4m3fn).max)
_INT8_LARGEST: Final = 127.0  # onnxruntime's symmetric int8 leaves −128 out


def has_float8(model: onnx.ModelProto) -> bool:
    """Whether any weight, zero point, input, output or cast of the model is float8, of whatever kind."""
    return mentions(model, FLOAT8)


def as_float8(quantised: onnx.ModelProto, source: onnx.ModelProto) -> onnx.ModelProto:
    """`quantised` with E4M3FN in place of int8, in place; names stay.

    Args:
        quantised: symmetric Q/DQ in int8, as onnxruntime makes it: a weight `w` is `w_quantized`.
        source: the float model that it came of. Weights are rounded from there, not through int8.
    """
    weights = {tensor.name: tensor for tensor in source.graph.initializer}
    constants = {tensor.name: tensor for tensor in quantised.graph.initializer}
    done: set[str] = set()  # what quantises and what dequantises share a scale
    for node in quantised.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[1] not in done:
            done.add(node.input[1])
            _retype(node, constants, weights)
    return quantised


def _retype(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], weights: Mapping[str, onnx.TensorProto]
) -> None:
    stored, scale, zero = constants.get(node.input[0]), constants[node.input[1]], constants[node.input[2]]
    scales = numpy_helper.to_array(scale)
    if stored is None:
        scales = np.asarray(scales * np.float32(_INT8_LARGEST / LARGEST))
    else:
        weight = numpy_helper.to_array(weights[stored.name.removesuffix("_quantized")])
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1) if scales.ndim else None
        scales, values = _rounded(weight, axis)
        stored.CopyFrom(_proto(values, stored.name))
    scale.CopyFrom(numpy_helper.from_array(scales, scale.name))
    zero.CopyFrom(_proto(np.zeros(scales.shape, ml_dtypes.float8_e4m3fn), zero.name))


def _rounded(weight: NDArray[Any], axis: int | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """float32[] or float32[width of `axis`] scales, 1 for nothing but zeros, and the weight over them in float8."""
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    scale = np.abs(weight).max(axis=others, keepdims=True, initial=0.0) / np.float32(LARGEST)
    scale = np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale)
    values = np.clip(weight / scale, -LARGEST, LARGEST).astype(ml_dtypes.float8_e4m3fn)
    return scale.reshape(() if axis is None else -1), values


def _proto(values: NDArray[Any], name: str) -> onnx.TensorProto:
    return onnx.helper.make_tensor(name, TensorProto.FLOAT8E4M3FN, values.shape, values.tobytes(), raw=True)
