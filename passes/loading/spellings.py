"""What files say in more than one way, said in one: before anything is checked or looked at.

- `ai.onnx` is the standard domain, whose name is empty.
- Sparse weights are dense ones: graphsurgeon reads some of their storage forms as zeros.
- A function's default attributes are those of each call that has none: onnx's inliner forgets them.
- Whole numbers do not have names that onnxruntime's optimiser gives itself.
- A size below 0 is an open one, as onnxruntime takes it; others have a name or nothing there.
- Outputs without a shape get the one that inference tells; before IR version 4 the checker wants weights as inputs.

Source: https://onnx.ai/onnx/repo-docs/IR.html, sections on operator sets, functions and sparse initializers.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, shape_inference

from halpc.errors import ModelError
from passes.proto import bodies, every_node, every_node_of, fits, nodes_of_functions

log = logging.getLogger(__name__)

MOST_ENTRIES = 1 << 31  # of a sparse weight written out
_LEAST_IR = 4
_ALIAS = "ai.onnx"
_GENERATED = re.compile(r"_token_\d+$")
_NUMBERS = frozenset(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING}


def respell(proto: onnx.ModelProto) -> None:
    """Says everything in one way, in place.

    Raises:
        ModelError: a sparse weight that is none, or that no memory holds.
    """
    for named in (*proto.opset_import, *(e for f in proto.functions for e in f.opset_import), *every_node_of(proto)):
        if named.domain == _ALIAS:
            named.domain = ""
    for graph in (proto.graph, *bodies(proto.graph.node)):
        _dense(graph)
    _dense_constants(every_node_of(proto))
    _complete_calls(proto)
    _rename_generated(proto)
    _open_sizes(proto)
    proto.ir_version = max(proto.ir_version, _LEAST_IR)
    _shape_outputs(proto)


def write_out_functions(proto: onnx.ModelProto) -> None:
    """Sparse constants of functions alone, in place: onnxruntime 1.32 frees them before it reads them."""
    _dense_constants(nodes_of_functions(proto))


def drop_absent(proto: onnx.ModelProto) -> None:
    """Absent operands at the end are not written: onnxruntime 1.32's optimiser crashes at some of them."""
    for node in every_node_of(proto):
        while node.input and not node.input[-1]:
            del node.input[-1]


def _dense(graph: onnx.GraphProto) -> None:
    for sparse in graph.sparse_initializer:
        name = sparse.values.name
        graph.initializer.append(numpy_helper.from_array(_written_out(sparse, name), name))
    del graph.sparse_initializer[:]


def _dense_constants(nodes: Iterator[onnx.NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "sparse_value":
                value = numpy_helper.from_array(_written_out(attribute.sparse_tensor, node.name))
                attribute.CopyFrom(onnx.helper.make_attribute("value", value))


def _written_out(sparse: onnx.SparseTensorProto, name: str) -> NDArray[np.generic]:
    """A sparse tensor's entries; its indices are positions in the whole, or one per axis."""
    shape = tuple(int(size) for size in sparse.dims)
    if any(size < 0 for size in shape) or math.prod(shape) > MOST_ENTRIES:
        raise ModelError(f"sparse weight {name} has shape {list(shape)}, which no memory holds; export it dense")
    if sparse.values.data_type not in _NUMBERS:
        raise ModelError(f"sparse weight {name} holds no numbers; export it dense")
    if sparse.indices.data_type != onnx.TensorProto.INT64:
        raise ModelError(f"sparse weight {name}: its indices are no int64; export it dense")
    try:
        values, at = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
        dense = np.zeros(math.prod(shape), values.dtype)
        np.put(dense, np.ravel_multi_index(tuple(at.T), shape) if at.ndim == 2 else _positions(at), values)
    except (ValueError, IndexError, TypeError) as error:
        raise ModelError(f"sparse weight {name}: its indices do not fit its shape {list(shape)}: {error}") from error
    return dense.reshape(shape)


def _positions(at: NDArray[np.int64]) -> NDArray[np.int64]:
    if at.size and np.min(at) < 0:
        raise IndexError(f"{np.min(at)} is below 0")
    return at


def _rename_generated(proto: onnx.ModelProto) -> None:
    """In a file that came out of onnxruntime's optimiser the next one takes some of these names for its own again.

    Then 1.32 does not load the model ("Attempt to replace the existing tensor").
    """
    inner = list(bodies(proto.graph.node))
    kept = {value.name for graph in (proto.graph, *inner) for value in (*graph.input, *graph.output)}
    kept |= {tensor.name for body in inner for tensor in body.initializer}
    names: dict[str, str] = {}
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT64 and _GENERATED.search(tensor.name) and tensor.name not in kept:
            names[tensor.name] = tensor.name = f"{tensor.name}/literal"
    for node in every_node(proto.graph) if names else ():
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)


def _complete_calls(proto: onnx.ModelProto) -> None:
    functions = {(f.domain, f.name, f.overload): f for f in proto.functions if f.attribute_proto}
    if not functions:
        return
    for node in every_node_of(proto):
        called = functions.get((node.domain, node.op_type, node.overload))
        if called is not None:
            given = {attribute.name for attribute in node.attribute}
            node.attribute.extend(a for a in called.attribute_proto if a.name not in given)
    for function in functions.values():
        function.attribute.extend(attribute.name for attribute in function.attribute_proto)
        del function.attribute_proto[:]


def _open_sizes(proto: onnx.ModelProto) -> None:
    for graph in (proto.graph, *bodies(proto.graph.node)):
        for value in (*graph.input, *graph.output, *graph.value_info):
            for size in value.type.tensor_type.shape.dim if _shaped(value) else ():
                if size.HasField("dim_value") and size.dim_value < 0:
                    size.ClearField("dim_value")


def _shape_outputs(proto: onnx.ModelProto) -> None:
    lacking = {v.name for v in proto.graph.output if v.type.HasField("tensor_type") and not _shaped(v)}
    if not lacking or not fits(proto):
        return
    try:
        inferred = shape_inference.infer_shapes(proto).graph
    except shape_inference.InferenceError as error:  # what is wrong is the checker's to say
        log.debug("no shapes of outputs: %s", error)
        return
    known = {value.name: value for value in (*inferred.value_info, *inferred.output) if _shaped(value)}
    for value in proto.graph.output:
        if value.name in lacking & known.keys():
            value.type.CopyFrom(known[value.name].type)


def _shaped(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.HasField("shape"))
