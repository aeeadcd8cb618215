"""inspect and explain: which channels may go, with which others, and why the rest may not."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import onnx_graphsurgeon as gs

from halpc.errors import OutputError, UsageError
from halpc.ir.dims import leaves, spell
from halpc.ir.groups import Coupling, Group, Member
from halpc.ir.model import Model
from passes.count import macs, params, remarks
from passes.couple import couple
from passes.coupling.enclosed import enclosed
from passes.coupling.members import LAYERS, WEIGHTED, layer_name, produced_by, weights_of
from passes.load import load
from passes.loading.bodies import seen
from passes.weights import constants, is_weight
from passes.write import check_place

AxisKey = tuple[str, int]
GRAPHS = (".graphml", ".dot", ".svg")


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group: its width, layers, and the parameters and MACs that touch it."""

    name: str
    size: int
    layers: tuple[str, ...]
    params: float
    macs: float
    pin: str | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model's coupling in numbers and words.

    Attributes:
        whole: layers of which nothing may shrink, each with the reasons.
        notes: what the MACs leave out, and what they take for granted.
    """

    model: Model
    coupling: Coupling
    rows: tuple[GroupRow, ...]
    whole: Mapping[str, str]
    total_macs: float
    total_params: float
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "format": "halpc.inspection",
            "version": 1,
            "macs": self.total_macs,
            "params": self.total_params,
            "groups": [
                {
                    "name": r.name,
                    "size": r.size,
                    "layers": list(r.layers),
                    "params": r.params,
                    "macs": r.macs,
                    "pin": r.pin,
                }
                for r in self.rows
            ],
            "whole_layers": dict(self.whole),
            "notes": list(self.notes),
        }


def inspect(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    batch: int | None,
    freeze: tuple[str, ...],
    renormalise: bool,
    values: Mapping[str, float] | None = None,
) -> Inspection:
    """Load and couple a model, and count what each group carries."""
    model = load(path, shapes=shapes, batch=batch, values=values)
    coupling = couple(model.twin, renormalise=renormalise, freeze=produced_by(model.twin, freeze))
    macs_model, params_model = macs(model.twin, coupling), params(model.twin, coupling, model.recipes)
    macs_of, params_of = _carried(macs_model), _carried(params_model)
    names = {node.name: layer_name(node) for node in seen(model.twin)}
    weights = _weights(model)
    rows = [
        GroupRow(n, g.size, _layers(g, names), params_of.get(n, 0.0), macs_of.get(n, 0.0), g.pin)
        for n, g in coupling.groups.items()
        if g.size > 1 and any(m.tensor in weights and not _is_window(m) for m in g.members)
    ]
    rows.sort(key=lambda row: (row.pin is not None, -row.macs))
    totals = macs_model.at({}), min(params_model.at({}), model.stored)
    whole = _whole_layers(model, coupling) | enclosed(model.twin)
    return Inspection(model, coupling, tuple(rows), whole, *totals, remarks(model.twin, coupling))


def _is_window(member: Member) -> bool:
    """Whether an axis is a kernel's height or width, or counts a resize's scales: no channels."""
    return member.op in ("Resize", "Upsample") or ("Conv" in member.op and member.axis > 1)


def _weights(model: Model) -> set[str]:
    """The file's constants without those that only serve shapes and positions."""
    return {t.name for t in constants(model.graph) if is_weight(t)}


def _layers(group: Group, names: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names[m.node] for m in group.members if m.op in (*LAYERS, "BatchNormalization")))


def _carried(cost: Any) -> dict[str, float]:
    """Leaf name → cost of everything that shrinks with it."""
    carried: dict[str, float] = {}
    for charge in cost.charges:
        amount = float(charge.at({}))
        for name in {leaf.name for axis in charge.axes for leaf in leaves(axis)}:
            carried[name] = carried.get(name, 0.0) + amount
    return carried


