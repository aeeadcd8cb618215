"""kernels: a cluster of nodes as something that can be measured alone at any widths of its axes.

Two kernels with equal signatures, which say everything but the widths, share one latency table.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from halpc.ir.dims import Dim, Leaf, Product, Sum, leaves, width
from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from halpc.ir.plan import Plan
from halpc.ir.table import Signature
from passes.coupling.view import captured
from passes.latency.clusters import ELEMENTWISE, HEAVY, Cluster
from passes.loading.bodies import Open
from passes.proto import proto_of
from passes.slim import slim
from passes.weights import array_of, constants, dtype_name, is_weight

log = logging.getLogger(__name__)

MOST_AXES = 3
_FEW = 16
_RECTIFIERS = ("Relu", "Clip", "LeakyRelu")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of the model.

    Attributes:
        name: the cluster's.
        signature: key of its table; equal for kernels that differ in widths only.
        axes: what its cost depends on; dims over group names, at most three.
        spread: more axes than that were folded into one, whose leaves shrink alike.
        volume: axes of its result that may shrink; what moving it costs is in proportion to their product.
        part: the nodes to measure, as a model of their own.
    """

    name: str
    signature: Signature
    axes: tuple[Dim, ...]
    spread: bool
    volume: tuple[Dim, ...]
    part: Model

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths of its axes before pruning."""
        return tuple(axis.size for axis in self.axes)

    def model(self, coupling: Coupling, widths: Sequence[int]) -> onnx.ModelProto:
        """The kernel alone at `widths` of its axes, which may be wider than they are in the model."""
        groups: dict[str, int] = {}
        for axis, size in zip(self.axes, widths, strict=True):
            groups.update(_share(axis, int(size), coupling))
        if self.spread:
            groups = _shrink_alike(self.part, coupling, groups, self.axes[0])
        return proto_of(slim(self.part, coupling, _plan(self.part, coupling, groups)))


def kernel_of(cluster: Cluster, model: Model, coupling: Coupling) -> Kernel | None:
    """The kernel that a cluster is; None where no width changes it."""
    wanted = set(cluster.nodes)
    nodes = [node for node in model.twin.nodes if node.name in wanted]
    everything = list(atoms(_dims(nodes, coupling), coupling))
    if not everything:
        return None
    measured = _core(nodes)
    axes = list(atoms(_dims(measured, coupling), coupling)) or everything
    spread = len(axes) > MOST_AXES
    if spread:
        axes = [max(axes, key=lambda axis: axis.size)]
    letters = {axis: "ABCDEFGH"[i] for i, axis in enumerate(axes)}
    part = _part(measured, model)
    return Kernel(
        cluster.name,
        Signature(_describe(measured, coupling, letters)),
        tuple(axes),
        spread,
        _volume(nodes, coupling),
        replace(model, graph=part, twin=part),
    )


def atoms(dims: Iterable[Dim], coupling: Coupling) -> dict[Dim, None]:
    """Independent dims that `dims` are made of, in order: leaves, and sums that nothing else takes apart."""
    free = coupling.free()
    found = dict.fromkeys(a for dim in dims for a in _unfold(dim) if any(x.name in free for x in leaves(a)))
    while True:
        torn = [a for a in found if isinstance(a, Sum) and _is_torn(a, found)]
        if not torn:
            return found
        parts = (part for a in found for part in (a.parts if isinstance(a, Sum) and a in torn else (a,)))
        found = dict.fromkeys(p for part in parts for p in _unfold(part) if any(x.name in free for x in leaves(p)))


def _unfold(dim: Dim) -> list[Dim]:
    """Factors of a product; a sum stays whole if its parts are leaves."""
    match dim:
        case Leaf():
            return [dim]
        case Product(factors):
            return [atom for factor in factors for atom in _unfold(factor)]
        case Sum(parts):
            if all(isinstance(part, Leaf) for part in parts):
                return [dim]
            return [atom for part in parts for atom in _unfold(part)]


def _is_torn(dim: Sum, found: Iterable[Dim]) -> bool:
    """Whether one of its leaves occurs twice in it, or in another atom too."""
    own = [leaf.name for leaf in leaves(dim)]
    others = {leaf.name for other in found if other != dim for leaf in leaves(other)}
    return len(set(own)) < len(own) or not others.isdisjoint(own)


def _plan(part: Model, coupling: Coupling, groups: Mapping[str, int]) -> Plan:
    """A plan that makes the groups as wide as asked: weights are cut, or repeated where that is wider."""
    keep: dict[str, dict[int, NDArray[np.int64]]] = {}
    for tensor in constants(part.graph):
        if not is_weight(tensor):
            continue
        for axis, size in enumerate(tensor.shape):
            dim = coupling.axes.get((tensor.name, axis))
            wanted = size if dim is None else int(width(dim, groups))
            if wanted != size:
                keep.setdefault(tensor.name, {})[axis] = np.arange(wanted) % size
    return Plan(part.sha256, {name: np.ones(size, dtype=np.bool_) for name, size in groups.items()}, keep)


def _share(axis: Dim, size: int, coupling: Coupling) -> dict[str, int]:
    """Widths of the groups of an atom that add up to `size`: each its part of what is free, one channel at least."""
    free = coupling.free()
    mine = [leaf for leaf in leaves(axis) if leaf.name in free]
    room = size - sum(leaf.size for leaf in leaves(axis) if leaf.name not in free)
    total = sum(leaf.size for leaf in mine)
    sizes = {leaf.name: min(leaf.size, max(1, room * leaf.size // total)) for leaf in mine}
    for leaf in mine:
        sizes[leaf.name] += min(leaf.size - sizes[leaf.name], max(0, room - sum(sizes.values())))
    sizes[mine[-1].name] += max(0, room - sum(sizes.values()))
    return sizes


def _shrink_alike(part: Model, coupling: Coupling, groups: Mapping[str, int], axis: Dim) -> dict[str, int]:
    """Every group of the part at the share that the one axis has."""
    share = sum(groups.values()) / max(1, sum(coupling.groups[name].size for name in groups))
    names = {leaf.name for dim in _dims(part.graph.nodes, coupling) for leaf in leaves(dim)}
    free = coupling.free()
    alike = {name: max(1, round(free[name].size * share)) for name in names if name in free}
    return {**alike, **groups}


def _dims(nodes: Iterable[gs.Node], coupling: Coupling) -> list[Dim]:
    """Dims of every axis of every tensor, in order of appearance."""
    found: dict[Dim, None] = {}
    for node in nodes:
        for tensor in (*node.inputs, *captured(node), *node.outputs):
            for axis in range(len(tensor.shape or ())):
                dim = coupling.axes.get((tensor.name, axis))
                if dim is not None:
                    found[dim] = None
    return list(found)


def _volume(nodes: Sequence[gs.Node], coupling: Coupling) -> tuple[Dim, ...]:
    """Axes of the last node's first result that may shrink."""
    result = nodes[-1].outputs[0]
    dims = [coupling.axes.get((result.name, i)) for i in range(len(result.shape))]
    return tuple(
        dim for dim in dims if dim is not None and any(coupling.groups[x.name].pin is None for x in leaves(dim))
    )


