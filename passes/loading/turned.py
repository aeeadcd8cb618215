"""Transposes of weights that are read otherwise too, as tied embeddings are: they stay nodes.

Folded, each would be a second weight: the file would grow, and what is cut of one would not be cut of the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx_graphsurgeon as gs

from passes.weights import dtype_name

LEAST = 64  # entries of a weight that is worth a node


def turned(graph: gs.Graph, folds: Callable[[str], bool]) -> set[str]:
    """Results of such nodes.

    Args:
        graph: topologically sorted, nothing folded yet.
        folds: whether a tensor has a value that is the same at every size of the dynamic axes.
    """
    return {node.outputs[0].name for node in graph.nodes if _turns(node) and len(_readers(node.inputs[0], folds)) > 1}


def _turns(node: gs.Node) -> bool:
    weight = node.inputs[0] if node.op == "Transpose" and not node.domain else None
    return isinstance(weight, gs.Constant) and "float" in dtype_name(weight.dtype) and math.prod(weight.shape) >= LEAST


def _readers(weight: gs.Constant, folds: Callable[[str], bool]) -> list[gs.Node]:
    """Nodes that read a weight as it is or turned; what else is computed of it in advance is another one."""
    return [node for node in weight.outputs if node.op == "Transpose" or not all(folds(t.name) for t in node.outputs)]
