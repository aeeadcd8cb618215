"""Layers inside control flow that no rule looks into: they stay whole."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from passes.coupling.members import WEIGHTED, layer_name
from passes.loading.bodies import Open, bodies_of


def enclosed(twin: gs.Graph) -> dict[str, str]:
    """Layer → why it stays whole."""
    found: dict[str, str] = {}
    for node in twin.nodes:
        inside = [layer_name(inner) for body in _bodies(node) for inner in _nodes(body) if inner.op in WEIGHTED]
        if inside:
            found |= dict.fromkeys(inside, f"it is inside {node.op} {node.name}{_decided(node)}")
    return found


def _decided(node: gs.Node) -> str:
    """Of an `If`: the inputs that its condition comes from."""
    if node.op != "If":
        return ""
    names: dict[str, None] = {}
    waiting, seen = [node.inputs[0]], set()
    while waiting:
        tensor = waiting.pop()
        if id(tensor) in seen or isinstance(tensor, gs.Constant):
            continue
        seen.add(id(tensor))
        if not tensor.inputs:
            names[tensor.name] = None
        waiting += [operand for maker in tensor.inputs for operand in maker.inputs]
    if len(names) != 1:
        return f", which inputs decide: {', '.join(sorted(names))}"
    (name,) = names
    return f", which input {name} decides: --set {name}=VALUE leaves one branch, which can be pruned"


def _bodies(node: gs.Node) -> Iterator[gs.Graph]:
    return (body for body in bodies_of(node) if not isinstance(body, Open))


def _nodes(graph: gs.Graph) -> Iterator[gs.Node]:
    for node in graph.nodes:
        yield node
        for body in _bodies(node):
            yield from _nodes(body)
