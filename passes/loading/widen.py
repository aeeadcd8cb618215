"""bfloat16 as float32: onnxruntime's CPU kernels hardly know it, and whether two graphs compute the same is a
question about numbers, not about their type."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

TYPES = ("to", "dtype", "output_dtype")  # attributes that name a type


def has_bfloat16(model: onnx.ModelProto) -> bool:
    """Whether any weight, input, output or cast of the model is bfloat16."""
    return mentions(model, (TensorProto.BFLOAT16,))


def mentions(model: onnx.ModelProto, kinds: Collection[int]) -> bool:
    """Whether any weight, input, output or cast of the model has one of these element types."""
    return any(not set(kinds).isdisjoint(_types(graph)) for graph in _graphs(model.graph))


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model with float32 in place of bfloat16."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for graph in _graphs(wide.graph):
        for tensor in _tensors(graph):
            if tensor.data_type == TensorProto.BFLOAT16:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for attribute in _attributes(graph):
            if attribute.name in TYPES and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
    return wide


def _types(graph: onnx.GraphProto) -> Iterable[int]:
    yield from (tensor.data_type for tensor in _tensors(graph))
    yield from (value.type.tensor_type.elem_type for value in (*graph.input, *graph.output))
    yield from (attribute.i for attribute in _attributes(graph) if attribute.name in TYPES)


def _attributes(graph: onnx.GraphProto) -> Iterable[onnx.AttributeProto]:
    return (attribute for node in graph.node for attribute in node.attribute)


def _tensors(graph: onnx.GraphProto) -> Iterable[onnx.TensorProto]:
    yield from graph.initializer
    yield from (a.t for a in _attributes(graph) if a.type == onnx.AttributeProto.TENSOR)


def _graphs(graph: onnx.GraphProto) -> Iterable[onnx.GraphProto]:
    yield graph
    for attribute in _attributes(graph):
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield from _graphs(attribute.g)
