"""Half-precision models in float32, to be recovered there, and the weights' way back.

onnxruntime computes some half-precision operators on a CPU by casting around them and others (all of bfloat16's) not at
all; and activations rounded to half would be fitted with their rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from passes.calibration import Calibration

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
TYPE_ATTRIBUTES = {"to", "dtype", "output_dtype"}


def is_half(model: onnx.ModelProto) -> bool:
    """Whether any initializer or constant of the model is in half precision."""
    constants = (
        a.t.data_type for graph in _graphs(model.graph) for n in graph.node for a in n.attribute if _is_tensor(a)
    )
    return any(kind in HALVES for kind in (*(item.data_type for item in model.graph.initializer), *constants))


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every half-precision tensor is float32; names and nodes are unchanged."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for graph in _graphs(wide.graph):
        for item in graph.initializer:
            _widen_tensor(item)
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type in HALVES:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for attribute in (a for node in graph.node for a in node.attribute):
            if _is_tensor(attribute):
                _widen_tensor(attribute.t)
            elif attribute.name in TYPE_ATTRIBUTES and attribute.i in HALVES:
                attribute.i = TensorProto.FLOAT
    return wide


def widened_inputs(calibration: Calibration) -> Calibration:
    """The same samples, those in half precision as float32."""
    inputs, fixed = ({n: _as_float32(a) for n, a in some.items()} for some in (calibration.inputs, calibration.fixed))
    return replace(calibration, inputs=inputs, fixed=fixed)


def narrowed(wide: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with the values of its widened copy `wide`, and with the biases that were added there.

    A new initializer gets the type of the constant beside it.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    kinds = {item.name: item.data_type for item in model.graph.initializer}
    for new, old in zip(wide.graph.node, result.graph.node, strict=True):
        beside = next((kinds[name] for name in old.input[1:] if name in kinds), TensorProto.FLOAT)
        for name in new.input[len(old.input) :]:
            kinds.setdefault(name, beside)
        del old.input[:]
        old.input.extend(new.input)
    del result.graph.initializer[:]
    for item in wide.graph.initializer:
        result.graph.initializer.append(_retyped(item, kinds[item.name]))
    return result


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.type == AttributeProto.GRAPH else [])):
                yield from _graphs(inner)


def _is_tensor(attribute: onnx.AttributeProto) -> bool:
    return bool(attribute.type == AttributeProto.TENSOR)


def _widen_tensor(item: onnx.TensorProto) -> None:
    if item.data_type in HALVES:
        item.CopyFrom(numpy_helper.from_array(_as_float32(numpy_helper.to_array(item)), item.name))


def _as_float32(array: NDArray[Any]) -> NDArray[Any]:
    half = array.dtype.itemsize == 2 and array.dtype.kind not in "iub"
    result = array.astype(np.float32) if half else array
    result.setflags(write=False)
    return result


def _retyped(item: onnx.TensorProto, kind: int) -> onnx.TensorProto:
    """The same numbers in another element type, rounded."""
    if item.data_type == kind:
        return item
    array = numpy_helper.to_array(item).astype(helper.tensor_dtype_to_np_dtype(kind))
    return numpy_helper.from_array(array, item.name)
