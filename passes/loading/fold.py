"""What a graph computes at given input shapes: every tensor's static shape, and the value of what is constant.

One pass in topological order: onnx infers each node's output shapes from its input shapes and known values;
nodes of constants are evaluated, `Shape` is constant once its operand's shape is: by onnx's reference where that moves
entries or does plain arithmetic, else by onnxruntime, since the reference computes some operators otherwise than it
(BatchNormalization and Softmax of early opsets, LpNormalization, Resize, the clip of an LSTM, …). Operators that onnx
has no schema for are asked of onnxruntime by running the model once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from passes.runtime import session_of
from passes.weights import array_of

log = logging.getLogger(__name__)

SMALL = 65_536  # values of at most this many entries are always evaluated
GROWTH = 4  # larger ones only if they are at most this many times larger than what they are made of
KEEP = ("DequantizeLinear", "QuantizeLinear", "RandomNormal", "RandomUniform", "RandomNormalLike",
        "RandomUniformLike", "Multinomial", "Bernoulli", "If", "Loop", "Scan", "SequenceEmpty")  # fmt: skip
# What the reference and onnxruntime compute alike: moving entries, comparing, and arithmetic of single entries.
_PLAIN = frozenset((
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Compress", "Concat", "ConstantOfShape", "Div", "Equal", "Exp",
    "Expand", "Flatten", "Floor", "Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Log",
    "Max", "Min", "Mod", "Mul", "Neg", "NonZero", "Not", "Or", "Pow", "Range", "Reciprocal", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Round", "Shape", "Sigmoid", "Sign",
    "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "Transpose", "Unsqueeze", "Where", "Xor",
))  # fmt: skip
STANDS_FOR = {
    ("", "LayerNormalization"): ("LayerNormalization", 17),
    ("", "SimplifiedLayerNormalization"): ("RMSNormalization", 23),
    ("com.microsoft", "FusedConv"): ("Conv", 11),
    ("com.microsoft", "FusedGemm"): ("Gemm", 13),
}
"""Operators of ONNX that infer the shapes of onnxruntime's, from which opset on."""
SHAPE_DATA = 4096  # values up to this many entries are shown to shape inference


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a tensor at the given input shapes."""

    shape: tuple[int, ...]
    dtype: int
    value: NDArray[Any] | None = None


@dataclass(slots=True)
class Knowledge:
    """Known tensors by name, and names of tensors whose shape nobody could tell.

    `observed`: the hints that were given; `partial`: at sizes that the model may not take; what is not known there
    says nothing.
    """

    tensors: dict[str, Known] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    observed: Mapping[str, Known] = field(default_factory=dict)
    partial: bool = False


def interpret(
    graph: gs.Graph, shapes: Mapping[str, tuple[int, ...]], hints: Mapping[str, Known] | None = None
) -> Knowledge:
    """Everything that follows from the input shapes.

    Args:
        graph: topologically sorted.
        shapes: a static shape for every graph input.
        hints: shapes of tensors that inference cannot tell, as observed; used where all operands are known.
    """
    known = Knowledge(observed=hints or {})
    for tensor in graph.inputs:
        known.tensors[tensor.name] = Known(tuple(shapes[tensor.name]), onnx_type(tensor.dtype))
    opsets = _opsets(graph)
    for node in graph.nodes:
        _step(node, known, opsets)
    return known


def interpret_body(body: gs.Graph, tensors: Mapping[str, Known]) -> dict[str, Known]:
    """Everything that follows in a body from what is known of its inputs and of the graph around it."""
    known = Knowledge(dict(tensors))
    opsets = _opsets(body)
    for node in body.nodes:
        _step(node, known, opsets)
    return known.tensors


def _opsets(graph: gs.Graph) -> list[onnx.OperatorSetIdProto]:
    imports = {d.domain: d.version for d in graph.import_domains or ()}
    imports[""] = int(graph.opset)
    return [helper.make_opsetid(domain, version) for domain, version in imports.items()]


def _step(node: gs.Node, known: Knowledge, opsets: list[onnx.OperatorSetIdProto]) -> None:
    inputs = [None if t.is_empty() else look_up(t, known.tensors) for t in node.inputs]
    values = _evaluate(node, inputs, opsets)
    if values is None:
        outputs = _infer(node, known, opsets)
        complete = all(fact is not None for t, fact in zip(node.inputs, inputs, strict=True) if not t.is_empty())
        for tensor in node.outputs:
            found = outputs.get(tensor.name) or (known.observed.get(tensor.name) if complete else None)
            if found is not None:
                known.tensors[tensor.name] = found
            elif not tensor.is_empty():
                known.unknown.append(tensor.name)
    else:
        for tensor, value in zip(node.outputs, values, strict=False):
            known.tensors[tensor.name] = Known(value.shape, onnx_type(value.dtype), value)


def look_up(tensor: gs.Tensor, tensors: Mapping[str, Known]) -> Known | None:
    """What is known of a tensor, constants included (their values are read only when small)."""
    if isinstance(tensor, gs.Constant):
        shape = tuple(int(n) for n in tensor.shape)
        value = array_of(tensor) if int(np.prod(shape, dtype=np.int64)) <= SMALL else None
        return Known(shape, onnx_type(tensor.dtype), value)
    return tensors.get(tensor.name)


def _evaluate(
    node: gs.Node, inputs: list[Known | None], opsets: list[onnx.OperatorSetIdProto]
) -> list[NDArray[Any]] | None:
    """The node's outputs where they are constant and small enough to keep, else None."""
    if node.op in KEEP or node.domain not in ("", None, "ai.onnx"):
        return None
    if node.op == "Shape" and inputs[0] is not None:
        start, end = node.attrs.get("start", 0), node.attrs.get("end", None)
        return [np.array(inputs[0].shape[start:end], dtype=np.int64)]
    if node.op == "Size" and inputs[0] is not None:
        return [np.array(np.prod(inputs[0].shape, dtype=np.int64))]
    present = [t for t in node.inputs if not t.is_empty()]
    operands = [_value(t, k) for t, k in zip(node.inputs, inputs, strict=True) if not t.is_empty()]
    if any(v is None for v in operands) or (node.op == "ConstantOfShape" and not operands):
        return None
    if not _worth(node, operands):
        return None
    return _run(node, dict(zip((t.name for t in present), operands, strict=True)), opsets)


