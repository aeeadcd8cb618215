"""How constants that load folds were computed, where that takes less room than they do: tables, masks, positions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from halpc.ir.origin import Recipe
from passes.loading.fold import KEEP
from passes.weights import array_of

LARGE = 65_536  # bytes of a constant that is worth a recipe
LITERAL = 64  # entries of a value that a recipe takes as it is
WORTH = 2  # times the room of its recipe that a constant must take

Common = Callable[[str], NDArray[np.generic] | None]


def recipes_of(graph: gs.Graph, common: Common) -> dict[str, Recipe]:
    """Tensor → recipe, for large constants that something reads which is none.

    Args:
        graph: topologically sorted, nothing folded yet.
        common: a tensor's value where that is the same at every size of the dynamic axes.
    """
    order = {node.name: i for i, node in enumerate(graph.nodes)}
    found: dict[str, Recipe] = {}
    for node in graph.nodes:
        for tensor in node.outputs:
            value = common(tensor.name)
            stays = any(common(result.name) is None for reader in tensor.outputs for result in reader.outputs)
            if value is None or not stays or value.nbytes < LARGE or value.dtype.isbuiltin != 1:
                continue
            recipe = _recipe(tensor, common, order)
            if recipe is not None and WORTH * recipe.size_bytes <= value.nbytes:
                found[tensor.name] = recipe
    return found


def _recipe(tensor: gs.Tensor, common: Common, order: dict[str, int]) -> Recipe | None:
    """The nodes behind a tensor down to constants and literals; None where one of them is no plain operator."""
    nodes: dict[str, gs.Node] = {}
    sources: dict[str, NDArray[np.generic]] = {}
    left = [tensor]
    while left:
        each = left.pop()
        value = common(each.name)
        if isinstance(each, gs.Constant):
            sources[each.name] = array_of(each)
        elif value is not None and value.size <= LITERAL and each is not tensor:
            sources[each.name] = value
        elif not each.inputs or each.inputs[0].op in KEEP or each.inputs[0].domain not in ("", None, "ai.onnx"):
            return None
        elif each.inputs[0].name not in nodes:
            nodes[each.inputs[0].name] = each.inputs[0]
            left += [t for t in each.inputs[0].inputs if not t.is_empty()]
    if any(values.dtype.isbuiltin != 1 for values in sources.values()):
        return None
    inorder = sorted(nodes.values(), key=lambda node: order[node.name])
    return Recipe(tuple(OnnxExporter.export_node(node) for node in inorder), sources)