def _core(nodes: list[gs.Node]) -> list[gs.Node]:
    """Nodes up to where another tensor is added to what the kernel computed, without a rectifier at the end.

    The addition is nearly free when fused, costs a pass over memory when not, and alone it would not be fused as
    it is in the network: what it costs there is found there. Less of it is more kernels that share a table.
    """
    if not any(node.op in HEAVY for node in nodes):
        return nodes
    inside = {t.name for node in nodes for t in node.outputs}
    lost: set[str] = set()
    kept: list[gs.Node] = []
    for node in nodes:
        variables = [t.name for t in node.inputs if isinstance(t, gs.Variable) and t.name]
        mixes = {name in inside for name in variables} == {True, False} and node.op in ELEMENTWISE
        if (mixes and any(n.op in HEAVY for n in kept)) or not lost.isdisjoint(variables):
            lost.update(t.name for t in node.outputs)
        else:
            kept.append(node)
    while kept[-1].op in _RECTIFIERS:
        kept.pop()
    return kept


def _part(nodes: Sequence[gs.Node], model: Model) -> gs.Graph:
    """The nodes as a graph of their own, with its own tensors."""
    copies: dict[str, gs.Tensor] = {}

    def copied(tensor: gs.Tensor) -> gs.Tensor:
        if tensor.is_empty():
            return gs.Variable.empty()
        if tensor.name not in copies:
            if isinstance(tensor, gs.Constant):
                copies[tensor.name] = gs.Constant(tensor.name, tensor._values, export_dtype=tensor.export_dtype)
            else:
                copies[tensor.name] = gs.Variable(tensor.name, tensor.dtype, list(tensor.shape))
        return copies[tensor.name]

    new = [
        gs.Node(n.op, n.name, dict(n.attrs), [copied(t) for t in n.inputs], [copied(t) for t in n.outputs], n.domain)
        for n in nodes
    ]
    for tensor in (t for node in nodes for t in captured(node) if not isinstance(t, gs.Constant)):
        copied(tensor)
    made = {t.name for node in new for t in node.outputs}
    read = {t.name for node in new for t in node.inputs}
    inputs = [t for t in copies.values() if isinstance(t, gs.Variable) and t.name not in made]
    outputs = [copies[name] for node in nodes for t in node.outputs if (name := t.name) in made]
    wanted = [t for t in outputs if t.name not in read or _read_outside(t.name, nodes)]
    twin = model.twin
    return gs.Graph(
        new, inputs, wanted, name="kernel", opset=twin.opset, import_domains=twin.import_domains,
        ir_version=twin.ir_version,
    )  # fmt: skip


