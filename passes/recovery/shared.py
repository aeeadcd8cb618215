"""Weights that several layers read: one regression over all of their inputs, where that is one regression.

Detection heads apply the same convolutions to every level of a pyramid. All readers of the weight are fitted together,
pruned inputs or not, once the inputs of all of them are final.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx

from passes.proto import reads
from passes.recovery.constants import Constants
from passes.recovery.layers import Layer


def together(layers: Sequence[Layer], constants: Constants) -> dict[str, list[Layer]]:
    """Weight → its readers, of every weight that more than one node reads."""
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        if constants.uses(layer.weight) > 1:
            found.setdefault(layer.weight, []).append(layer)
    return found


def obstacle(model: onnx.ModelProto, layers: Sequence[Layer], constants: Constants) -> str | None:
    """Why the readers of one weight cannot be fitted as one; None where they can."""
    first, weight, count = layers[0], layers[0].weight, constants.uses(layers[0].weight)
    shared = f"its weight {weight!r} is shared by {count} nodes"
    if len(layers) < count:
        return f"{shared}, of which {count - len(layers)} cannot be refitted"
    if any(type(layer) is not type(first) or layer.groups != first.groups for layer in layers):
        return f"{shared} of different kinds"
    homes = {None if layer.bias is None else (layer.bias.name, layer.bias.sign) for layer in layers}
    subtracted = all(layer.bias is not None and layer.bias.sign < 0 for layer in layers)
    if len(homes) > 1 and not subtracted:
        return f"{shared} with biases of their own"
    below = _below(model, {layer.output for layer in layers})
    if any(layer.data in below for layer in layers):
        return f"{shared}, one behind another"
    return None


def _below(model: onnx.ModelProto, tensors: set[str]) -> set[str]:
    """These tensors and all that depend on them."""
    found = set(tensors)
    for node in model.graph.node:
        if reads(node) & found:
            found |= set(node.output)
    return found


def levels(
    model: onnx.ModelProto, layers: Mapping[int, Layer], groups: Sequence[Sequence[Layer]]
) -> dict[int, int] | None:
    """Per layer (by node) how many layers lie above it; readers of one weight stand on one level, below all of theirs.

    None where two weights' readers lie above each other.
    """
    floors = dict.fromkeys(layers, 0)
    for _ in range(len(layers) + 2):
        found = dict(_depths(model, floors))
        raised = {
            **found,
            **{layer.index: max(found[one.index] for one in group) for group in groups for layer in group},
        }
        if raised == floors:
            return raised
        floors = raised
    return None


def _depths(model: onnx.ModelProto, floors: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    above: dict[str, int] = {}
    for index, node in enumerate(model.graph.node):
        depth = max((above.get(name, 0) for name in reads(node)), default=0)
        if index in floors:
            depth = max(depth, floors[index])
            yield index, depth
            depth += 1
        above.update(dict.fromkeys(node.output, depth))
