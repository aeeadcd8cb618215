"""Damage to ONNX files, as slips of tools and hands make it: a field of a node, weight, input or import is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.random import Generator
from onnx import AttributeProto, numpy_helper

from passes.proto import every_graph_of

SIZES = (0, -1, 1, 2, 3, 7, -(2**31), 2**31 - 1, 2**62, -(2**63), 100, 65536)
FLOATS = (0.0, float("nan"), float("inf"), -1.0, 1e30)
OPERATORS = (
    "Relu", "Conv", "Add", "Concat", "Reshape", "Gather", "Slice", "MatMul", "Gemm", "Transpose", "Split", "Resize",
    "Pad", "TopK", "LSTM", "Softmax", "BatchNormalization", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Where",
    "Identity", "MaxPool", "DepthToSpace", "Einsum", "Dropout", "ConvTranspose", "QuantizeLinear", "Cast",
    "LayerNormalization",
)  # fmt: skip
DOMAINS = ("ai.onnx", "ai.onnx.ml", "com.microsoft", "foo")
VERSIONS = (0, -1, 1, 7, 9, 11, 13, 18, 21, 25, 999)


def damage(model: onnx.ModelProto, rng: Generator) -> None:
    """One to three slips, in place."""
    for _ in range(1 + rng.binomial(2, 0.3)):
        graphs = list(every_graph_of(model))
        graph = graphs[rng.integers(len(graphs))]
        slip = SLIPS[rng.integers(len(SLIPS))]
        slip(model, graph, rng)


def _one(rng: Generator, of: Any) -> Any:
    return of[int(rng.integers(len(of)))]


def _node(graph: onnx.GraphProto, rng: Generator) -> onnx.NodeProto:
    return _one(rng, graph.node)


def _names(graph: onnx.GraphProto) -> list[str]:
    made = [name for node in graph.node for name in node.output]
    return [*made, *(t.name for t in graph.initializer), *(v.name for v in graph.input)]


def _operator(model: onnx.ModelProto, graph: onnx.GraphProto, rng: Generator) -> None:
    _node(graph, rng).op_type = _one(rng, OPERATORS)


def _domain(model: onnx.ModelProto, graph: onnx.GraphProto, rng: Generator) -> None:
    _node(graph, rng).domain = _one(rng, DOMAINS)


def _version(model: onnx.ModelProto, graph: onnx.GraphProto, rng: Generator) -> None:
    _one(rng, model.opset_import).version = _one(rng, VERSIONS)


def _operand(model: onnx.ModelProto, graph: onnx.GraphProto, rng: Generator) -> None:
    node = _node(graph, rng)
    if node.input:
        node.input[int(rng.integers(len(node.input)))] = _one(rng, [*_names(graph), ""])


def _fewer(model: onnx.ModelProto, graph: onnx.GraphProto, rng: Generator) -> None:
    node = _node(graph, rng)
    if len(node.input) > 1:
        del node.input[-1]


def _result(model: onnx.ModelProto, graph: onnx.GraphProto, rng: Generator) -> None:
    node = _node(graph, rng)
    if rng.random() < 0.5:
        node.output.append("one more")
    elif node.output:
        node.output[0] = _one(rng, [*_names(graph), ""])


def _lost(model: onnx.ModelProto, graph: onnx.GraphProto, rng: Generator) -> None:
    graph.node.remove(_node(graph, rng))


def _attribute(model: onnx.ModelProto, graph: onnx.GraphProto, rng: Generator) -> None:
    node = _node(graph, rng)
    if not node.attribute:
        return
    attribute = _one(rng, node.attribute)
    if rng.random() < 0.3:
        node.attribute.remove(attribute)
    elif attribute.type == AttributeProto.INT:
        attribute.i = _one(rng, SIZES)
    elif attribute.type == AttributeProto.INTS and attribute.ints:
        attribute.ints[int(rng.integers(len(attribute.ints)))] = _one(rng, SIZES)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = _one(rng, FLOATS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = _one(rng, [b"", b"linear", b"\xff", b"SAME_UPPER", b"reflect"])


def _shape(model: onnx.ModelProto, graph: onnx.GraphProto, rng: Generator) -> None:
    tensors = [tensor for tensor in graph.initializer if tensor.dims]
    if tensors:
        tensor = _one(rng, tensors)
        tensor.dims[int(rng.integers(len(tensor.dims)))] = _one(rng, SIZES)


def _entries(model: onnx.ModelProto, graph: onnx.GraphProto, rng: Generator) -> None:
    if not graph.initializer:
        return
    tensor = _one(rng, graph.initializer)
    try:
        values = numpy_helper.to_array(tensor).copy()
    except ValueError:  # an earlier slip was in its shape
        return
    if values.dtype.kind in "iu" and values.size:
        values.reshape(-1)[rng.integers(values.size)] = np.array(_one(rng, SIZES)).astype(values.dtype)
    else:
        values = np.ascontiguousarray(values.transpose(rng.permutation(values.ndim)))
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _size(model: onnx.ModelProto, graph: onnx.GraphProto, rng: Generator) -> None:
    sizes = [size for value in graph.input for size in value.type.tensor_type.shape.dim]
    if sizes and rng.random() < 0.5:
        _one(rng, sizes).dim_value = _one(rng, SIZES)
    elif sizes:
        _one(rng, sizes).dim_param = _one(rng, ["N", "", "x y"])


SLIPS: tuple[Callable[[onnx.ModelProto, onnx.GraphProto, Generator], None], ...] = (
    _operator, _domain, _version, _operand, _fewer, _result, _lost, _attribute, _shape, _entries, _size,
)  # fmt: skip
