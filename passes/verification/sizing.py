"""Sizes that a model declares open and cannot take: told by shape inference, before a runtime meets them.

onnxruntime answers most of them with an error and some with a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import onnx
from onnx import shape_inference

from passes.proto import fits

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


def impossible(model: onnx.ModelProto, own: Shapes, other: Shapes) -> bool:
    """Whether ONNX's shape inference refuses the model at `other` input sizes, though not at its `own`.

    False where inference cannot tell: models above protobuf's limit, and those that it refuses at any size.
    """
    return fits(model) and not _accepted(model, other) and _accepted(model, own)


def _accepted(model: onnx.ModelProto, shapes: Shapes) -> bool:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in copy.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            dim.dim_value = size
    try:
        shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError:
        return False
    return True
