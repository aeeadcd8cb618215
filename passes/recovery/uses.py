"""Which layers read a group of channels, and where each channel lies on their inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from halpc.ir.dims import Dim, Leaf, Product, Sum, leaves
from passes.recovery.constants import Constants
from passes.recovery.layers import Dense, Layer, Scaled, make_layer


@dataclass(frozen=True, slots=True)
class Use:
    """A layer that reads a group.

    Attributes:
        layer: the layer.
        positions: int64[size, r], where each channel of the group lies on the channel axis of the layer's input.
    """

    layer: Layer
    positions: NDArray[np.int64]


def positions_of(dim: Dim, leaf: str, size: int) -> NDArray[np.int64] | None:
    """int64[size, r]: the entries of an axis that go with each channel of `leaf`; None where that is not uniform."""
    labels = _labels(dim, leaf)
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels[labels >= 0], minlength=size)
    if not counts.size or counts.min() != counts.max() or counts[0] == 0:
        return None
    return np.asarray(order[labels[order] >= 0].reshape(size, counts[0]), dtype=np.int64)


def _labels(dim: Dim, leaf: str) -> NDArray[np.int64]:
    """int64[dim.size]: which channel of `leaf` an entry goes with, −1 for none."""
    match dim:
        case Leaf(name, size):
            return np.arange(size) if name == leaf else np.full(size, -1)
        case Sum(parts):
            return np.concatenate([_labels(part, leaf) for part in parts])
        case Product(factors):
            result = np.full(1, -1)
            for factor in factors:
                result = np.maximum.outer(result, _labels(factor, leaf)).reshape(-1)
            return result


def uses_of(
    model: onnx.ModelProto, axes: Mapping[tuple[str, int], Dim], groups: Mapping[str, int]
) -> dict[str, list[Use]]:
    """Which layers read each group, from the solved dimension equations.

    A layer whose output channels are the same group (depthwise, BatchNormalization) hands it on and reads nothing.

    Args:
        axes: (tensor, axis) → dim (`Coupling.axes`).
        groups: name → size, of the groups wanted.
    """
    constants = Constants(model)
    found: dict[str, list[Use]] = {name: [] for name in groups}
    for index, node in enumerate(model.graph.node):
        layer = make_layer(node, index, constants)
        if layer is None or isinstance(layer, str | Scaled):
            continue
        dim = _channel_dim(axes, layer.data, layer)
        if dim is None:
            continue
        produced = {leaf.name for leaf in leaves(made)} if (made := _channel_dim(axes, layer.output, layer)) else set()
        for name in dict.fromkeys(leaf.name for leaf in leaves(dim)):
            positions = positions_of(dim, name, groups[name]) if name in groups and name not in produced else None
            if positions is not None:
                found[name].append(Use(layer, positions))
    return found


def _channel_dim(axes: Mapping[tuple[str, int], Dim], tensor: str, layer: Layer) -> Dim | None:
    if not isinstance(layer, Dense):
        return axes.get((tensor, 1))
    if layer.turned and tensor == layer.data:
        return axes.get((tensor, 0))
    rank = max((axis for name, axis in axes if name == tensor), default=-1)
    return axes.get((tensor, rank))
