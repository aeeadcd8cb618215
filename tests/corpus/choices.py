"""Where a network chooses: TopK, thresholds, rounding to integers. A near tie may fall either way in two equal models.

The judge lets the pruned model choose by the numbers of the masked original, and compares the pruned model's own
numbers at that place. Only places where both have tensors of the same shape take part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

BY_FIRST = ("TopK", "ArgMax", "ArgMin", "NonZero", "Floor", "Ceil", "Round", "Sign", "Hardmax", "Cast")
BY_BOTH = ("NonMaxSuppression", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")


@dataclass(frozen=True, slots=True)
class Place:
    """One operand of one choosing node, which is known by its result's name.

    Attributes:
        result: the node's first output, the same in both models.
        operand: which of its inputs.
        ours, theirs: what stands there in the original and in the pruned model.
    """

    result: str
    operand: int
    ours: str
    theirs: str


def places(original: onnx.ModelProto, pruned: onnx.ModelProto) -> list[Place]:
    """All operands by which nodes choose in both models, constants aside."""
    counterparts = {node.output[0]: node for node in pruned.graph.node if node.output}
    fixed = {t.name for model in (original, pruned) for t in model.graph.initializer}
    found = []
    for node in original.graph.node:
        other = counterparts.get(node.output[0]) if node.output else None
        if other is None or other.op_type != node.op_type:
            continue
        for operand in range(2 if node.op_type in BY_BOTH else 1 if node.op_type in BY_FIRST else 0):
            ours, theirs = node.input[operand], other.input[operand]
            if ours not in fixed and theirs not in fixed:
                found.append(Place(node.output[0], operand, ours, theirs))
    return found


def shown(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """A copy in which these tensors are outputs as well; inputs of the model pass through an Identity."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in dict.fromkeys(tensors):
        copy.graph.node.append(helper.make_node("Identity", [tensor], [f"{tensor}__shown"]))
        copy.graph.output.append(onnx.ValueInfoProto(name=f"{tensor}__shown"))
    return copy


def led(model: onnx.ModelProto, found: Sequence[Place], values: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """A copy that chooses by `values` (by the original's tensor names) in place of its own numbers."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = {node.output[0]: node for node in copy.graph.node if node.output}
    for place in found:
        nodes[place.result].input[place.operand] = f"{place.ours}__given"
    for tensor in {place.ours for place in found}:
        kind = helper.np_dtype_to_tensor_dtype(values[tensor].dtype)
        copy.graph.input.append(helper.make_tensor_value_info(f"{tensor}__given", kind, values[tensor].shape))
    return copy
