"""From the graph in hand to a proto and to a file, with everything the original's header said."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import helper
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.logger import G_LOGGER

from passes.bare import Bare, is_large, is_stub, lies_beside, stub, whole, without_weights

G_LOGGER.severity = G_LOGGER.ERROR  # its advice is printed on stdout, where results are
LIMIT = 2**31 - 2**24  # protobuf's limit on one message
APART = 1024  # weights of fewer bytes stay in the model
ALIGNED = 4096  # where weights begin in their file, for memory maps
NEVER = 1 << 30
FOREIGN = {
    "LayerNormalization": 17, "ThresholdedRelu": 10, "SimplifiedLayerNormalization": NEVER, "Affine": NEVER,
    "Crop": NEVER, "DynamicSlice": NEVER, "ImageScaler": NEVER, "ParametricSoftplus": NEVER, "Scale": NEVER,
    "ScaledTanh": NEVER,
}  # fmt: skip
"""What onnxruntime registers in the standard domain, with the opset from which on ONNX does."""
_ELSEWHERE = "onnxruntime.standard"


def proto_of(graph: gs.Graph, header: onnx.ModelProto | None = None) -> onnx.ModelProto:
    """`graph` as a proto; `header` (a proto without its graph) gives metadata, producer and versions."""
    return whole(bare_of(graph, header))


def bare_of(graph: gs.Graph, header: onnx.ModelProto | None = None) -> Bare:
    """The same with the graph's own arrays beside it: nothing large is copied."""
    shown, weights = _set_aside(graph)
    proto = gs.export_onnx(shown, do_type_check=False)
    _share(proto.graph)
    proto.ir_version = max(int(graph.ir_version or 8), 8)
    if header is not None:
        for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
            if header.HasField(field):
                setattr(proto, field, getattr(header, field))
        proto.metadata_props.extend(header.metadata_props)
    return Bare(proto, weights)


def _set_aside(graph: gs.Graph) -> tuple[gs.Graph, dict[str, NDArray[Any]]]:
    """A copy of the graph with stubs for its large weights, and these; what bodies read as well stays."""
    inside = {name for body in graph.subgraphs(recursive=True) for name in body.tensors()}
    held = {
        name: tensor._values
        for name, tensor in graph.tensors().items()
        if isinstance(tensor, gs.Constant) and name not in inside and _is_large(tensor._values)
    }
    if not held:
        return graph, held
    shown = graph.copy()
    tensors = shown.tensors()
    for name, values in held.items():
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        tensors[name].values = LazyValues(stub(name, kind, values.shape))
    return shown, held


def _is_large(values: Any) -> bool:
    return isinstance(values, np.ndarray) and is_large(values.dtype, values.size)


def _share(graph: onnx.GraphProto) -> None:
    """What several graphs of a model hold under one name is held by the outermost one alone, and the bodies read it."""
    held = {tensor.name: tensor for tensor in graph.initializer}
    inner = list(bodies(graph.node))
    made = {name for each in (graph, *inner) for node in each.node for name in node.output}
    made |= {value.name for each in (graph, *inner) for value in each.input}
    inside: dict[str, list[tuple[onnx.GraphProto, onnx.TensorProto]]] = {}
    for body in inner:
        results = {value.name for value in body.output}
        for tensor in body.initializer:
            if tensor.name not in made | results:
                inside.setdefault(tensor.name, []).append((body, tensor))
    for name, copies in inside.items():
        first = held.get(name, copies[0][1])
        if any(tensor != first for _, tensor in copies) or (name not in held and len(copies) == 1):
            continue
        if name not in held:
            graph.initializer.append(first)
        for body, tensor in copies:
            body.initializer.remove(tensor)


def save_proto(proto: onnx.ModelProto, path: Path) -> None:
    """Write a model and flush it to the disk; past protobuf's limit its weights go into `<name>.data` beside it."""
    if fits(proto):
        with path.open("wb") as stream:
            stream.write(proto.SerializeToString())
            stream.flush()
            os.fsync(stream.fileno())
        return
    save_apart(proto, path, f"{path.name}.data")


def fits(proto: onnx.ModelProto) -> bool:
    """Whether the model is within protobuf's limit; protobuf itself fails when asked about more."""
    return sum(_bytes_of(tensor) for tensor in proto.graph.initializer) < LIMIT