def _value(tensor: gs.Tensor, known: Known | None) -> NDArray[Any] | None:
    if known is not None and known.value is not None:
        return known.value
    return array_of(tensor) if isinstance(tensor, gs.Constant) and tensor.outputs else None


def _worth(node: gs.Node, operands: list[NDArray[Any] | None]) -> bool:
    """Whether evaluating cannot blow up the model: expansions only while they stay small."""
    read = sum(v.size for v in operands if v is not None)
    if node.op in ("Expand", "Tile", "Range", "OneHot", "EyeLike", "Gather"):
        try:
            made = _expanded(node, operands)
        except (ValueError, IndexError, TypeError):  # what does not fit is onnxruntime's to say
            return False
        return made <= SMALL or made <= GROWTH * read
    return True


def _expanded(node: gs.Node, operands: list[NDArray[Any] | None]) -> int:
    first = operands[0]
    if node.op == "Expand" and operands[1] is not None and first is not None:
        return int(np.prod(np.broadcast_shapes(first.shape, tuple(int(n) for n in operands[1])), dtype=np.int64))
    if node.op == "Tile" and operands[1] is not None and first is not None:
        return int(first.size * np.prod(operands[1], dtype=np.int64))
    if node.op == "Gather" and operands[1] is not None and first is not None:
        return int(operands[1].size * first.size // max(first.shape[node.attrs.get("axis", 0)], 1)) if first.ndim else 1
    return 0


def _run(
    node: gs.Node, feeds: dict[str, NDArray[Any] | None], opsets: list[onnx.OperatorSetIdProto]
) -> list[NDArray[Any]] | None:
    try:
        known = {name: value for name, value in feeds.items() if value is not None}
        proto = OnnxExporter.export_node(node)
        opset = next(o.version for o in opsets if o.domain == "")
        trains = _trains(proto, opset)
        if trains and opset < 14:
            known |= _own_statistics(proto, known)
            del proto.output[1:]
        return evaluate(proto, known, opsets) if trains or _plain(proto, known) else executed(proto, known, opsets)
    except Exception as error:  # any failure of the reference just means "not evaluated", which is always sound
        log.debug("not folded: %s %s: %s", node.op, node.name, error)
        return None


def _plain(node: onnx.NodeProto, feeds: Mapping[str, NDArray[Any]]) -> bool:
    """Whether onnx's reference and onnxruntime are of one mind; integers below zero they divide differently."""
    if node.op_type in ("Div", "Mod") and any(v.dtype.kind == "i" and (v < 0).any() for v in feeds.values()):
        return False
    return node.op_type in _PLAIN or any(v.dtype.kind not in "biuf" for v in feeds.values())


def _trains(node: onnx.NodeProto, opset: int) -> bool:
    """Whether it is a BatchNormalization in training mode, which onnxruntime has no kernel for."""
    if node.op_type != "BatchNormalization":
        return False
    return len(node.output) > 1 if opset < 14 else any(a.name == "training_mode" and a.i for a in node.attribute)


def _own_statistics(node: onnx.NodeProto, known: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Mean and variance of a BatchNormalization that trains: before opset 14, one with more than one output.

    The reference knows only inference there. Source: https://onnx.ai/onnx/operators/onnx__BatchNormalization.html

    Raises:
        ValueError: the operands' names do not tell them apart.
    """
    if len(set(node.input)) < len(node.input):
        raise ValueError("two operands are one tensor")
    x = known[node.input[0]]
    axes = tuple(i for i in range(x.ndim) if i != 1)
    mean, variance = x.mean(axis=axes, dtype=np.float64), x.var(axis=axes, dtype=np.float64)
    return {node.input[3]: mean.astype(x.dtype), node.input[4]: variance.astype(x.dtype)}


def executed(
    node: onnx.NodeProto, feeds: Mapping[str, NDArray[Any]], opsets: list[onnx.OperatorSetIdProto]
) -> list[NDArray[Any]]:
    """A node's present outputs, by onnxruntime. Raises what onnxruntime raises."""
    session = session_of(_alone(node, feeds, opsets), optimise=False, threads=1)
    return [np.asarray(value) for value in session.run(None, dict(feeds))]


def evaluate(
    node: onnx.NodeProto, feeds: Mapping[str, NDArray[Any]], opsets: list[onnx.OperatorSetIdProto]
) -> list[NDArray[Any]]:
    """A node's present outputs, by onnx's reference. Raises what the reference raises."""
    return [np.asarray(v) for v in ReferenceEvaluator(_alone(node, feeds, opsets)).run(None, dict(feeds))]


def _alone(
    node: onnx.NodeProto, feeds: Mapping[str, NDArray[Any]], opsets: list[onnx.OperatorSetIdProto]
) -> onnx.ModelProto:
    types = [helper.make_tensor_value_info(n, onnx_type(v.dtype), v.shape) for n, v in feeds.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    return helper.make_model(helper.make_graph([node], "one", types, outputs), opset_imports=opsets, ir_version=8)


def _infer(node: gs.Node, known: Knowledge, opsets: list[onnx.OperatorSetIdProto]) -> dict[str, Known]:
    """Output shapes by onnx's own inference; nothing where it has no answer."""
    version = next((o.version for o in opsets if o.domain == (node.domain or "")), 1)
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for tensor in (*node.inputs, *_outer(node)):
        if tensor.is_empty():
            continue
        fact = look_up(tensor, known.tensors)
        if fact is None:
            return {}
        types[tensor.name] = helper.make_tensor_type_proto(fact.dtype, fact.shape)
        if fact.value is not None and fact.value.size <= SHAPE_DATA and fact.value.dtype != object:
            data[tensor.name] = numpy_helper.from_array(np.asarray(fact.value), tensor.name)
    try:
        schema = _schema(node.op, version, node.domain or "")
        proto = _said_in(schema, OnnxExporter.export_node(node))
        found = shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=opsets)
    except Exception as error:  # onnx raises several unrelated types here; unknown is a sound answer
        log.debug("no shapes: %s %s: %s", node.op, node.name, error)
        return {}
    return {name: fact for name, kind in found.items() if (fact := _known(kind)) is not None}


def _schema(op: str, version: int, domain: str) -> onnx.defs.OpSchema:
    name, since = STANDS_FOR.get((domain, op), (op, version))
    return onnx.defs.get_schema(name, max(version, since), domain if name == op else "")


def _said_in(schema: onnx.defs.OpSchema, node: onnx.NodeProto) -> onnx.NodeProto:
    """The node without the attributes and operands that the operator which infers its shapes does not have."""
    if schema.name != node.op_type:
        del node.input[len(schema.inputs) :]
        known = [attribute for attribute in node.attribute if attribute.name in schema.attributes]
        del node.attribute[:]
        node.attribute.extend(known)
    return node


def _outer(node: gs.Node) -> list[gs.Tensor]:
    from passes.coupling.view import captured

    return captured(node)


def _known(kind: onnx.TypeProto) -> Known | None:
    if kind.HasField("sequence_type") or kind.HasField("optional_type"):
        return Known((), onnx.TensorProto.UNDEFINED)  # it has no axes of its own; what goes in and comes out has
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    if any(not d.HasField("dim_value") for d in dims):
        return None
    return Known(tuple(d.dim_value for d in dims), kind.tensor_type.elem_type)


def onnx_type(dtype: Any) -> int:
    """A dtype as onnx numbers it; float where it is not known."""
    if isinstance(dtype, int) or dtype is None:
        return int(dtype or onnx.TensorProto.FLOAT)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
