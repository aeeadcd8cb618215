"""slim: slice every constant by its axes' masks, rewrite what counts axes, touch nothing else.

Works on a copy of the graph as it came, dynamic axes and all; names survive. What the twin says about an axis
is carried over by tensor and node name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from halpc.ir.dims import Dim, Mask, mask, width
from halpc.ir.groups import Coupling, Follow
from halpc.ir.model import Model
from halpc.ir.plan import Plan
from passes.weights import array_of, put

log = logging.getLogger(__name__)

END = np.iinfo(np.int64).max


def plan_for(model: Model, coupling: Coupling, masks: Mapping[str, Mask]) -> Plan:
    """What `masks` mean for every initializer of the graph."""
    keep: dict[str, dict[int, NDArray[np.int64]]] = {}
    for tensor in model.graph.tensors().values():
        if not isinstance(tensor, gs.Constant):
            continue
        for axis in range(len(tensor.shape)):
            kept = _kept(coupling.axes.get((tensor.name, axis)), masks)
            if kept is not None:
                keep.setdefault(tensor.name, {})[axis] = kept
    return Plan(model.sha256, {n: m for n, m in masks.items() if not m.all()}, keep)


def _kept(dim: Dim | None, masks: Mapping[str, Mask]) -> NDArray[np.int64] | None:
    """Kept indices of an axis, or None where it stays whole."""
    if dim is None:
        return None
    stays = mask(dim, masks)
    return None if stays.all() else np.flatnonzero(stays).astype(np.int64)


def slim(model: Model, coupling: Coupling, plan: Plan) -> gs.Graph:
    """The smaller graph.

    Raises:
        HalpcError: a count sits in a computed operand that cannot be rewritten.
    """
    graph = model.graph.copy()
    nodes = {node.name: node for node in graph.nodes}
    widths = plan.widths
    for follow in coupling.follows:
        node = nodes.get(follow.node)
        if node is None:
            continue
        if follow.kind == "index":
            _reindex(graph, node, follow, plan)
        else:
            _recount(graph, node, follow, widths)
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Constant):
            _slice(tensor, plan.keep.get(tensor.name, {}))
        else:
            _forget_shape(tensor, coupling, widths)
    return graph.cleanup().toposort()


def _slice(tensor: gs.Constant, keep: Mapping[int, NDArray[np.int64]]) -> None:
    if keep:
        values = array_of(tensor)
        for axis, kept in keep.items():
            values = np.take(values, kept, axis=axis)
        put(tensor, values)


def _forget_shape(tensor: gs.Variable, coupling: Coupling, widths: Mapping[str, int]) -> None:
    """Shapes written down for tensors in between follow their widths; dynamic sizes stay as they are."""
    if tensor.shape is None:
        return
    shape = list(tensor.shape)
    for axis, size in enumerate(shape):
        dim = coupling.axes.get((tensor.name, axis))
        if dim is not None and isinstance(size, int):
            shape[axis] = int(width(dim, widths))
    tensor.shape = shape


def _recount(graph: gs.Graph, node: gs.Node, follow: Follow, widths: Mapping[str, int]) -> None:
    """Rewrite the entries of an attribute or operand that count axes."""
    new = [None if dim is None else int(width(dim, widths)) for dim in follow.entries]
    old = [None if dim is None else dim.size for dim in follow.entries]
    if new == old:
        return
    if follow.attribute:
        node.attrs[follow.attribute] = _patched(node.attrs[follow.attribute], new)
        return
    operand = node.inputs[follow.operand]
    if isinstance(operand, gs.Constant):
        values = array_of(operand)
        patched = np.array(_patched(values.reshape(-1).tolist(), new), dtype=values.dtype).reshape(values.shape)
        node.inputs[follow.operand] = gs.Constant(_fresh(graph, operand.name), patched)
    else:
        node.inputs[follow.operand] = _spliced(graph, node, operand, new, old)


def _patched(current: object, new: list[int | None]) -> object:
    if isinstance(current, int):
        return current if new[0] is None else new[0]
    assert isinstance(current, list | tuple)
    return [c if n is None else n for c, n in zip(current, new, strict=True)]


def _fresh(graph: gs.Graph, name: str) -> str:
    """A name that the graph does not use yet; the operand may be shared with nodes that keep the old value."""
    taken = graph.tensors()
    count = 1
    while f"{name}/slim_{count}" in taken:
        count += 1
    return f"{name}/slim_{count}"


def _spliced(
    graph: gs.Graph, node: gs.Node, operand: gs.Tensor, new: list[int | None], old: list[int | None]
) -> gs.Tensor:
    """A computed operand with the entries that changed replaced by literals, the others still computed."""
    pieces: list[gs.Tensor] = []
    dtype = operand.dtype if operand.dtype is not None else np.int64
    for i, (after, before) in enumerate(zip(new, old, strict=True)):
        name = f"{node.name}/{operand.name}/slim_{i}"
        if after is not None and after != before:
            pieces.append(gs.Constant(name, np.array([after], dtype=dtype)))
            continue
        entry = gs.Variable(name, dtype=dtype, shape=[1])
        index = gs.Constant(f"{name}/index", np.array([i], dtype=np.int64))
        graph.nodes.append(gs.Node("Gather", f"{name}/Gather", {"axis": 0}, [operand, index], [entry]))
        pieces.append(entry)
    joined = gs.Variable(f"{node.name}/{operand.name}/slim", dtype=dtype, shape=[len(pieces)])
    graph.nodes.append(gs.Node("Concat", f"{joined.name}/Concat", {"axis": 0}, pieces, [joined]))
    return joined


def _reindex(graph: gs.Graph, node: gs.Node, follow: Follow, plan: Plan) -> None:
    """Positions on an axis, renumbered to what is kept of it; entries that its own axes lose are sliced here."""
    dim = follow.entries[0]
    operand = node.inputs[follow.operand]
    if dim is None or not isinstance(operand, gs.Constant):
        return
    stays = mask(dim, plan.masks)
    if stays.all():
        return
    values = array_of(operand)
    for axis, kept in plan.keep.get(operand.name, {}).items():
        values = np.take(values, kept, axis=axis)
    positions = np.where(values < 0, values + dim.size, values)
    renumber = np.cumsum(stays) - 1
    node.inputs[follow.operand] = gs.Constant(_fresh(graph, operand.name), renumber[positions].astype(values.dtype))
