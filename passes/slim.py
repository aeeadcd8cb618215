"""slim: slice every constant by its axes' masks, rewrite what counts axes, touch nothing else.

Works on a copy of the graph as it came, dynamic axes and all; names survive. What the twin says about an axis
is carried over by tensor and node name.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from halpc.ir.dims import Dim, Mask, mask, width
from halpc.ir.groups import Coupling, Follow
from halpc.ir.model import Model
from halpc.ir.plan import Plan
from passes.vanish import replace_empty
from passes.weights import array_of, constants, dtype_name, is_weight, put

log = logging.getLogger(__name__)

EPSILON = {"RMSNormalization": 1e-5, "SimplifiedLayerNormalization": 1e-5, "SkipSimplifiedLayerNormalization": 1e-12}
ENDLESS = (1 << 31) - 1  # an int32 holds it, and no axis is longer


def plan_for(model: Model, coupling: Coupling, masks: Mapping[str, Mask]) -> Plan:
    """What `masks` mean for every initializer of the graph."""
    keep: dict[str, dict[int, NDArray[np.int64]]] = {}
    for tensor in constants(model.graph):
        if not is_weight(tensor):
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

    Whatever computes a count from shapes at run time sees the original's widths; the count is scaled at the end.
    """
    graph = model.graph.copy()
    bodies = list(graph.subgraphs(recursive=True))
    nodes = {node.name: node for each in (*bodies, graph) for node in each.nodes}
    widths = plan.widths
    _keep_old_shapes(model, graph, coupling, widths)
    for follow in coupling.follows:
        node = nodes.get(follow.node)
        if node is None:
            continue
        if follow.kind == "index":
            _reindex(node, follow, coupling, plan)
        elif follow.kind == "share":
            _share(graph, node, _share_of(follow, widths))
        elif follow.kind == "root":
            _root(graph, node, follow, _share_of(follow, widths))
        else:
            _recount(graph, node, follow, widths)
    for constant in constants(graph):
        _slice(constant, plan.keep.get(constant.name, {}))
    for tensor in graph.tensors().values():
        if not isinstance(tensor, gs.Constant):
            _forget_shape(tensor, coupling, widths)
    for body in bodies:
        for tensor in (*body.inputs, *(t for node in body.nodes for t in node.outputs)):
            _forget_shape(tensor, coupling, widths)
    replace_empty(graph, coupling, (name for name, left in widths.items() if left == 0))
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
    if follow.attribute:
        node.attrs[follow.attribute] = _patched(node.attrs[follow.attribute], new)
        return
    operand = node.inputs[follow.operand]
    if isinstance(operand, gs.Constant):
        values = array_of(operand)
        patched = np.array(_patched(values.reshape(-1).tolist(), new), dtype=values.dtype).reshape(values.shape)
        node.inputs[follow.operand] = gs.Constant(_own(operand, node), patched)
    else:
        node.inputs[follow.operand] = _spliced(graph, node, operand, new, old)


def _patched(current: object, new: list[int | None]) -> object:
    if isinstance(current, int):
        return _entry(current, new[0])
    assert isinstance(current, list | tuple)
    return [_entry(c, n) for c, n in zip(current, new, strict=True)]


def _entry(current: int, new: int | None) -> int:
    """A count from the end (a bound below zero) of nothing is a bound at the end."""
    if new is None or current >= 0:
        return current if new is None else new
    return -new or ENDLESS


def _own(operand: gs.Tensor, node: gs.Node) -> str:
    """A name for the node's own copy of an operand, which may be shared with nodes that keep the old value."""
    return f"{operand.name}/slim/{node.name}"


def _spliced(
    graph: gs.Graph, node: gs.Node, operand: gs.Tensor, new: list[int | None], old: list[int | None]
) -> gs.Tensor:
    """A computed operand whose entries are scaled from the old to the new widths."""
    factors = [(1, 1) if n is None or o is None else (n, o) for n, o in zip(new, old, strict=True)]
    return _scaled(graph, operand, factors, f"{node.name}/{operand.name}/slim", [len(factors)])