def opset_of(model: onnx.ModelProto, absent: int) -> int:
    """The version of the standard operator set that the model imports, or `absent`."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), absent)


def check_model(proto: onnx.ModelProto, *, full_check: bool = False) -> None:
    """onnx's checker; of nodes that only onnxruntime has in the standard domain it sees that they are in another.

    Unless the check is full, it does not see the entries of large weights. Models past protobuf's limit without these
    (of bfloat16, say) it does not see at all.

    Raises:
        onnx.checker.ValidationError: what it says.
    """
    light = without_weights(proto)
    light.graph.initializer.extend(t if full_check else _emptied(t) for t in proto.graph.initializer)
    opset = opset_of(light, NEVER)
    nodes = (node for node in every_node(light.graph) if node.domain in ("", "ai.onnx"))
    foreign = [node for node in nodes if opset < FOREIGN.get(node.op_type, 0)]
    for node in foreign:
        node.domain = _ELSEWHERE
    if foreign:
        light.opset_import.add(domain=_ELSEWHERE, version=1)
    if fits(light):
        onnx.checker.check_model(light, full_check=full_check)


def _emptied(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """A weight, a large one without entries."""
    large = is_stub(tensor) or lies_beside(tensor)
    return onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0]) if large else tensor


def _bytes_of(tensor: onnx.TensorProto) -> int:
    """Bytes of a weight inside the model (at most: int4 is counted as int8)."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.data_type == onnx.TensorProto.STRING:
        return 0
    return int(math.prod(tensor.dims)) * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def save_apart(proto: onnx.ModelProto, path: Path, location: str) -> None:
    """Write a model with its weights in the file `location` beside it; neither changes nor copies the weights."""
    bare = without_weights(proto)
    with (path.parent / location).open("wb") as stream:
        for tensor in proto.graph.initializer:
            if not tensor.HasField("raw_data") or _bytes_of(tensor) < APART:
                bare.graph.initializer.append(tensor)
                continue
            stream.write(b"\0" * (-stream.tell() % ALIGNED))
            entry = bare.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            entry.data_location = onnx.TensorProto.EXTERNAL
            offset = stream.tell()
            length = stream.write(tensor.raw_data)
            for key, value in (("location", location), ("offset", offset), ("length", length)):
                entry.external_data.add(key=key, value=str(value))
        stream.flush()
        os.fsync(stream.fileno())
    path.write_bytes(bare.SerializeToString())


def static_proto(graph: gs.Graph, shapes: Mapping[str, tuple[int, ...]], header: onnx.ModelProto) -> onnx.ModelProto:
    """`graph` as it runs at fixed input shapes: what profilers measure and engines are built from."""
    fixed = graph.copy()
    inputs = {t.name for t in fixed.inputs}
    outputs = {t.name for t in fixed.outputs}
    for name, tensor in fixed.tensors().items():
        if name in inputs:
            tensor.shape = list(shapes[name])
        elif isinstance(tensor, gs.Variable) and name not in outputs:
            tensor.shape = None
        elif isinstance(tensor, gs.Variable) and tensor.shape is not None:
            tensor.shape = [n if isinstance(n, int) else f"out_{i}" for i, n in enumerate(tensor.shape)]
    return proto_of(fixed, header)


def every_node(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those inside bodies too."""
    for each in (graph, *bodies(graph.node)):
        yield from each.node


def every_graph_of(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph, and every body, those in functions too."""
    yield model.graph
    yield from bodies([*model.graph.node, *(node for function in model.functions for node in function.node)])


def every_node_of(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node: of the graph, of functions, of bodies in either."""
    yield from every_node(model.graph)
    yield from nodes_of_functions(model)


def nodes_of_functions(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node of functions, those inside bodies too."""
    for function in model.functions:
        yield from function.node
        yield from (node for body in bodies(function.node) for node in body.node)


def reads(node: onnx.NodeProto) -> set[str]:
    """Names of the tensors that `node` reads, those captured by its subgraphs included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            own = {value.name for value in graph.input} | {value.name for value in graph.initializer}
            own |= {name for inner in graph.node for name in inner.output}
            names |= set().union(*(reads(inner) for inner in graph.node)) - own
            names |= {value.name for value in graph.output} - own
    return names


def bodies(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    """Every body of nodes, and of the nodes in it."""
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield body
            yield from bodies(body.node)


def unused(name: str, taken: set[str]) -> str:
    """`name`, with a number behind it where it is taken; it is from now on."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}#{count}"
    taken.add(free)
    return free
