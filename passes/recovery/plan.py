"""Which layers to refit, in which order, and towards what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from passes.recovery.constants import Constants
from passes.recovery.layers import Keep, Layer, Scaled, make_layer
from passes.recovery.segments import reads
from passes.recovery.targets import Target, changed_tensors, own_target, sum_target, tensor_shapes, with_activation


@dataclass(frozen=True, slots=True)
class Task:
    """One layer to refit.

    Attributes:
        layer: of the slim model.
        target: where its output is judged.
        kept: the original's output channels that it still has; None for all.
    """

    layer: Layer
    target: Target
    kept: NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class Skip:
    """A layer with changed inputs that cannot be refitted, and why."""

    name: str
    op: str
    reason: str


def plan_recovery(
    original: onnx.ModelProto,
    model: onnx.ModelProto,
    keep: Keep,
    constants: Constants,
    *,
    residual: bool,
    activation: bool = False,
) -> tuple[list[Task], list[Skip]]:
    """Layers to refit in an order that respects dependencies, and those that cannot be.

    Args:
        residual: let the last layer of a residual branch aim at the sum.
        activation: note the bounds of the activation that follows.
    """
    known = {name for node in original.graph.node for name in node.output}
    layers, skipped = _changed_layers(original, model, keep, constants, known)
    ordered, early = _order(model, layers)
    shapes = tensor_shapes(model) if residual else {}
    tasks = []
    for number, layer in enumerate(ordered):
        safe = {name for name, rank in early.items() if rank < number}
        target = sum_target(layer, constants, shapes, safe) if residual else own_target(layer)
        target = target if target.site in known else own_target(layer)
        target = with_activation(target, constants) if activation else target
        tasks.append(Task(layer, target, layer.kept_outputs(keep, constants)))
    return tasks, skipped


def _changed_layers(
    original: onnx.ModelProto, model: onnx.ModelProto, keep: Keep, constants: Constants, known: set[str]
) -> tuple[list[Layer], list[Skip]]:
    changed = changed_tensors(original, model, keep)
    layers, skipped, made = list[Layer](), list[Skip](), set[str]()
    for index, node in enumerate(model.graph.node):
        layer = make_layer(node, index, constants)
        if isinstance(layer, Layer):
            normalises = isinstance(layer, Scaled) and layer.data in made  # the layer before is refitted or exact
            made.add(layer.output)
            if layer.data in changed and layer.output in known and not normalises:
                layers.append(layer)
        elif layer is not None and node.input[0] in changed:
            skipped.append(Skip(node.name or node.output[0], node.op_type, layer))
    return layers, skipped


def _order(model: onnx.ModelProto, layers: Sequence[Layer]) -> tuple[list[Layer], dict[str, int]]:
    """Layers by how many layers lie above them, so that of two branches the longer one is finished last.

    Also, per tensor, the place in this order of the last layer that influences it (−1 where none does).
    """
    by_node = {layer.index: layer for layer in layers}
    above: dict[str, int] = {}
    level: dict[int, int] = {}
    for index, node in enumerate(model.graph.node):
        depth = max((above.get(name, 0) for name in reads(node)), default=0)
        if index in by_node:
            level[index] = depth
            depth += 1
        above.update(dict.fromkeys(node.output, depth))
    ordered = sorted(layers, key=lambda layer: (level[layer.index], layer.index))
    place = {layer.index: number for number, layer in enumerate(ordered)}
    last: dict[str, int] = dict.fromkeys((value.name for value in model.graph.input), -1)
    for index, node in enumerate(model.graph.node):
        rank = max((last.get(name, -1) for name in reads(node)), default=-1)
        last.update(dict.fromkeys(node.output, max(rank, place.get(index, -1))))
    return ordered, last
