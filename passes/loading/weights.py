"""Weights as the file holds them: whether they are there, whole, and what their shapes need; and read, once.

Sizes are compared before anything is read, of external data with its file's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import ExternalDataInfo

from halpc.errors import ModelError, shortened
from passes.bare import Bare, lies_beside, parted, read_into
from passes.proto import every_graph_of, every_node_of

_KNOWN = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}
_BYTES = {
    TensorProto.FLOAT: 4, TensorProto.DOUBLE: 8, TensorProto.FLOAT16: 2, TensorProto.BFLOAT16: 2,
    TensorProto.INT8: 1, TensorProto.UINT8: 1, TensorProto.INT32: 4, TensorProto.INT64: 8,
}  # fmt: skip


def check_weights(path: Path, proto: onnx.ModelProto) -> None:
    """That every weight has a type and a shape, and external data what the shape needs.

    Raises:
        ModelError: naming the first that has not.
    """
    for tensor in _weights(proto):
        if tensor.data_type not in _KNOWN:
            raise ModelError(f"{path}: weight {tensor.name} has the unknown element type {tensor.data_type}")
        if any(size < 0 for size in tensor.dims):
            raise ModelError(f"{path}: weight {tensor.name} has the shape {list(tensor.dims)}; export it again")
        if _is_external(tensor):
            _check_external(path, tensor)


def read_weights(path: Path, proto: onnx.ModelProto) -> Bare:
    """The model with all its weights; of external ones, small ones go into `proto` too.

    Raises:
        ModelError: external data cannot be read, or entries do not fit their shape.
    """
    try:
        for tensor in _weights(proto):
            if _is_external(tensor) and not lies_beside(tensor):
                read_into(tensor, path.parent)
        _check_entries(path, proto)
        return parted(proto, path.parent)
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        said = shortened(str(error)).rstrip(".")
        raise ModelError(
            f"{path}: external data cannot be read: {said}; it has to be a file beside the model, with a relative name"
            " and no link (cp -L copies what a link leads to)"
        ) from error


def _is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def _check_external(path: Path, tensor: TensorProto) -> None:
    try:
        said = ExternalDataInfo(tensor)
    except ValueError as error:
        raise ModelError(f"{path}: weight {tensor.name}: its external data is not described: {error}") from error
    data = path.parent / said.location
    if not data.is_file():
        raise ModelError(
            f"{path}: external data {data.name} is missing; put it beside the model (weight {tensor.name})"
        )
    size, start = data.stat().st_size, said.offset or 0
    length = max(size - start, 0) if said.length is None else said.length
    if start + length > size:
        raise ModelError(
            f"{path}: weight {tensor.name} is bytes {start} to {start + length} of external data {data.name}, which has"
            f" {size}: it is truncated, or another model's; copy it again"
        )
    _check_length(path, tensor, length)


def _check_length(path: Path, tensor: TensorProto, length: int) -> None:
    if tensor.data_type not in _BYTES:
        return
    expected = math.prod(tensor.dims) * _BYTES[tensor.data_type]
    if length != expected:
        raise ModelError(
            f"{path}: weight {tensor.name} holds {length} bytes, its shape {list(tensor.dims)} needs {expected}; the"
            " file is truncated or damaged"
        )


def _check_entries(path: Path, proto: onnx.ModelProto) -> None:
    for tensor in _weights(proto):
        if tensor.HasField("raw_data") and tensor.data_type in _BYTES:
            _check_length(path, tensor, len(tensor.raw_data))
        elif tensor.data_type != TensorProto.STRING and not _is_external(tensor):
            try:
                numpy_helper.to_array(tensor)
            except (ValueError, TypeError, OverflowError) as error:
                raise ModelError(
                    f"{path}: weight {tensor.name}: its entries do not fit its shape {list(tensor.dims)} ({error}); the"
                    " file is truncated or damaged"
                ) from error


def _weights(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every dense tensor that the file holds, in bodies, functions and attributes too."""
    for graph in every_graph_of(proto):
        yield from graph.initializer
    for attribute in (attribute for node in every_node_of(proto) for attribute in node.attribute):
        yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
