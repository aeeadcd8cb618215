"""count: what needs no measuring: multiply-accumulates and parameters as functions of the groups' widths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from halpc.ir.cost import CostModel, Proportional
from halpc.ir.dims import Dim, Leaf, leaves
from halpc.ir.groups import Coupling
from halpc.ir.problem import Charge
from halpc.units import UNITS


@dataclass(frozen=True, slots=True)
class Volume:
    """The product of some axes, as one node's cost: `coefficient` × Π widths."""

    name: str
    coefficient: float
    axes: tuple[Dim, ...]


def macs(graph: gs.Graph, coupling: Coupling) -> CostModel:
    """Multiply-accumulates of convolutions and matrix products of the static twin, at its batch."""
    return _counted("macs", (v for node in graph.nodes if (v := _node_macs(node, coupling)) is not None), coupling)


def params(graph: gs.Graph, coupling: Coupling) -> CostModel:
    """Entries of floating-point and quantised weights; literals that count axes are no parameters."""
    tensors = [t for t in graph.tensors().values() if isinstance(t, gs.Constant) and _is_parameter(t)]
    return _counted("params", (_volume(t.name, 1.0, t.name, t.shape, coupling) for t in tensors), coupling)


def _is_parameter(tensor: gs.Constant) -> bool:
    return str(np.dtype(tensor.dtype) if not isinstance(tensor.dtype, int) else tensor.dtype) not in ("int64", "bool")


def _volume(name: str, factor: float, tensor: str, shape: Sequence[int], coupling: Coupling) -> Volume:
    """factor × Π of a tensor's axes."""
    axes = [coupling.axes.get((tensor, i), Leaf("", int(n))) for i, n in enumerate(shape)]
    return Volume(name, factor, tuple(axes))


def _node_macs(node: gs.Node, coupling: Coupling) -> Volume | None:
    if node.op in ("Conv", "ConvInteger", "QLinearConv"):
        weight, y = node.inputs[3 if node.op == "QLinearConv" else 1], node.outputs[0]
        places = y.shape[0] * math.prod(y.shape[2:]) * math.prod(weight.shape[2:])
        return _volume(node.name, places, weight.name, weight.shape[:2], coupling)
    if node.op == "ConvTranspose":
        x, weight = node.inputs[0], node.inputs[1]
        places = x.shape[0] * math.prod(x.shape[2:]) * math.prod(weight.shape[2:])
        return _volume(node.name, places, weight.name, weight.shape[:2], coupling)
    if node.op in ("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "FusedMatMul"):
        a, y = node.inputs[0], node.outputs[0]
        inner = len(a.shape) - (2 if node.op == "Gemm" and node.attrs.get("transA", 0) else 1)
        product = _volume(node.name, 1.0, y.name, y.shape, coupling)
        depth = coupling.axes.get((a.name, inner), Leaf("", int(a.shape[inner])))
        return Volume(node.name, 1.0, (*product.axes, depth))
    if node.op in ("LSTM", "GRU", "RNN"):
        x, w, r = node.inputs[:3]
        steps = x.shape[0] * x.shape[1]
        return Volume(node.name, float(steps), (Leaf("", math.prod(w.shape) + math.prod(r.shape)),))
    return None


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
