"""Which layers to refit, in which order, and towards what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from passes.proto import reads
from passes.recovery.constants import Constants
from passes.recovery.layers import Keep, Layer, Scaled, make_layer
from passes.recovery.shared import levels, obstacle, together
from passes.recovery.targets import Target, changed_tensors, own_target, sum_target, tensor_shapes, with_activation


@dataclass(frozen=True, slots=True)
class Task:
    """One layer to refit.

    Attributes:
        layer: of the slim model.
        target: where its output is judged.
        kept: the original's output channels that it still has; None for all.
        others: the other readers of its weight, each with its target.
    """

    layer: Layer
    target: Target
    kept: NDArray[np.int64] | None
    others: tuple[tuple[Layer, Target], ...] = ()

    @property
    def uses(self) -> tuple[tuple[Layer, Target], ...]:
        """Every reader of the weight."""
        return (self.layer, self.target), *self.others


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
    layers, groups, skipped = _changed_layers(original, model, keep, constants, known)
    level = levels(model, {layer.index: layer for layer in layers}, list(groups.values()))
    if level is None:
        reason = "its weight is shared, and so is one above some of its readers and below others"
        skipped += [Skip(layer.name, layer.op, reason) for group in groups.values() for layer in group]
        layers, groups = [layer for layer in layers if layer.weight not in groups], {}
        level = levels(model, {layer.index: layer for layer in layers}, [])
        assert level is not None
    ordered, early = _order(model, layers, level)
    shapes = tensor_shapes(model) if residual else {}
    tasks = []
    for number, layer in enumerate(ordered):
        if layer.weight in groups:
            if layer is groups[layer.weight][0]:
                others = tuple((one, own_target(one)) for one in groups[layer.weight][1:])
                tasks.append(Task(layer, own_target(layer), layer.kept_outputs(keep, constants), others))
            continue
        safe = {name for name, rank in early.items() if rank < number}
        target = sum_target(layer, constants, shapes, safe) if residual else own_target(layer)
        target = target if target.site in known else own_target(layer)
        target = with_activation(target, constants) if activation else target
        tasks.append(Task(layer, target, layer.kept_outputs(keep, constants)))
    return tasks, skipped


def _changed_layers(
    original: onnx.ModelProto, model: onnx.ModelProto, keep: Keep, constants: Constants, known: set[str]
) -> tuple[list[Layer], dict[str, list[Layer]], list[Skip]]:
    """Layers to refit; those that share a weight, by weight; and those that cannot be refitted."""
    changed = changed_tensors(original, model, keep)
    layers, skipped, made, every = list[Layer](), list[Skip](), set[str](), list[Layer]()
    for index, node in enumerate(model.graph.node):
        layer = make_layer(node, index, constants)
        if isinstance(layer, Layer):
            normalises = isinstance(layer, Scaled) and layer.data in made  # the layer before is refitted or exact
            made.add(layer.output)
            every.append(layer)
            if layer.data in changed and layer.output in known and not normalises:
                layers.append(layer)
        elif layer is not None and node.input[0] in changed:
            skipped.append(Skip(node.name or node.output[0], node.op_type, layer))
    layers, more = _with_their_positions(original, model, layers)
    skipped += more
    groups = {}
    for weight, readers in together(every, constants).items():
        if not any(layer.weight == weight for layer in layers):
            continue
        why = obstacle(model, readers, constants)
        missing = [layer.name for layer in readers if layer.output not in known]
        why = f"its weight {weight!r} is shared with {missing[0]}, which the original lacks" if missing else why
        if why is None:
            groups[weight] = readers
        else:
            skipped += [Skip(layer.name, layer.op, why) for layer in layers if layer.weight == weight]
        others = [layer for layer in layers if layer.weight != weight]
        layers = sorted([*others, *groups.get(weight, ())], key=lambda layer: layer.index)
    return layers, groups, skipped


def _with_their_positions(
    original: onnx.ModelProto, model: onnx.ModelProto, layers: Sequence[Layer]
) -> tuple[list[Layer], list[Skip]]:
    """Layers that give as many positions as in the original, and the others, whose rows are channels too."""
    theirs, ours = (
        {name: shape for name, shape in tensor_shapes(each).items() if all(isinstance(n, int) or n for n in shape)}
        for each in (original, model)
    )
    cut = [
        layer
        for layer in layers
        if layer.output in theirs and layer.output in ours
        if _positions(theirs[layer.output], layer) != _positions(ours[layer.output], layer)
    ]
    reason = "of its rows, too, some are gone, so that they are not the original's"
    return [layer for layer in layers if layer not in cut], [Skip(layer.name, layer.op, reason) for layer in cut]


def _positions(shape: Sequence[int | str], layer: Layer) -> list[int | str]:
    """Sizes but for the channels."""
    return [n for i, n in enumerate(shape) if i != layer.channel_axis % len(shape)]


def _order(
    model: onnx.ModelProto, layers: Sequence[Layer], level: Mapping[int, int]
) -> tuple[list[Layer], dict[str, int]]:
    """Layers by how many layers lie above them, so that of two branches the longer one is finished last.

    Also, per tensor, the place in this order of the last layer that influences it (−1 where none does).
    """
    ordered = sorted(layers, key=lambda layer: (level[layer.index], layer.index))
    place = {layer.index: number for number, layer in enumerate(ordered)}
    last: dict[str, int] = dict.fromkeys((value.name for value in model.graph.input), -1)
    for index, node in enumerate(model.graph.node):
        rank = max((last.get(name, -1) for name in reads(node)), default=-1)
        last.update(dict.fromkeys(node.output, max(rank, place.get(index, -1))))
    return ordered, last
