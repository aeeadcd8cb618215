"""count: what needs no measuring: multiply-accumulates and parameters as functions of the groups' widths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import onnx_graphsurgeon as gs

from halpc.ir.cost import CostModel, Proportional
from halpc.ir.dims import Dim, leaves
from halpc.ir.groups import Coupling
from halpc.ir.origin import Recipe
from halpc.ir.problem import Charge
from halpc.units import UNITS
from passes.counting.bodies import tally
from passes.counting.sizes import Sizes, Volume
from passes.weights import LITERALS, distinct, is_weight


def macs(graph: gs.Graph, coupling: Coupling) -> CostModel:
    """Multiply-accumulates of the static twin: convolutions, matrix products, recurrences, attention, and bodies."""
    return _counted("macs", tally(graph, Sizes(coupling.axes)).volumes, coupling)


def remarks(graph: gs.Graph, coupling: Coupling) -> tuple[str, ...]:
    """What a reader of the MACs must know: what they leave out, and what they take for granted."""
    found = tally(graph, Sizes(coupling.axes))
    said = []
    if found.uncounted:
        operators = ", ".join(f"{op} ({count}x)" for op, count in sorted(found.uncounted.items()))
        said.append(f"MACs do not count {operators}: halpc does not know what these cost")
    for name in dict.fromkeys(found.once):
        said.append(f"MACs count the body of {name} once: how often it runs is not known")
    for name in dict.fromkeys(found.branches):
        said.append(f"MACs count the dearer branch of {name}")
    return tuple(said)


def params(graph: gs.Graph, coupling: Coupling, recipes: Mapping[str, Recipe] | None = None) -> CostModel:
    """Entries of floating-point and quantised weights, those of bodies too; literals that count axes are none.

    Of what has a recipe and stays whole, that counts which the recipe holds (`passes/unfold.py`).
    """
    tensors = [t for t in distinct(graph) if is_weight(t)]
    again = {
        t.name: recipes[t.name]
        for t in tensors
        if recipes and t.name in recipes and not any(coupling.shrinks(t.name, i) for i in range(len(t.shape)))
    }
    names = {t.name for t in tensors}
    sources = {n: v for recipe in again.values() for n, v in recipe.sources.items() if n not in names}
    held = [Volume(n, float(v.size), ()) for n, v in sources.items() if v.dtype.name not in LITERALS]
    sizes = Sizes(coupling.axes)
    weights = (sizes.volume(t.name, 1.0, t) for t in tensors if t.name not in again)
    return _counted("params", (*weights, *held), coupling)


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
