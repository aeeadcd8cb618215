"""Slices initializers as a plan says: the least that recovery's tests need of `passes/slim.py`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


def cut(model: onnx.ModelProto, keep: Mapping[str, Mapping[int, NDArray[np.int64]]]) -> onnx.ModelProto:
    """A copy of `model` with every initializer in `keep` sliced, and groups of depthwise convolutions counted anew."""
    slim = onnx.ModelProto()
    slim.CopyFrom(model)
    del slim.graph.value_info[:]
    for item in slim.graph.initializer:
        value = numpy_helper.to_array(item)
        for axis, kept in keep.get(item.name, {}).items():
            value = np.take(value, kept, axis=axis)
        item.CopyFrom(numpy_helper.from_array(np.asarray(value, order="C"), item.name))
    widths = {item.name: item.dims[0] for item in slim.graph.initializer if item.dims}
    for node in slim.graph.node:
        for attribute in node.attribute:
            if attribute.name == "group" and attribute.i > 1 and 0 in keep.get(node.input[1], {}):
                attribute.i = widths[node.input[1]]
    return slim