def _read_outside(tensor: str, nodes: Sequence[gs.Node]) -> bool:
    own = {node.name for node in nodes}
    found = [t for node in nodes for t in node.outputs if t.name == tensor]
    return any(reader.name not in own for t in found for reader in t.outputs)


def _describe(nodes: Sequence[gs.Node], coupling: Coupling, letters: Mapping[Dim, str]) -> str:
    """One line per kernel: `Conv{kernel_shape=[3, 3]}(t0:f32[1,A,56,56], w:f32[B,A,3,3]) -> t1:f32[1,B,56,56]`."""
    follows = {(f.node, f.attribute, f.operand) for f in coupling.follows}
    names: dict[str, str] = {}
    lines = []
    for node in nodes:
        attrs = ", ".join(
            f"{key}=[{_describe(value.nodes, coupling, letters)}]"
            if isinstance(value, Open)
            else f"{key}={_plain(value)}"
            for key, value in sorted(node.attrs.items())
            if (node.name, key, -1) not in follows
        )
        inputs = [
            _operand(t, coupling, letters, names, (node.name, "", i) in follows) for i, t in enumerate(node.inputs)
        ]
        outputs = [_operand(t, coupling, letters, names, False) for t in node.outputs]
        lines.append(f"{node.op}{{{attrs}}}({', '.join(inputs)}) -> {', '.join(outputs)}")
    return "; ".join(lines)


def _operand(
    tensor: gs.Tensor, coupling: Coupling, letters: Mapping[Dim, str], names: dict[str, str], followed: bool
) -> str:
    if tensor.is_empty():
        return "-"
    dims = [coupling.axes.get((tensor.name, i), Leaf("", int(n))) for i, n in enumerate(tensor.shape or ())]
    shape = f"{dtype_name(tensor.dtype)}[{','.join(_letter(dim, letters) for dim in dims)}]"
    if not isinstance(tensor, gs.Constant):
        return f"{names.setdefault(tensor.name, f't{len(names)}')}:{shape}"
    if followed or dtype_name(tensor.dtype).startswith("float") or math.prod(tensor.shape) > _FEW:
        return f"w:{shape}"
    return f"{shape}={np.asarray(array_of(tensor)).tolist()}"


def _letter(dim: Dim, letters: Mapping[Dim, str]) -> str:
    if dim in letters:
        return letters[dim]
    match dim:
        case Leaf(_, size):
            return str(size)
        case Sum(parts):
            return "+".join(_letter(part, letters) for part in parts)
        case Product(factors):
            return "*".join(_letter(factor, letters) for factor in factors)


def _plain(value: Any) -> str:
    if isinstance(value, np.ndarray | gs.Tensor):
        return f"{value.dtype}{list(value.shape)}"
    return repr(value)
