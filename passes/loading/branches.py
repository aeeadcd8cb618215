"""`If` nodes whose condition does not depend on the input: the branch taken becomes part of the graph around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_graphsurgeon as gs

from passes.loading.bodies import bodies_of
from passes.loading.fold import Knowledge, look_up


def inline_branches(graph: gs.Graph, interpret: Callable[[], list[Knowledge]]) -> bool:
    """Put the branches taken in place of their `If`, nested ones too.

    Args:
        graph: changed in place; its nodes are left in no particular order.
        interpret: what is known of the graph as it is, at every size of its dynamic axes that is looked at.

    Returns: whether anything was inlined; literals and names of the branch are to be tidied then.
    """
    changed = False
    while any(node.op == "If" and not node.domain for node in graph.nodes):
        worlds = interpret()
        decided = [(node, taken) for node in graph.nodes if (taken := _taken(node, worlds)) is not None]
        if not decided:
            break
        for node, taken in decided:
            _inline(graph, node, taken)
        graph.toposort()
        changed = True
    return changed


def _taken(node: gs.Node, worlds: list[Knowledge]) -> bool | None:
    """Which branch an `If` always takes, or None where that depends."""
    if node.op != "If" or node.domain:
        return None
    facts = [look_up(node.inputs[0], world.tensors) for world in worlds]
    values = {bool(np.all(f.value)) for f in facts if f is not None and f.value is not None}
    unknown = any((f is None or f.value is None) and not world.partial for f, world in zip(facts, worlds, strict=True))
    return None if unknown or len(values) != 1 else values.pop()


def _inline(graph: gs.Graph, node: gs.Node, taken: bool) -> None:
    branch, other = (node.attrs[f"{name}_branch"] for name in (("then", "else") if taken else ("else", "then")))
    _detach(other)
    results = list(node.outputs)
    node.inputs.clear()
    node.outputs.clear()
    graph.nodes.remove(node)
    around = {id(t): t for t in _tensors(graph)}
    names = {t.name: t for t in around.values()}
    _rename([t for t in _tensors(branch) if id(t) not in around and not _is_alias(t)], set(names), node.name)
    nested = {id(t) for step in branch.nodes for body in bodies_of(step) for t in _tensors(body)}
    for inner, outer in zip(branch.outputs, results, strict=True):
        if _is_alias(inner) and id(inner) not in around:
            inner = names[inner.name]
        if id(inner) in around or id(inner) in nested or isinstance(inner, gs.Constant):
            graph.nodes.append(gs.Node("Identity", f"{node.name}/{outer.name}", None, [inner], [outer]))
        else:
            _replace(inner, outer)
    graph.nodes.extend(branch.nodes)


def _is_alias(tensor: gs.Tensor) -> bool:
    """Whether nothing makes it: a body that gives out a tensor of the graph around it has only the name."""
    return isinstance(tensor, gs.Variable) and not tensor.inputs


def _replace(inner: gs.Tensor, outer: gs.Tensor) -> None:
    """Whoever makes or reads `inner` makes or reads `outer`."""
    for maker in list(inner.inputs):
        maker.outputs[[t is inner for t in maker.outputs].index(True)] = outer
    for reader in list(inner.outputs):
        for i, tensor in enumerate(reader.inputs):
            if tensor is inner:
                reader.inputs[i] = outer


def _rename(tensors: list[gs.Tensor], taken: set[str], prefix: str) -> None:
    """Names that the graph around uses already get the name of the `If` in front."""
    for tensor in {id(t): t for t in tensors}.values():
        if tensor.name in taken:
            tensor.name = f"{prefix}/{tensor.name}"


def _tensors(graph: gs.Graph) -> Iterator[gs.Tensor]:
    """Every tensor that a graph and the bodies in it mention, repeated where it is mentioned repeatedly."""
    yield from (t for t in (*graph.inputs, *graph.outputs) if not t.is_empty())
    for node in graph.nodes:
        yield from (t for t in (*node.inputs, *node.outputs) if not t.is_empty())
        for body in bodies_of(node):
            yield from _tensors(body)


def _detach(body: gs.Graph) -> None:
    """Its nodes no longer read the tensors around it."""
    for node in body.nodes:
        for inner in bodies_of(node):
            _detach(inner)
        node.inputs.clear()
