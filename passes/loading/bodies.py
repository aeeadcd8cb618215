"""Bodies of loops that halpc sees through: on the twin their tensors have static shapes, as those around them.

What is carried from step to step keeps its shape there, and a name means one tensor in the whole model, of which a
body may have a copy where that is a constant. The body of any other `Loop`, and of any `If` and `Scan`, is closed: what
it reads stays whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx_graphsurgeon as gs

from passes.loading.fold import Knowledge, Known, interpret_body, look_up, onnx_type
from passes.weights import constants

FIRST = 2  # operands of a Loop in front of what it carries: how often, and whether at all


class Open(gs.Graph):
    """A body that is seen through."""


def bodies_of(node: gs.Node) -> list[gs.Graph]:
    """A node's own bodies: branches, or what a loop repeats."""
    return [value for value in node.attrs.values() if isinstance(value, gs.Graph)]


def seen(twin: gs.Graph) -> Iterator[gs.Node]:
    """Every node that is seen: behind a loop, those of its body where that is seen through."""
    for node in twin.nodes:
        yield node
        body = node.attrs.get("body")
        if isinstance(body, Open):
            yield from body.nodes


def open_bodies(twin: gs.Graph, known: Knowledge) -> None:
    """Mark the bodies in the twin that can be seen through, and write down their tensors' shapes.

    Args:
        twin: with every shape static.
        known: of the graph around them, at the twin's shapes.
    """
    names = Counter(_names(twin))
    values: dict[str, set[int]] = {}
    for tensor in constants(twin):
        values.setdefault(tensor.name, set()).add(id(tensor._values))
    for node in twin.nodes:
        body = node.attrs.get("body")
        if node.op != "Loop" or node.domain or not isinstance(body, gs.Graph):
            continue
        single = all(names[name] == 1 and name not in values for name in _own(body)) and all(
            len(values[t.name]) == 1 and t.name not in names for t in constants(body)
        )
        facts = _facts(node, body, known) if single else None
        if facts is not None:
            for tensor in _locals(body):
                fact = facts[tensor.name]
                tensor.shape, tensor.dtype = list(fact.shape), fact.dtype if tensor.dtype is None else tensor.dtype
            body.__class__ = Open


def _facts(node: gs.Node, body: gs.Graph, known: Knowledge) -> dict[str, Known] | None:
    """What is known of every tensor of the body; None where something is not, or changes its shape on the way."""
    carried = len(node.inputs) - FIRST
    given = [None if t.is_empty() else look_up(t, known.tensors) for t in node.inputs[FIRST:]]
    if len(body.inputs) != FIRST + carried or len(body.outputs) < 1 + carried or None in given:
        return None
    if any(isinstance(value, gs.Graph) for inner in body.nodes for value in inner.attrs.values()):
        return None
    if any(isinstance(t, gs.Constant) for t in body.outputs[1:]):
        return None
    scalars = [Known((), onnx_type(t.dtype)) for t in body.inputs[:FIRST]]
    states = [Known(fact.shape, fact.dtype) for fact in given if fact is not None]
    named = zip((t.name for t in body.inputs), (*scalars, *states), strict=True)
    facts = interpret_body(body, {**known.tensors, **dict(named)})
    if any(t.name not in facts for t in (*_locals(body), *body.outputs[1:])):
        return None
    after = [facts[t.name].shape for t in body.outputs[1:]]
    same = all(before.shape == shape for before, shape in zip(states, after, strict=False))
    return facts if same and _gives(node, after, carried, known) else None


def _gives(node: gs.Node, after: list[tuple[int, ...]], carried: int, known: Knowledge) -> bool:
    """Whether the loop gives out what it carried, and what it collected with one more axis in front."""
    for i, (tensor, shape) in enumerate(zip(node.outputs, after, strict=False)):
        if tensor.is_empty():
            continue
        fact = known.tensors.get(tensor.name)
        if fact is None or fact.shape[0 if i < carried else 1 :] != shape:
            return False
    return True


def _locals(body: gs.Graph) -> Iterator[gs.Variable]:
    """What the body takes and makes."""
    yield from body.inputs
    yield from (t for node in body.nodes for t in node.outputs if not t.is_empty())


def _own(graph: gs.Graph) -> Iterator[str]:
    """Names of what a graph takes and makes, and of its nodes."""
    yield from (t.name for t in _locals(graph))
    yield from (f"node {node.name}" for node in graph.nodes)


def _names(graph: gs.Graph) -> Iterator[str]:
    """The same of a graph and all in it."""
    for each in (graph, *graph.subgraphs(recursive=True)):
        yield from _own(each)
