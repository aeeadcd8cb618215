"""unfold: constants that load folded and nothing changed are computed again, where that takes less room.

Requires: a model whose constants have the names that load gave them.
Ensures: each constant that is computed again has, bit by bit, the value that it had; all else is as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from halpc.ir.origin import Recipe
from passes.runtime import session_of

log = logging.getLogger(__name__)


def unfolded(model: onnx.ModelProto, recipes: Mapping[str, Recipe]) -> onnx.ModelProto:
    """The model with what computes such constants in their place; itself where there are none."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    taken = {name for node in model.graph.node for name in node.output} | {v.name for v in model.graph.input}
    chosen: dict[str, Recipe] = {}
    for name, recipe in recipes.items():
        made = {output for node in recipe.nodes for output in node.output}
        free = not made & taken and not (made - {name}) & held.keys()
        if name in held and free and _agrees(recipe, held) and _same(_cooked(model, name, recipe), held[name]):
            chosen[name] = recipe
    return _with(model, chosen) if chosen else model


def _agrees(recipe: Recipe, held: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether what the model has under the sources' names are the sources."""
    return all(name not in held or _same(values, held[name]) for name, values in recipe.sources.items())


def _same(values: NDArray[np.generic] | None, tensor: onnx.TensorProto) -> bool:
    found = numpy_helper.to_array(tensor)
    return (
        values is not None
        and (values.dtype, values.shape) == (found.dtype, found.shape)
        and np.ascontiguousarray(values).tobytes() == np.ascontiguousarray(found).tobytes()
    )


def _cooked(model: onnx.ModelProto, name: str, recipe: Recipe) -> NDArray[np.generic] | None:
    """What onnxruntime computes by the recipe; None where it cannot."""
    weights = [numpy_helper.from_array(np.asarray(v, order="C"), n) for n, v in recipe.sources.items()]
    graph = helper.make_graph(recipe.nodes, "recipe", [], [onnx.ValueInfoProto(name=name)], weights)
    proto = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    try:
        return np.asarray(session_of(proto, optimise=False).run([name], {})[0])
    except Exception as error:  # onnxruntime's errors are untyped; the constant then stays a constant
        log.debug("not computed again: %s: %s", name, error)
        return None


def _with(model: onnx.ModelProto, chosen: Mapping[str, Recipe]) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    kept = [tensor for tensor in result.graph.initializer if tensor.name not in chosen]
    known = {tensor.name for tensor in kept}
    nodes: dict[tuple[str, ...], onnx.NodeProto] = {}
    for recipe in chosen.values():
        nodes |= {tuple(node.output): node for node in recipe.nodes}
        for name, values in recipe.sources.items():
            if name not in known:
                kept.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
                known.add(name)
    rest = [*nodes.values(), *model.graph.node]
    del result.graph.initializer[:], result.graph.node[:]
    result.graph.initializer.extend(kept)
    result.graph.node.extend(rest)
    return result
