"""Inputs that always have one value: a sample rate, a switch. What they decide is decided in the file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from halpc.errors import UsageError
from passes.proto import every_node


def set_inputs(proto: onnx.ModelProto, values: Mapping[str, float]) -> None:
    """Nodes read a constant in place of each of these inputs; the inputs stay, and nobody reads them.

    Raises:
        UsageError: no such input, one of open size, or one that cannot have this value.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    ports = {value.name: value for value in proto.graph.input if value.name not in weights}
    names: dict[str, str] = {}
    for name, value in values.items():
        if name not in ports:
            raise UsageError(f"--set {name}: the model has no such input; its inputs are {', '.join(ports)}")
        names[name] = f"{name}/set"
        proto.graph.initializer.append(numpy_helper.from_array(_filled(ports[name], value), names[name]))
    for node in every_node(proto.graph) if names else ():
        for i, operand in enumerate(node.input):
            node.input[i] = names.get(operand, operand)


def _filled(port: onnx.ValueInfoProto, value: float) -> np.ndarray:
    kind = port.type.tensor_type
    sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim]
    if any(size < 0 for size in sizes):
        raise UsageError(
            f"--set {port.name}: its size is open, so that it is no setting; only inputs of fixed size are"
        )
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    if dtype.kind not in "fiub" or (dtype.kind != "f" and np.array(value).astype(dtype) != value):
        raise UsageError(f"--set {port.name}={value:g}: the input holds {dtype}, expected a value of that kind")
    return np.full(sizes, value, dtype=dtype)