def _scaled(
    graph: gs.Graph, operand: gs.Tensor, factors: list[tuple[int, int]], name: str, shape: list[int]
) -> gs.Tensor:
    """operand · new // old, entry by entry."""
    dtype = np.int64 if operand.dtype is None else operand.dtype
    lowest = [(n // math.gcd(n, o), o // math.gcd(n, o)) for n, o in factors]
    times = gs.Constant(f"{name}/new", np.array([n for n, _ in lowest], dtype=dtype).reshape(shape))
    parts = gs.Constant(f"{name}/old", np.array([o for _, o in lowest], dtype=dtype).reshape(shape))
    product = gs.Variable(f"{name}/product", dtype=dtype, shape=shape)
    result = gs.Variable(name, dtype=dtype, shape=shape)
    graph.nodes.append(gs.Node("Mul", f"{name}/Mul", None, [operand, times], [product]))
    graph.nodes.append(gs.Node("Div", f"{name}/Div", None, [product, parts], [result]))
    return result


def _keep_old_shapes(model: Model, graph: gs.Graph, coupling: Coupling, widths: Mapping[str, int]) -> None:
    """Whatever is computed from a shape at run time is computed as in the original: the follows start from there."""
    readers = [node for node in graph.nodes if node.op in ("Shape", "Size") and not node.domain]
    ranks = {name: len(tensor.shape) for name, tensor in model.twin.tensors().items()} if readers else {}
    for node in readers:
        source = node.inputs[0].name
        dims = [coupling.axes.get((source, i)) for i in range(ranks.get(source, 0))]
        factors = [(1, 1) if dim is None else (dim.size, int(width(dim, widths))) for dim in dims]
        if all(n == o for n, o in factors):
            continue
        if node.op == "Size":
            factors = [(math.prod(n for n, _ in factors), math.prod(o for _, o in factors))]
        else:
            factors = factors[node.attrs.get("start") : node.attrs.get("end")]
        _patch_shape(graph, node, factors)


def _patch_shape(graph: gs.Graph, node: gs.Node, factors: list[tuple[int, int]]) -> None:
    """Behind a Shape that sees pruned axes, put the old sizes back for those who read them."""
    result = node.outputs[0]
    readers = [r for r in result.outputs if not _reads_unchanged(r, factors)]
    if not readers:
        return
    old = _scaled(graph, result, factors, f"{result.name}/before_slim", [] if node.op == "Size" else [len(factors)])
    for reader in readers:
        for i, tensor in enumerate(reader.inputs):
            if tensor is result:
                reader.inputs[i] = old


def _reads_unchanged(reader: gs.Node, factors: list[tuple[int, int]]) -> bool:
    """Whether a node takes only entries that stay as they are."""
    if reader.op != "Gather" or not isinstance(reader.inputs[1], gs.Constant):
        return False
    return all(factors[int(i)][0] == factors[int(i)][1] for i in np.asarray(reader.inputs[1].values).reshape(-1))


def _share_of(follow: Follow, widths: Mapping[str, int]) -> float:
    return math.prod(int(width(dim, widths)) / dim.size for dim in follow.entries if dim is not None)


def _share(graph: gs.Graph, node: gs.Node, share: float) -> None:
    """A mean over what is kept times its share is the mean over all, had the others been zero."""
    if share == 1:
        return
    mean, name = node.outputs[0], f"{node.outputs[0].name}/slim"
    dtype = dtype_name(node.inputs[0].dtype if mean.dtype is None else mean.dtype)
    part = gs.Variable(f"{name}/mean", dtype=mean.dtype, shape=mean.shape)
    node.outputs[0] = part
    factor = gs.Constant(f"{name}/share", np.array(share, dtype=np.float32))
    put(factor, np.array(share, dtype=np.dtype("float32" if dtype == "unknown" else dtype)))
    graph.nodes.append(gs.Node("Mul", f"{name}/Mul", None, [part, factor], [mean]))


def _root(graph: gs.Graph, node: gs.Node, follow: Follow, share: float) -> None:
    """x / √(s·m + ε) = √(1/s) · x / √(m + ε/s): s is the share of entries that are kept, m their mean square."""
    if share in (0, 1):
        return
    node.attrs["epsilon"] = float(node.attrs.get("epsilon", EPSILON[node.op])) / share
    scale = node.inputs[follow.operand]
    if not isinstance(scale, gs.Constant) or len(scale.outputs) > 1:
        _share(graph, node, share**-0.5)
        return
    values = array_of(scale)
    put(scale, (values.astype(np.float64) * share**-0.5).astype(values.dtype))


def _reindex(node: gs.Node, follow: Follow, coupling: Coupling, plan: Plan) -> None:
    """Positions on axes, renumbered to what is kept of them; entries that their own axes lose are dropped."""
    operand = node.inputs[follow.operand]
    values = np.array(operand.values)
    for axis in range(values.ndim):
        kept = _kept(coupling.axes.get((operand.name, axis)), plan.masks)
        if kept is not None:
            values = np.take(values, kept, axis=axis)
    columns = [values] if len(follow.entries) == 1 else [values[..., i] for i in range(values.shape[-1])]
    for column, dim in zip(columns, follow.entries, strict=True):
        if dim is not None:
            positions = np.where(column < 0, column + dim.size, column)
            column[...] = (np.cumsum(mask(dim, plan.masks)) - 1)[positions]
    node.inputs[follow.operand] = gs.Constant(_own(operand, node), values)
