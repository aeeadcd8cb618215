"""Nodes that select: they choose, count or round, so that a difference in the last place may change all behind them.

Two models that compute the same up to rounding may still choose differently where two scores nearly tie. To judge
them nevertheless, both are *cut* at what such a node reads: there the slim model's value is compared with the
masked original's, and the node goes on with the original's. Its choice is then the same bit by bit if the node
itself is right, and what lies behind is compared as if there were no choice. What the cut changes is no more than what
the comparison allowed, so no wrong model can hide behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from passes.proto import bodies

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
# operator → operands in which it is discontinuous
SELECTS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("TopK", "ArgMax", "ArgMin", "Hardmax", "NonZero", "Unique", "OneHot"), (0,)),
    **dict.fromkeys(("Sign", "Floor", "Ceil", "Round", "ThresholdedRelu", "Shrink", "Cast"), (0,)),
    **dict.fromkeys(("QuantizeLinear", "DynamicQuantizeLinear"), (0,)),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mod"), (0, 1)),
    "NonMaxSuppression": (0, 1),
    "MaxPool": (0,),
    "GridSample": (1,),
    **dict.fromkeys(("RoiAlign", "MaxRoiPool"), (1,)),
}


@dataclass(frozen=True, slots=True)
class Cut:
    """What a selecting node reads at one operand.

    Attributes:
        node, operand: where.
        tensor: what the original puts there.
    """

    node: str
    operand: int
    tensor: str

    @property
    def held(self) -> str:
        """The model input that takes its place."""
        return f"{self.tensor}/held"


def cuts_of(model: onnx.ModelProto) -> tuple[Cut, ...]:
    """All operands of the main graph's selecting nodes that are computed or fed."""
    constant = {t.name for t in model.graph.initializer}
    return tuple(
        Cut(node.name, operand, node.input[operand])
        for node in model.graph.node
        for operand in _operands(node)
        if operand < len(node.input) and node.input[operand] and node.input[operand] not in constant
    )


def selects(node: onnx.NodeProto) -> bool:
    """Whether a difference in the last place may change all behind a node."""
    return bool(_operands(node))


def _operands(node: onnx.NodeProto) -> tuple[int, ...]:
    """Operands that a node selects by: none for a cast to another float, a pool without positions, and so on."""
    attributes = {a.name: a for a in node.attribute}
    if node.domain not in ("", "ai.onnx"):
        return ()
    if node.op_type == "Cast" and attributes["to"].i in FLOATS:
        return ()
    if node.op_type == "MaxPool" and len(node.output) < 2:
        return ()
    if node.op_type == "GridSample" and ("mode" not in attributes or attributes["mode"].s != b"nearest"):
        return ()
    return SELECTS.get(node.op_type, ())


def hidden(graph: onnx.GraphProto) -> int:
    """Selecting nodes in the bodies of If, Loop and Scan, where nothing can be cut."""
    return sum(1 for body in bodies(graph.node) for node in body.node if _operands(node))


def expose(model: onnx.ModelProto, tensors: Sequence[str]) -> None:
    """Make tensors outputs of the model, in place; its own inputs and outputs stay what they are."""
    known = {v.name for v in (*model.graph.input, *model.graph.output)}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(tensors) if name not in known)


def hold(model: onnx.ModelProto, cuts: Sequence[Cut], types: Mapping[str, tuple[int, int]]) -> dict[Cut, str]:
    """Feed the cuts' operands from inputs of their own, in place.

    Args:
        types: element type and rank of every cut's tensor.

    Returns: for every cut, the tensor that the model itself had put there; cuts whose node or operand the model
        does not have (any more) are absent.
    """
    nodes = {node.name: node for node in model.graph.node}
    constant = {t.name for t in model.graph.initializer}
    own: dict[Cut, str] = {}
    for cut in cuts:
        node = nodes.get(cut.node)
        if node is None or len(node.input) <= cut.operand or node.input[cut.operand] in constant:
            continue
        own[cut] = node.input[cut.operand]
        node.input[cut.operand] = cut.held
    for name, tensor in {cut.held: cut.tensor for cut in own}.items():
        kind, rank = types[tensor]
        model.graph.input.append(helper.make_tensor_value_info(name, kind, [None] * rank))
    expose(model, list(own.values()))
    return own
