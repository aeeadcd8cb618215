"""Models whose large weights lie beside the proto, as arrays that nobody writes into.

Protobuf copies a weight whenever a model is copied, put together, written to bytes, or asked for it. An array is handed
on as it is. In the proto a stub stands for it: external data in a place that does not exist.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor

LARGE = 1 << 16  # bytes from which on a weight lies beside the proto
_PLACE = "beside the proto"
_OTHERWISE = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")
_REMARKS = ("doc_string", "metadata_props")  # they stay with their weight


@dataclass(frozen=True, slots=True)
class Bare:
    """A model and, by name, its large weights.

    Attributes:
        proto: everything else, with stubs in their place.
        weights: an array for every stub; who replaces one replaces the weight.
    """

    proto: onnx.ModelProto
    weights: dict[str, NDArray[Any]]


def parted(model: onnx.ModelProto, folder: Path | None = None) -> Bare:
    """`model`, which stays as it is, with its large weights beside it.

    Args:
        folder: where external data is.

    Raises:
        OSError, ValueError, onnx.checker.ValidationError: external data cannot be read.
    """
    proto = without_weights(model)
    weights: dict[str, NDArray[Any]] = {}
    for tensor in model.graph.initializer:
        if lies_beside(tensor):
            weights[tensor.name] = _read(tensor, folder)
            proto.graph.initializer.append(stub(tensor.name, tensor.data_type, tensor.dims))
        else:
            proto.graph.initializer.append(tensor)
    return Bare(proto, weights)


def whole(bare: Bare) -> onnx.ModelProto:
    """The proto with its weights, in place."""
    for tensor in bare.proto.graph.initializer:
        if is_stub(tensor):
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.raw_data = bare.weights[tensor.name].tobytes()
    return bare.proto


def entries(tensor: TensorProto, bare: Bare) -> NDArray[Any]:
    """A weight's entries, wherever they are."""
    return bare.weights[tensor.name] if is_stub(tensor) else np.asarray(numpy_helper.to_array(tensor))


def lies_beside(tensor: TensorProto) -> bool:
    """Whether a weight may: it is large, of a type that numpy has, and nothing but bytes is known of it."""
    bytes_ = tensor.HasField("raw_data") or tensor.data_location == TensorProto.EXTERNAL
    if not bytes_ or is_stub(tensor) or any(len(getattr(tensor, field)) for field in (*_OTHERWISE, *_REMARKS)):
        return False
    return is_large(helper.tensor_dtype_to_np_dtype(tensor.data_type), math.prod(tensor.dims))


def is_large(dtype: np.dtype[Any], entries: int) -> bool:
    """Whether so many numbers, of a type that numpy has, are a large weight."""
    return dtype.isbuiltin == 1 and dtype.kind in "biuf" and dtype.itemsize * entries >= LARGE


def stub(name: str, kind: int, sizes: Any) -> TensorProto:
    """What stands for a large weight."""
    tensor = TensorProto(name=name, data_type=kind, dims=sizes, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=_PLACE)
    return tensor


def is_stub(tensor: TensorProto) -> bool:
    """Whether a weight lies beside."""
    external = tensor.data_location == TensorProto.EXTERNAL
    return external and len(tensor.external_data) == 1 and bool(tensor.external_data[0].value == _PLACE)


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of everything but the initializers."""
    bare = onnx.ModelProto()
    for source, target, skipped in ((model, bare, "graph"), (model.graph, bare.graph, "initializer")):
        for field, value in source.ListFields():
            if field.name == skipped:
                continue
            if isinstance(value, str | bytes | int | float):
                setattr(target, field.name, value)
            else:
                getattr(target, field.name).extend(value)
    return bare


def read_into(tensor: TensorProto, folder: Path | None) -> None:
    """Give a weight its external data, which onnx reads: it sees that it is in the folder. Raises as `parted` does."""
    load_external_data_for_tensor(tensor, str(folder))
    tensor.ClearField("data_location")
    tensor.ClearField("external_data")


def _read(tensor: TensorProto, folder: Path | None) -> NDArray[Any]:
    """A weight's entries."""
    if tensor.data_location == TensorProto.EXTERNAL:
        alone = TensorProto()
        alone.CopyFrom(tensor)
        read_into(alone, folder)
        tensor = alone
    return np.asarray(numpy_helper.to_array(tensor))
