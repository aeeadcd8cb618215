"""How many small models at a time: as many as memory bears beside each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import onnx

WEIGHTS_BYTES: Final = 512 << 20
ARRAYS_BYTES: Final = 2 << 30  # of inputs and outputs; workspaces come on top


def portions(
    models: Sequence[onnx.ModelProto], most: int, *, weights: int = WEIGHTS_BYTES, arrays: int = ARRAYS_BYTES
) -> Iterator[list[onnx.ModelProto]]:
    """`models` in order, in lists of at most `most` that together hold no more bytes than that, or of one."""
    part: list[onnx.ModelProto] = []
    held = taken = 0
    for model in models:
        size, room = weights_bytes(model), arrays_bytes(model)
        if part and (held + size > weights or taken + room > arrays or len(part) == most):
            yield part
            part, held, taken = [], 0, 0
        part.append(model)
        held, taken = held + size, taken + room
    if part:
        yield part


def weights_bytes(model: onnx.ModelProto) -> int:
    """Bytes of a model's initializers, by their shapes: `ByteSize` walks through all that is stored."""
    return sum(math.prod(t.dims) * _itemsize(t.data_type) for t in model.graph.initializer)


def arrays_bytes(model: onnx.ModelProto) -> int:
    """Bytes of a model's inputs and outputs; axes without a size count as one."""
    constants = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in constants]
    return sum(_bytes(value) for value in (*values, *model.graph.output))


def _bytes(value: onnx.ValueInfoProto) -> int:
    kind = value.type.tensor_type
    return math.prod(max(int(dim.dim_value), 1) for dim in kind.shape.dim) * _itemsize(kind.elem_type)


def _itemsize(kind: int) -> int:
    """Bytes of an entry; 0 of what is no number."""
    if kind in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return 0
    return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
