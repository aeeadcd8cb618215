"""count: what needs no measuring: multiply-accumulates and parameters as functions of the groups' widths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from halpc.ir.cost import CostModel, Proportional
from halpc.ir.dims import Dim, Leaf, leaves
from halpc.ir.groups import Coupling
from halpc.ir.origin import Recipe
from halpc.ir.problem import Charge
from halpc.units import UNITS
from passes.loading.bodies import Open
from passes.weights import array_of, distinct

LITERALS = ("int64", "bool")  # they count or choose something


@dataclass(frozen=True, slots=True)
class Volume:
    """The product of some axes, as one node's cost: `coefficient` × Π widths."""

    name: str
    coefficient: float
    axes: tuple[Dim, ...]


def macs(graph: gs.Graph, coupling: Coupling) -> CostModel:
    """Multiply-accumulates of convolutions, matrix products, recurrences and attention of the static twin."""
    return _counted("macs", (volume for node in graph.nodes for volume in _all_macs(node, coupling)), coupling)


def params(graph: gs.Graph, coupling: Coupling, recipes: Mapping[str, Recipe] | None = None) -> CostModel:
    """Entries of floating-point and quantised weights, those of bodies too; literals that count axes are none.

    Of what has a recipe and stays whole, that counts which the recipe holds (`passes/unfold.py`).
    """
    tensors = [t for t in distinct(graph) if _is_parameter(t)]
    again = {
        t.name: recipes[t.name]
        for t in tensors
        if recipes and t.name in recipes and not any(coupling.shrinks(t.name, i) for i in range(len(t.shape)))
    }
    names = {t.name for t in tensors}
    sources = {n: v for recipe in again.values() for n, v in recipe.sources.items() if n not in names}
    held = [Volume(n, float(v.size), ()) for n, v in sources.items() if v.dtype.name not in LITERALS]
    weights = (_volume(t.name, 1.0, t.name, t.shape, coupling) for t in tensors if t.name not in again)
    return _counted("params", (*weights, *held), coupling)


def _is_parameter(tensor: gs.Constant) -> bool:
    return str(np.dtype(tensor.dtype) if not isinstance(tensor.dtype, int) else tensor.dtype) not in LITERALS


def _volume(name: str, factor: float, tensor: str, shape: Sequence[int], coupling: Coupling) -> Volume:
    """factor × Π of a tensor's axes."""
    return Volume(name, factor, coupling.shape_of(tensor, shape))


def _all_macs(node: gs.Node, coupling: Coupling) -> list[Volume]:
    """A node's, and those of the body of a loop, as often as it runs."""
    body = node.attrs.get("body")
    if not isinstance(body, Open):
        return _node_macs(node, coupling)
    steps = _steps(node)
    inner = (volume for each in body.nodes for volume in _node_macs(each, coupling))
    return [replace(volume, coefficient=steps * volume.coefficient) for volume in inner]


def _steps(loop: gs.Node) -> float:
    """How often a loop runs: as often as it collects something, or as it is told; once where neither is known."""
    collected = loop.outputs[len(loop.inputs) - 2 :]
    if collected:
        return float(collected[0].shape[0])
    most = loop.inputs[0]
    return float(np.asarray(array_of(most)).reshape(-1)[0]) if isinstance(most, gs.Constant) else 1.0


