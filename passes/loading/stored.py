"""What a file stores of weights, whatever load makes of them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx

from passes.proto import every_graph_of, every_node_of

LITERALS = (onnx.TensorProto.INT64, onnx.TensorProto.BOOL)  # they count or choose something


def stored_entries(proto: onnx.ModelProto) -> int:
    """Entries of initializers and Constant nodes, in bodies and functions too; sparse ones by their dense size."""
    graphs = [*every_graph_of(proto)]
    held = [(t.data_type, t.dims) for graph in graphs for t in graph.initializer]
    held += [(t.values.data_type, t.dims) for graph in graphs for t in graph.sparse_initializer]
    return sum(math.prod(dims) for kind, dims in (*held, *_literals(proto)) if kind not in LITERALS)


def _literals(proto: onnx.ModelProto) -> Iterator[tuple[int, list[int]]]:
    """Element type and shape of what Constant nodes hold."""
    for node in every_node_of(proto):
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.HasField("t"):
                yield attribute.t.data_type, list(attribute.t.dims)
            elif attribute.HasField("sparse_tensor"):
                yield attribute.sparse_tensor.values.data_type, list(attribute.sparse_tensor.dims)
            elif attribute.name in ("value_float", "value_floats"):
                yield onnx.TensorProto.FLOAT, [max(1, len(attribute.floats))]
