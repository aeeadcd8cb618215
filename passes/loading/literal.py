"""Computed tensors as literals, and Reshape targets: one of which one entry varies needs no shape subgraph.

Entries that equal the operand's own axis become 0 (copy), one other that varies becomes −1. What is left
keeps its subgraph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from passes.loading.fold import Knowledge, Known


def settle(tensor: gs.Tensor, value: np.ndarray[Any, Any]) -> None:
    """A computed tensor becomes a constant; a node that makes others too goes on making something in its place."""
    for maker in list(tensor.inputs):
        if len(maker.outputs) > 1:
            place = [t is tensor for t in maker.outputs].index(True)
            maker.outputs[place] = gs.Variable(f"{tensor.name}/unread", tensor.dtype, tensor.shape)
    tensor.inputs.clear()
    tensor.to_constant(value)


def literalise(graph: gs.Graph, known: Knowledge, variants: list[Knowledge]) -> None:
    """Replace the computed targets of Reshape nodes by literals where that says the same at every size."""
    for node in graph.nodes:
        if node.op != "Reshape" or len(node.inputs) < 2 or isinstance(node.inputs[1], gs.Constant):
            continue
        if node.attrs.get("allowzero", 0):
            continue
        result = node.outputs[0].name
        worlds = [known, *(world for world in variants if not world.partial or result in world.tensors)]
        sources = [_fact(node.inputs[0], world) for world in worlds]
        targets = [_fact(node.inputs[1], world) for world in worlds]
        results = [world.tensors.get(result) for world in worlds]
        if any(fact is None for fact in (*sources, *targets, *results)):
            continue
        target = _target([f.shape for f in sources if f], [f.shape for f in results if f])
        if target is not None:
            name = f"{node.name}/literal_shape"
            node.inputs[1] = gs.Constant(name, np.array(target, dtype=np.int64))


def _fact(tensor: gs.Tensor, world: Knowledge) -> Known | None:
    if isinstance(tensor, gs.Constant):
        return Known(tuple(tensor.shape), 0)
    return world.tensors.get(tensor.name)


def _target(sources: list[tuple[int, ...]], results: list[tuple[int, ...]]) -> list[int] | None:
    """One target that gives every result, or None."""
    rank = len(results[0])
    if any(len(r) != rank for r in results) or any(0 in r for r in results):
        return None
    target: list[int] = []
    for i in range(rank):
        sizes = {r[i] for r in results}
        if len(sizes) == 1:
            target.append(results[0][i])
        elif all(i < len(s) and s[i] == r[i] for s, r in zip(sources, results, strict=True)):
            target.append(0)
        else:
            target.append(-1)
    return target if target.count(-1) <= 1 else None