def _node_macs(node: gs.Node, coupling: Coupling) -> list[Volume]:
    if node.op in ("Conv", "ConvInteger", "QLinearConv"):
        weight, y = node.inputs[3 if node.op == "QLinearConv" else 1], node.outputs[0]
        places = y.shape[0] * math.prod(y.shape[2:]) * math.prod(weight.shape[2:])
        return [_volume(node.name, places, weight.name, weight.shape[:2], coupling)]
    if node.op == "ConvTranspose":
        x, weight = node.inputs[0], node.inputs[1]
        places = x.shape[0] * math.prod(x.shape[2:]) * math.prod(weight.shape[2:])
        return [_volume(node.name, places, weight.name, weight.shape[:2], coupling)]
    if node.op in PRODUCTS:
        a, y = node.inputs[0], node.outputs[0]
        rows = node.op in ("Gemm", "QGemm", "FusedMatMul") and node.attrs.get("transA", 0)
        inner = len(a.shape) - (2 if rows else 1)
        product = _volume(node.name, 1.0, y.name, y.shape, coupling)
        return [Volume(node.name, 1.0, (*product.axes, _axis(a, inner, coupling)))]
    if node.op in ("LSTM", "GRU", "RNN"):
        steps = float(math.prod(node.inputs[0].shape[:2]))
        return [_volume(node.name, steps, t.name, t.shape, coupling) for t in node.inputs[1:3]]
    if node.op == "Einsum":
        return [_contraction(node, coupling)]
    if node.op in ("Attention", "MultiHeadAttention") and len(node.inputs) > 2:
        return _attention(node, coupling)
    return []


PRODUCTS = (
    "MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "QGemm", "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul", "MatMulNBits",
)  # fmt: skip


def _axis(tensor: gs.Tensor, index: int, coupling: Coupling) -> Dim:
    return coupling.axes.get((tensor.name, index), Leaf("", int(tensor.shape[index])))


def _contraction(node: gs.Node, coupling: Coupling) -> Volume:
    """An Einsum: one axis per letter; those of an ellipsis are the result's."""
    terms, _, result = str(node.attrs["equation"]).replace(" ", "").partition("->")
    y = node.outputs[0]
    letters: dict[str, Dim] = {}
    for tensor, term in [*zip(node.inputs, terms.split(","), strict=True), (y, result)]:
        for letter, index in _places(term, len(tensor.shape)):
            letters.setdefault(letter, _axis(tensor, index, coupling))
    named = {index for _, index in _places(result, len(y.shape))}
    unnamed = [_axis(y, i, coupling) for i in range(len(y.shape)) if "..." in result and i not in named]
    return Volume(node.name, 1.0, (*letters.values(), *unnamed))


def _places(term: str, rank: int) -> list[tuple[str, int]]:
    """Letters of an Einsum's term and the axes they stand for."""
    before, _, after = term.partition("...")
    return [(c, i) for i, c in enumerate(before)] + [(c, rank - len(after) + i) for i, c in enumerate(after)]


def _attention(node: gs.Node, coupling: Coupling) -> list[Volume]:
    """Scores (batch · queries · keys · hidden of q) and their product with v (… · hidden of the result)."""
    q, k, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if any(t.is_empty() or not t.shape for t in (q, k, y)) or len(k.shape) not in (3, 4):
        return []
    places = float(q.shape[0] * q.shape[-2] * k.shape[-2])
    hidden = [1, 3] if len(q.shape) == 4 else [2]
    return [Volume(node.name, places, tuple(_axis(t, i, coupling) for i in hidden if i < len(t.shape))) for t in (q, y)]


def _counted(resource: str, volumes: Iterable[Volume], coupling: Coupling) -> CostModel:
    """Sum volumes over equal free axes into one charge each."""
    free = coupling.free()
    fixed = 0.0
    merged: dict[tuple[Dim, ...], tuple[str, float]] = {}
    for volume in volumes:
        moving = tuple(d for d in volume.axes if any(leaf.name in free for leaf in leaves(d)))
        still = math.prod(d.size for d in volume.axes if d not in moving)
        if not moving:
            fixed += volume.coefficient * still
            continue
        name, sofar = merged.get(moving, (volume.name, 0.0))
        merged[moving] = (name, sofar + volume.coefficient * still)
    charges = tuple(Charge(name, axes, Proportional(c)) for axes, (name, c) in merged.items())
    return CostModel(resource, UNITS[resource], fixed, charges)
