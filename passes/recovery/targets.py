"""What a refitted layer should produce: the original's output, or what repairs the residual sum after it.

The last layer of a residual branch can correct the errors that the shortcut brings along: its target is then
the original's *sum* minus the pruned network's shortcut (He, Zhang and Sun 2017, arXiv 1707.06168, multi-branch
networks).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from passes.proto import reads
from passes.recovery.constants import Constants
from passes.recovery.layers import Layer
from passes.recovery.segments import Tensors

SUMS = frozenset({"Add", "Sum"})


@dataclass(frozen=True, slots=True)
class Hop:
    """One node between a layer's output and its target.

    Attributes:
        other: the tensor that is added; empty for a BatchNormalization.
        node: index of the BatchNormalization in the slim graph.
    """

    other: str = ""
    node: int = -1


@dataclass(frozen=True, slots=True)
class Target:
    """Where a layer's output is judged.

    Attributes:
        site: the tensor of the original that it is compared with.
        hops: what lies between the layer's output and the site.
        clip: bounds of the activation that alone reads the site; None where there is none.
        clip_hops: what lies between the layer's output and that activation.
    """

    site: str
    hops: tuple[Hop, ...] = ()
    clip: tuple[float, float] | None = None
    clip_hops: tuple[Hop, ...] = ()

    @property
    def others(self) -> tuple[str, ...]:
        """Tensors of the slim model that the target needs."""
        return tuple(hop.other for hop in self.hops if hop.other)

    def value(
        self, site: NDArray[Any], kept: NDArray[np.int64] | None, axis: int, slim: Tensors, constants: Constants
    ) -> NDArray[Any]:
        """What the layer should produce so that the site becomes the original's."""
        return _back(site if kept is None else np.take(site, kept, axis=axis), self.hops, slim, constants)

    def bounds(self, like: NDArray[Any], slim: Tensors, constants: Constants) -> tuple[NDArray[Any], NDArray[Any]]:
        """Between which outputs of the layer the activation passes them on: arrays like its output."""
        assert self.clip is not None
        ends = [_back(np.full_like(like, end), self.clip_hops, slim, constants) for end in self.clip]
        return np.minimum(*ends), np.maximum(*ends)


def _back(value: NDArray[Any], hops: Sequence[Hop], slim: Tensors, constants: Constants) -> NDArray[Any]:
    """What must enter the hops for `value` to leave them."""
    for hop in reversed(hops):
        if hop.other:
            value = value - slim[hop.other]
        else:
            scale, shift = affine(constants, hop.node)
            value = (value - _along(shift, value.ndim)) / _along(scale, value.ndim)
    return value


def affine(constants: Constants, node: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A BatchNormalization as scale and shift; a vanishing scale is held away from zero."""
    _, gain, bias, mean, variance = constants.node(node).input[:5]
    epsilon = next((item.f for item in constants.node(node).attribute if item.name == "epsilon"), 1e-5)
    scale = constants.get(gain) / np.sqrt(constants.get(variance) + epsilon)
    shift = constants.get(bias) - constants.get(mean) * scale
    least = max(1e-3 * float(np.abs(scale).max(initial=0.0)), 1e-12)
    scale = np.where(np.abs(scale) < least, np.where(scale < 0, -least, least), scale)
    return scale.astype(np.float32), shift.astype(np.float32)


def _along(vector: NDArray[np.float32], rank: int) -> NDArray[np.float32]:
    return vector.reshape(1, -1, *(1,) * (rank - 2))


def own_target(layer: Layer) -> Target:
    """The original's output of the same layer."""
    return Target(layer.output)


def sum_target(layer: Layer, constants: Constants, shapes: Mapping[str, Sequence[Any]], early: set[str]) -> Target:
    """The farthest residual sum that `layer` alone feeds, else its own output.

    Args:
        shapes: sizes of the slim model's tensors where known.
        early: tensors that no later-refitted layer influences.
    """
    tensor, hops, best = layer.output, list[Hop](), own_target(layer)
    while (reader := constants.only_reader(tensor)) is not None:
        node = constants.node(reader)
        if node.op_type == "BatchNormalization" and node.input[0] == tensor and _own_statistics(node, constants):
            hops.append(Hop(node=reader))
        elif node.op_type in SUMS and (other := _other(node, tensor)) in early and _same(shapes, tensor, other):
            hops.append(Hop(other=other))
            best = Target(node.output[0], tuple(hops))
        else:
            break
        tensor = node.output[0]
    return best


def with_activation(target: Target, constants: Constants) -> Target:
    """The same target, with the bounds of the Relu or Clip that alone reads its site, if one does."""
    tensor, hops = target.site, list(target.hops)
    while (reader := constants.only_reader(tensor)) is not None:
        node = constants.node(reader)
        if node.op_type == "BatchNormalization" and node.input[0] == tensor and _own_statistics(node, constants):
            hops.append(Hop(node=reader))
            tensor = node.output[0]
            continue
        bounds = _clip_of(node, constants)
        return target if bounds is None else Target(target.site, target.hops, bounds, tuple(hops))
    return target


def _clip_of(node: onnx.NodeProto, constants: Constants) -> tuple[float, float] | None:
    """Bounds of a Relu or a Clip with constant bounds. Source: ONNX operator Clip."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    if node.op_type != "Clip":
        return None
    ends = [float("-inf"), float("inf")]
    for attribute in node.attribute:
        ends[["min", "max"].index(attribute.name)] = attribute.f
    for place, name in enumerate(node.input[1:3]):
        if name and not constants.has(name):
            return None
        ends[place] = float(constants.get(name).reshape(-1)[0]) if name else ends[place]
    return ends[0], ends[1]


def _own_statistics(node: onnx.NodeProto, constants: Constants) -> bool:
    return all(constants.has(name) for name in node.input[1:5])


def _other(node: onnx.NodeProto, tensor: str) -> str:
    others = [name for name in node.input if name != tensor]
    return others[0] if len(others) == 1 and len(node.input) == 2 else ""


def _same(shapes: Mapping[str, Sequence[Any]], one: str, two: str) -> bool:
    return one in shapes and two in shapes and list(shapes[one]) == list(shapes[two])


def tensor_shapes(model: onnx.ModelProto) -> dict[str, tuple[Any, ...]]:
    """Sizes per tensor where shape inference knows them: an integer, a symbol's name, or '' where unknown."""
    stripped = onnx.ModelProto()
    stripped.CopyFrom(model)
    del stripped.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(stripped)
    result = {}
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            result[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim
            )
    return result


def changed_tensors(original: onnx.ModelProto, slim: onnx.ModelProto, keep: Mapping[str, Any]) -> set[str]:
    """Tensors of the slim model that differ from the original's, by content or by width."""
    inputs = {name: list(node.input) for node in original.graph.node for name in node.output}
    constants = {item.name for item in slim.graph.initializer}
    sizes = {item.name: tuple(item.dims) for item in original.graph.initializer}
    changed = {name for name in keep if name in constants}
    changed |= {item.name for item in slim.graph.initializer if sizes.get(item.name) != tuple(item.dims)}
    for node in slim.graph.node:
        first = node.output[0]
        if reads(node) & changed or inputs.get(first) != list(node.input):
            changed |= set(node.output)
    return changed - constants