def _whole_layers(model: Model, coupling: Coupling) -> dict[str, str]:
    """Weighted layers of which no axis may shrink, each with its reasons."""
    whole: dict[str, str] = {}
    for node in seen(model.twin):
        weights = [t for t in weights_of(node) if len(t.shape) > 1]
        if node.op not in LAYERS or not weights:
            continue
        axes = [(t.name, i) for t in weights for i in range(len(t.shape))]
        if not any(coupling.shrinks(*axis) for axis in axes):
            reasons = dict.fromkeys(reason for axis in axes if (reason := _reason(coupling, axis)))
            whole[layer_name(node)] = "; ".join(list(reasons)[:2]) or "every axis has one channel"
    return whole


def _reason(coupling: Coupling, axis: AxisKey) -> str | None:
    dim = coupling.axes.get(axis)
    for leaf in leaves(dim) if dim is not None else ():
        if leaf.size > 1 and coupling.groups[leaf.name].pin:
            return coupling.groups[leaf.name].pin
    return None


# ---- explain ------------------------------------------------------------------------------------


def explain(found: Inspection, layer: str, other: str | None = None) -> list[str]:
    """Sentences: why `layer` stays whole or whom it is tied to; or why two layers are tied.

    Raises:
        UsageError: no such layer, with the nearest name; or twice the same.
    """
    node = _find(found, layer)
    if other is not None:
        second = _find(found, other)
        if second is node:
            raise UsageError(f"{layer!r} and {other!r} are one layer: give another, or one alone")
        return _tied(found, node, second)
    lines = []
    for tensor, role in ((node.outputs[0], "output"), (_data(node), "input")):
        axis = _channels(found, tensor)
        if axis is None:
            continue
        dim = found.coupling.axes[axis]
        lines.append(f"{layer_name(node)}: {role} channels are {spell(dim)}")
        for name in dict.fromkeys(leaf.name for leaf in leaves(dim)):
            lines += _about(found, axis, found.coupling.groups[name])
    return lines or [f"{layer_name(node)}: no axis of it is longer than one channel"]


def _about(found: Inspection, axis: AxisKey, group: Group) -> list[str]:
    names = {node.name: layer_name(node) for node in seen(found.model.twin)}
    tied = ", ".join(_layers(group, names)[:12]) or "no layer"
    if group.pin is None:
        return [f"  {group.name} ({group.size} channels) may shrink, together with: {tied}"]
    culprit = group.pin.rsplit("(", 1)[-1].rstrip(")")
    path = _path(found, axis, {group.name}, culprit)
    return [f"  {group.name} ({group.size} channels) stays whole: {group.pin}"] + (
        [f"    through {path}"] if path else []
    )


def _path(found: Inspection, start: AxisKey, wanted: set[str], culprit: str) -> str:
    """From an axis to the operator that pins it, through axes that share the leaf."""
    graph = _sharing(found, wanted)
    goals = {
        (t.name, i)
        for node in seen(found.model.twin)
        if node.name == culprit
        for t in (*node.inputs, *node.outputs)
        for i in range(len(t.shape or ()))
    }
    reachable = [g for g in goals if g in graph and start in graph and nx.has_path(graph, start, g)]
    if not reachable:
        return ""
    best = min((nx.shortest_path(graph, start, goal) for goal in reachable), key=len)
    return _spell_path(graph, best)


def _sharing(found: Inspection, wanted: set[str]) -> nx.Graph:
    """The part of the coupling graph whose axes contain one of the wanted leaves."""
    axes = [a for a, dim in found.coupling.axes.items() if wanted & {leaf.name for leaf in leaves(dim)}]
    return found.coupling.graph.subgraph(axes)


def _spell_path(graph: nx.Graph, path: list[AxisKey]) -> str:
    steps = [graph.edges[a, b] for a, b in pairwise(path)]
    nodes = dict.fromkeys(f"{step['node']} [{step['op']}]" for step in steps)
    return " → ".join(nodes) or "directly"


