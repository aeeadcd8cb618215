"""Sizes that depend on the data, as the number of boxes that a suppression leaves does.

One run shows one such number. What follows from it must not be taken for a constant, so the graph is interpreted with
other numbers too: whatever differs there, or is not known there, depends on the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_graphsurgeon as gs

from passes.loading.fold import Knowledge, Known, interpret

STANDARD = ("", None, "ai.onnx")


def recounted(graph: gs.Graph, shapes: Mapping[str, tuple[int, ...]], observed: Mapping[str, Known]) -> list[Knowledge]:
    """The same input shapes with other numbers of what is found in the data.

    Args:
        graph: topologically sorted.
        shapes: a static shape for every graph input.
        observed: what one run showed of the tensors whose shape cannot be inferred.
    """
    other_domains = {
        t.name: observed[t.name]
        for node in graph.nodes
        if node.domain not in STANDARD and node.op != "Unique"
        for t in node.outputs
        if t.name in observed
    }
    proven = interpret(graph, shapes, other_domains).tensors
    independent = {name: fact for name, fact in other_domains.items() if name in proven}
    return [
        interpret(graph, shapes, independent | _found(graph, observed, factor, least))
        for factor, least in ((0, 2), (3, 5))
    ]


def _found(graph: gs.Graph, observed: Mapping[str, Known], factor: int, least: int) -> dict[str, Known]:
    """Results of the nodes that find things, each with `factor` times as many and some more; alike for one operand."""
    sources: dict[str, int] = {}
    hints: dict[str, Known] = {}
    for node in graph.nodes:
        for tensor, axis in _counting(node):
            fact = observed.get(tensor.name)
            if fact is not None:
                more = least + sources.setdefault(node.inputs[0].name, len(sources))
                shape = list(fact.shape)
                shape[axis] = factor * shape[axis] + more
                hints[tensor.name] = replace(fact, shape=tuple(shape))
    return hints


def _counting(node: gs.Node) -> list[tuple[gs.Tensor, int]]:
    """A node's outputs of which one axis counts what was found, and that axis."""
    if node.op == "NonZero":
        return [(node.outputs[0], 1)]
    if node.op == "NonMaxSuppression":
        return [(node.outputs[0], 0)]
    if node.op == "Compress":
        return [(node.outputs[0], int(node.attrs.get("axis", 0)))]
    if node.op == "Unique":
        first, *rest = node.outputs
        return [(first, int(node.attrs.get("axis", 0))), *((t, 0) for t in (*rest[:1], *rest[2:]))]
    return []
