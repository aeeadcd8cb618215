"""Residual branches that can vanish altogether: with no channels left inside, the branch is a constant.

    y = x + conv2(relu(conv1(x)))      no channel of conv1 stays      y = x + bias of conv2

A convolution or Gemm over no channels gives its bias at every position. Where everything that consumes a group
does so and its result is only ever added to something of the full shape, the constant broadcasts there, and the
nodes that made the branch are dead.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from halpc.ir.dims import Leaf, leaves
from halpc.ir.groups import Coupling, Group
from halpc.ir.model import Model
from passes.weights import array_of

CONSUMERS = ("Conv", "Gemm", "ConvTranspose")
THROUGH = ("BatchNormalization", "Relu", "LeakyRelu", "Clip", "Identity", "Dropout", "HardSwish", "Sigmoid", "Mul")


def vanishable(model: Model, coupling: Coupling) -> tuple[str, ...]:
    """Free groups that may go to width 0, by name."""
    nodes = {node.name: node for node in model.twin.nodes}
    outputs = {t.name for t in model.twin.outputs}
    excluded = _counted(model, coupling) | _joined(coupling)
    found: list[str] = []
    taken: set[str] = set()
    for name, group in coupling.free().items():
        sums = [] if name in excluded else _sums(group, nodes, outputs)
        if sums and len(set(sums)) == len(sums) and taken.isdisjoint(sums):
            found.append(name)
            taken.update(sums)
    return tuple(found)


def _counted(model: Model, coupling: Coupling) -> set[str]:
    """Groups whose width something reads: an operand, or a Shape at run time.

    A depthwise convolution's `group` does not count: it goes with the channels.
    """
    reading = [follow for follow in coupling.follows if follow.attribute != "group"]
    dims = [dim for follow in reading for dim in follow.entries if dim is not None]
    for node in model.graph.nodes:
        if node.op in ("Shape", "Size"):
            tensor = node.inputs[0]
            dims += [
                d for i in range(len(tensor.shape or ())) if (d := coupling.axes.get((tensor.name, i))) is not None
            ]
    return {leaf.name for dim in dims for leaf in leaves(dim)}


def _joined(coupling: Coupling) -> set[str]:
    """Groups that are a part of some axis, not the whole of it."""
    return {leaf.name for dim in coupling.axes.values() if not isinstance(dim, Leaf) for leaf in leaves(dim)}


def _sums(group: Group, nodes: dict[str, gs.Node], outputs: set[str]) -> list[str]:
    """The additions that the group's consumers end in, empty where one ends elsewhere.

    Each may lose one operand only: two constants have the full shape no more.
    """
    consumers = [nodes.get(m.node) for m in group.members if m.role == "in"]  # none where it is in a body
    sums = [None if node is None else _sum_behind(node, outputs) for node in consumers]
    return [name for name in sums if name is not None] if None not in sums else []


def _sum_behind(node: gs.Node, outputs: set[str]) -> str | None:
    """The addition of something of the full shape that alone reads the node's result, or None."""
    if node.op not in CONSUMERS or int(node.attrs.get("group", 1)) != 1:
        return None
    if not all(isinstance(t, gs.Constant) for t in node.inputs[1:]):
        return None
    tensor = node.outputs[0]
    while True:
        if tensor.name in outputs or len(tensor.outputs) != 1:
            return None
        reader = tensor.outputs[0]
        if reader.op == "Add":
            others = [t for t in reader.inputs if t is not tensor]
            full = (
                len(others) == 1 and isinstance(others[0], gs.Variable) and list(others[0].shape) == list(tensor.shape)
            )
            return str(reader.name) if full else None
        if reader.op not in THROUGH or not all(isinstance(t, gs.Constant) for t in reader.inputs if t is not tensor):
            return None
        tensor = reader.outputs[0]


def dead_without(graph: gs.Graph, group: Group) -> set[str]:
    """Names of the nodes that are gone where a group that may vanish has no channels.

    Args:
        graph: with nodes in topological order.
        group: one that `vanishable` names.
    """
    outputs = {t.name for t in graph.outputs}
    consumers = {m.node for m in group.members if m.role == "in"}
    dead: set[str] = set()
    for node in reversed(graph.nodes):
        read = [reader for t in node.outputs for reader in t.outputs]
        unread = bool(read) and all(reader.name in dead for reader in read)
        if node.name in consumers or (unread and outputs.isdisjoint(t.name for t in node.outputs)):
            dead.add(node.name)
    return dead


def replace_empty(graph: gs.Graph, coupling: Coupling, vanished: Iterable[str]) -> None:
    """Put constants where groups of no channels are consumed; dead nodes are left to cleanup."""
    nodes = {node.name: node for node in graph.nodes}
    for name in vanished:
        for member in coupling.groups[name].members:
            node = nodes.get(member.node)
            if member.role == "in" and node is not None and node.outputs:
                result = node.outputs[0]
                result.inputs.clear()
                result.to_constant(_bias(node, result))


def _bias(node: gs.Node, result: gs.Tensor) -> NDArray[Any]:
    """What the node gives when nothing comes in, as [1, C, 1, …] (or [C] for Gemm)."""
    weight = node.inputs[1]
    axis = 1 if node.op == "ConvTranspose" or (node.op == "Gemm" and not node.attrs.get("transB", 0)) else 0
    width = int(weight.shape[axis])
    values = np.zeros(width, dtype=weight.dtype)
    if len(node.inputs) > 2:
        values = np.broadcast_to(array_of(node.inputs[2]), (width,)) * np.asarray(
            node.attrs.get("beta", 1.0), dtype=weight.dtype
        )
    rank = len(weight.shape)
    return np.ascontiguousarray(values if node.op == "Gemm" else values.reshape(1, width, *[1] * (rank - 2)))