def _tied(found: Inspection, a: gs.Node, b: gs.Node) -> list[str]:
    """The leaves that two layers share and the shortest way from one to the other."""
    names = layer_name(a), layer_name(b)
    lines = []
    for tensor_a in (a.outputs[0], _data(a)):
        for tensor_b in (b.outputs[0], _data(b)):
            left, right = _channels(found, tensor_a), _channels(found, tensor_b)
            if left is None or right is None:
                continue
            shared = {x.name for x in leaves(found.coupling.axes[left])} & {
                x.name for x in leaves(found.coupling.axes[right])
            }
            graph = _sharing(found, shared)
            if shared and left in graph and right in graph and nx.has_path(graph, left, right):
                path = _spell_path(graph, nx.shortest_path(graph, left, right))
                ends = [
                    f"{'output' if t is n.outputs[0] else 'input'} of {layer_name(n)}"
                    for t, n in ((tensor_a, a), (tensor_b, b))
                ]
                lines.append(f"{ends[0]} and {ends[1]} share {', '.join(sorted(shared))}: {path}")
    return lines or [f"{names[0]} and {names[1]} are not tied: they share no group"]


def _find(found: Inspection, name: str) -> gs.Node:
    table: dict[str, gs.Node] = {}
    for node in seen(found.model.twin):
        weighted = node.op in WEIGHTED
        for key in (layer_name(node), node.name, node.outputs[0].name):
            if key not in table or (weighted and table[key].op not in WEIGHTED):
                table[key] = node
    if name not in table:
        close = difflib.get_close_matches(name, table, n=1, cutoff=0.0)
        raise UsageError(f"no layer {name!r} in {found.model.path}; the nearest is {close[0]!r}")
    return table[name]


def _data(node: gs.Node) -> gs.Tensor:
    """The operand that is no weight, if there is one."""
    return next((t for t in node.inputs if isinstance(t, gs.Variable) and not t.is_empty()), node.inputs[0])


def _channels(found: Inspection, tensor: gs.Tensor) -> AxisKey | None:
    """The axis that people mean by channels: the second of images, the last of sequences."""
    rank = len(tensor.shape or ())
    order = (1, rank - 1, *range(rank)) if rank in (2, 4, 5) else (rank - 1, *range(rank))
    return next(((tensor.name, i) for i in order if (tensor.name, i) in found.coupling.axes), None)


# ---- drawing ------------------------------------------------------------------------------------


def check_graph(path: Path) -> None:
    """That a graph may be saved there.

    Raises:
        UsageError: a suffix of none of `GRAPHS`.
        OutputError: no file can be written there.
    """
    if path.suffix not in GRAPHS:
        raise UsageError(f"--graph {path}: expected {', '.join(GRAPHS)}")
    check_place(path, "--graph")


def save_graph(found: Inspection, path: Path) -> None:
    """Groups and layers as a graph, by the path's suffix: GraphML, DOT, or an SVG drawn by matplotlib.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        _save(_layers_of_groups(found), path)
    except OSError as error:
        raise OutputError(f"--graph {path}: cannot be written: {error.strerror or error}") from error


def _save(graph: nx.Graph, path: Path) -> None:
    if path.suffix == ".graphml":
        nx.write_graphml(graph, path)
    elif path.suffix == ".dot":
        path.write_text(_dot(graph), encoding="utf-8")
    else:
        from halpc.draw import draw_coupling

        draw_coupling(graph, path)


def _layers_of_groups(found: Inspection) -> nx.Graph:
    """A node per group and per layer, an edge where a layer is part of a group."""
    graph = nx.Graph()
    for row in found.rows:
        graph.add_node(
            f"group {row.name}", kind="group", size=row.size, pin=row.pin or "", label=f"{row.name} [{row.size}]"
        )
        for layer in row.layers:
            graph.add_node(f"layer {layer}", kind="layer", size=0, pin="", label=layer)
            graph.add_edge(f"group {row.name}", f"layer {layer}")
    return graph


def _dot(graph: nx.Graph) -> str:
    def quoted(text: str) -> str:
        return '"' + str(text).replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines = ["graph coupling {", "  rankdir=LR; node [fontname=Helvetica];"]
    for name, data in graph.nodes(data=True):
        shape = "box" if data["kind"] == "layer" else "ellipse"
        colour = "grey" if data["pin"] else "black"
        lines.append(f"  {quoted(name)} [label={quoted(data['label'])}, shape={shape}, color={colour}];")
    lines += [f"  {quoted(a)} -- {quoted(b)};" for a, b in graph.edges]
    return "\n".join([*lines, "}"]) + "\n"
