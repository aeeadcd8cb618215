"""From the graph in hand to a proto and to a file, with everything the original's header said."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

LIMIT = 2**31 - 2**20  # protobuf's limit on one message


def proto_of(graph: gs.Graph, header: onnx.ModelProto | None = None) -> onnx.ModelProto:
    """`graph` as a proto; `header` (a proto without its graph) gives metadata, producer and versions."""
    proto = gs.export_onnx(graph, do_type_check=False)
    proto.ir_version = max(int(graph.ir_version or 8), 8)
    if header is not None:
        for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
            if header.HasField(field):
                setattr(proto, field, getattr(header, field))
        proto.metadata_props.extend(header.metadata_props)
    return proto


def save_proto(proto: onnx.ModelProto, path: Path) -> None:
    """Write a model and flush it to the disk; past protobuf's limit its weights go into `<name>.data` beside it."""
    if proto.ByteSize() < LIMIT:
        with path.open("wb") as stream:
            stream.write(proto.SerializeToString())
            stream.flush()
            os.fsync(stream.fileno())
        return
    onnx.save(proto, str(path), save_as_external_data=True, location=f"{path.name}.data")


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
