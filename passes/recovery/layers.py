"""Affine layers as least squares sees them: rows of inputs, targets, weights and where the bias lives.

    Windowed   Conv, ConvTranspose, any rank and group count
    Dense      Gemm, MatMul with a constant right side, and the Add of a constant after it
    Scaled     BatchNormalization whose input no convolution can adjust: a scale and a shift per channel

A layer is known by its output tensor, which the original and the slim model share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from passes.recovery.constants import Constants
from passes.recovery.windows import Window, window_of

Array: TypeAlias = NDArray[np.float64]
Keep: TypeAlias = Mapping[str, Mapping[int, NDArray[np.int64]]]
CHANNEL_OPERATORS = frozenset({"Conv", "ConvTranspose"})
INTEGER_OPERATORS = frozenset({
    "QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
})  # fmt: skip
FUSED_OPERATORS = frozenset({"FusedConv", "FusedGemm"})


@dataclass(frozen=True, slots=True)
class BiasHome:
    """Where a layer's bias is kept.

    Attributes:
        node: index of the node that holds it.
        position: index of its input, which may not exist yet.
        name: the initializer, empty where there is none yet.
        sign: −1 where it is subtracted (the mean of a BatchNormalization).
    """

    node: int
    position: int
    name: str
    sign: float = 1.0


@dataclass(frozen=True, slots=True)
class Layer(ABC):
    """One affine layer y = W'x + b of the slim model, in `groups` independent blocks.

    Attributes:
        name: name of its node.
        op: its operator.
        index: of its node in the slim graph.
        data: the tensor that it reads.
        output: the tensor y.
        weight: its weight initializer.
        bias: where its bias is kept; None for a layer that has none and cannot be given one.
        groups: number of independent blocks.
    """

    name: str
    op: str
    index: int
    data: str
    output: str
    weight: str
    bias: BiasHome | None
    groups: int

    @property
    def channel_axis(self) -> int:
        """Axis of the output that counts channels."""
        return 1

    @abstractmethod
    def rows(self, data: NDArray[Any], sizes: tuple[int, ...], picks: NDArray[np.int64]) -> NDArray[np.float32]:
        """Inputs float32[groups, n, unknowns] at `picks`, int64[batch, chosen] flat positions in `sizes`."""

    @abstractmethod
    def weights(self, constants: Constants) -> Array:
        """W, float64[groups, unknowns, outputs per group]."""

    @abstractmethod
    def store(self, constants: Constants, weights: Array) -> None:
        """Writes W back in the initializer's own layout and type."""

    def stored(self, constants: Constants, weights: Array, bias: Callable[[Array], Array]) -> tuple[Array, Array]:
        """W and `bias(W)` as they would be read back: on the grid where they are quantised, else as they are."""
        if not constants.quantised(self.weight):
            return weights, bias(weights)
        given = weights
        weights = constants.read_back(
            self.weight, lambda: self.store(constants, given), lambda: self.weights(constants)
        )
        found = bias(weights)
        if self.bias is None or not constants.quantised(self.bias.name):
            return weights, found
        write, read = (lambda: self.store_bias(constants, found)), (lambda: self.biases(constants))
        return weights, constants.read_back(self.bias.name, write, read)

    def flat(self, output: NDArray[Any]) -> NDArray[Any]:
        """The output as [batch, positions, channels]."""
        last = np.moveaxis(output, 1, -1)
        return last.reshape(len(output), -1, last.shape[-1])

    def sizes(self, output: NDArray[Any]) -> tuple[int, ...]:
        """Sizes of the output's position axes."""
        return output.shape[2:]

    def targets(self, output: NDArray[Any], picks: NDArray[np.int64]) -> NDArray[np.float32]:
        """Outputs float32[groups, n, outputs per group] at `picks`."""
        chosen = np.take_along_axis(self.flat(output), picks[:, :, np.newaxis], axis=1).astype(np.float32)
        split = chosen.reshape(picks.size, self.groups, -1)
        return np.ascontiguousarray(split.transpose(1, 0, 2))

    def kept_outputs(self, keep: Keep, constants: Constants) -> NDArray[np.int64] | None:
        """Which of the original's output channels this layer still has; None for all."""
        return keep.get(constants.source(self.weight), {}).get(0)

    def biases(self, constants: Constants) -> Array:
        """b, float64[groups, outputs per group]; zeros where there is none."""
        outputs = self.weights(constants).shape[2]
        if self.bias is None or not self.bias.name or self.bias.sign < 0:
            return np.zeros((self.groups, outputs))
        value = constants.get(self.bias.name).reshape(-1) * constants.factor(self.bias.node, "beta")
        return np.broadcast_to(value, self.groups * outputs).reshape(self.groups, outputs).copy()

    def store_bias(self, constants: Constants, bias: Array) -> None:
        """Writes b where it lives; a layer without a home keeps none."""
        home = self.bias
        if home is None:
            return
        flat = bias.reshape(-1)
        if home.sign < 0:
            constants.put(home.name, constants.get(home.name) - flat)
        elif home.name and constants.uses(home.name) == constants.uses(self.weight):
            shape = constants.shape(home.name)
            value = flat / constants.factor(home.node, "beta")
            constants.put(home.name, value.reshape(shape) if np.prod(shape) == flat.size else value)
        else:
            constants.attach(home.node, home.position, f"{self.weight}.bias", flat, like=self.weight)


@dataclass(frozen=True, slots=True)
class Windowed(Layer):
    """Conv or ConvTranspose."""

    window: Window

    def rows(self, data: NDArray[Any], sizes: tuple[int, ...], picks: NDArray[np.int64]) -> NDArray[np.float32]:
        seen = self.window.gather(data, sizes, picks)  # [n, taps, channels]
        count, taps, channels = seen.shape
        if self.groups == 1:
            return seen.reshape(1, count, taps * channels)
        split = seen.reshape(count, taps, self.groups, channels // self.groups).transpose(2, 0, 1, 3)
        return split.reshape(self.groups, count, -1)

    def weights(self, constants: Constants) -> Array:
        value = constants.get(self.weight)
        if self.window.transposed:  # [C, M/g, *k]
            split = value.reshape(self.groups, -1, value.shape[1], self.window.taps).transpose(0, 3, 1, 2)
        else:  # [M, C/g, *k]
            split = value.reshape(self.groups, -1, value.shape[1], self.window.taps).transpose(0, 3, 2, 1)
        return split.reshape(self.groups, -1, split.shape[3])

    def store(self, constants: Constants, weights: Array) -> None:
        shape = constants.shape(self.weight)
        split = weights.reshape(self.groups, self.window.taps, -1, weights.shape[2])
        order = (0, 2, 3, 1) if self.window.transposed else (0, 3, 2, 1)
        constants.put(self.weight, split.transpose(order).reshape(shape))

    def kept_outputs(self, keep: Keep, constants: Constants) -> NDArray[np.int64] | None:
        if not self.window.transposed:
            return keep.get(constants.source(self.weight), {}).get(0)
        kept = keep.get(constants.source(self.weight), {})
        width = constants.original_shape(self.weight)[1]
        within = kept.get(1, np.arange(width))
        if self.groups == 1:
            return kept.get(1)
        inputs = constants.original_shape(self.weight)[0]
        per_group = inputs // constants.original_groups(self.output)
        groups = np.unique(kept.get(0, np.arange(inputs)) // per_group)
        return (groups[:, np.newaxis] * width + within).reshape(-1)


@dataclass(frozen=True, slots=True)
class Dense(Layer):
    """Gemm, or MatMul with a constant right side.

    Attributes:
        transposed: the weight is [outputs, inputs].
        turned: the input is [inputs, rows] (a Gemm's `transA`).
    """

    transposed: bool
    turned: bool = False

    @property
    def channel_axis(self) -> int:
        return -1

    def flat(self, output: NDArray[Any]) -> NDArray[Any]:
        return output.reshape(len(output), -1, output.shape[-1])

    def sizes(self, output: NDArray[Any]) -> tuple[int, ...]:
        return output.shape[1:-1]

    def rows(self, data: NDArray[Any], sizes: tuple[int, ...], picks: NDArray[np.int64]) -> NDArray[np.float32]:
        chosen = np.take_along_axis(self.flat(data.T if self.turned else data), picks[:, :, np.newaxis], axis=1)
        return chosen.astype(np.float32).reshape(1, picks.size, -1)

    def weights(self, constants: Constants) -> Array:
        value = constants.get(self.weight) * constants.factor(self.index, "alpha")
        return (value.T if self.transposed else value)[np.newaxis]

    def store(self, constants: Constants, weights: Array) -> None:
        value = weights[0] / constants.factor(self.index, "alpha")
        constants.put(self.weight, value.T if self.transposed else value)

    def kept_outputs(self, keep: Keep, constants: Constants) -> NDArray[np.int64] | None:
        return keep.get(constants.source(self.weight), {}).get(0 if self.transposed else 1)


@dataclass(frozen=True, slots=True)
class Scaled(Layer):
    """BatchNormalization in inference: y = x · scale / √(variance + ε) + …, one unknown per channel."""

    def rows(self, data: NDArray[Any], sizes: tuple[int, ...], picks: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.targets(data, picks)

    def weights(self, constants: Constants) -> Array:
        return (constants.get(self.weight) / self._spread(constants)).reshape(-1, 1, 1)

    def store(self, constants: Constants, weights: Array) -> None:
        constants.put(self.weight, weights.reshape(-1) * self._spread(constants))

    def biases(self, constants: Constants) -> Array:
        bias, mean = (constants.get(constants.node(self.index).input[i]) for i in (2, 3))
        return (bias - mean * self.weights(constants).reshape(-1)).reshape(-1, 1)

    def store_bias(self, constants: Constants, bias: Array) -> None:
        names = constants.node(self.index).input
        mean = constants.get(names[3])
        constants.put(names[2], bias.reshape(-1) + mean * self.weights(constants).reshape(-1))

    def _spread(self, constants: Constants) -> Array:
        node = constants.node(self.index)
        epsilon = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
        return np.asarray(np.sqrt(constants.get(node.input[4]) + epsilon))


def make_layer(node: onnx.NodeProto, index: int, constants: Constants) -> Layer | str | None:
    """The affine layer that a slim graph's `node` is; a sentence where it cannot be refitted; None for others.

    Other nodes may read its weight, too (`passes/recovery/shared.py`).
    """
    if node.op_type in INTEGER_OPERATORS:
        return f"{node.op_type} computes in integers; a model with DequantizeLinear before its layers can be refitted"
    if node.op_type in FUSED_OPERATORS:
        return f"{node.op_type} shows nothing before its activation; a model with activations apart can be refitted"
    if node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"}:
        return None
    if len(node.input) < 2 or not constants.has(node.input[1]):
        return None if node.op_type == "MatMul" else "its weight is no constant of the model"
    weight = node.input[1]
    if not np.issubdtype(constants.dtype(weight), np.floating):
        return f"its weight {weight!r} is {constants.dtype(weight)}, not floating point"
    if len(node.input) > 2 and node.input[2] and not constants.has(node.input[2]):
        return "its bias is no constant of the model"
    if constants.quantised(weight) and len(node.input) > 2 and constants.uses(node.input[2]) != constants.uses(weight):
        return f"its bias {node.input[2]!r} is shared"
    common = (node.name or node.output[0], node.op_type, index, node.input[0])
    if node.op_type in CHANNEL_OPERATORS:
        groups = int(next((item.i for item in node.attribute if item.name == "group"), 1))
        window = window_of(node, constants.shape(weight)[2:])
        return Windowed(*common, node.output[0], weight, _own_bias(node, index, constants), groups, window)
    if node.op_type == "BatchNormalization":
        groups = constants.shape(weight)[0]
        if not all(constants.has(name) and constants.uses(name) == 1 for name in node.input[1:5]):
            return "its statistics are no constants of its own"
        return Scaled(*common, node.output[0], weight, BiasHome(index, 2, node.input[2]), groups)
    return _dense(node, index, constants, common)


def _dense(node: onnx.NodeProto, index: int, constants: Constants, common: tuple[str, str, int, str]) -> Layer | str:
    weight = node.input[1]
    flags = {item.name: item.i for item in node.attribute}
    if len(constants.shape(weight)) != 2:
        return f"its weight {weight!r} is a stack of {constants.shape(weight)}"
    if node.op_type == "Gemm":
        home = _own_bias(node, index, constants)
        return Dense(
            *common, node.output[0], weight, home, 1, bool(flags.get("transB", 0)), bool(flags.get("transA", 0))
        )
    added = constants.added_constant(node.output[0], constants.shape(weight)[1])
    if added is None:
        return Dense(*common, node.output[0], weight, None, 1, False)
    adder, position = added
    home = BiasHome(adder, position, constants.node(adder).input[position])
    return Dense(*common, constants.node(adder).output[0], weight, home, 1, False)


def _own_bias(node: onnx.NodeProto, index: int, constants: Constants) -> BiasHome | None:
    """The third input, the mean of a BatchNormalization that alone follows, or a bias still to be made."""
    if len(node.input) > 2 and node.input[2]:
        name = node.input[2]
        return BiasHome(index, 2, name)
    follower = constants.only_reader(node.output[0])
    if follower is not None:
        after = constants.node(follower)
        if after.op_type == "BatchNormalization" and after.input[0] == node.output[0]:
            mean = after.input[3]
            if constants.has(mean) and constants.uses(mean) == 1:
                return BiasHome(follower, 3, mean, sign=-1.0)
    if constants.quantised(node.input[1]):
        return None  # a floating-point bias would keep runtimes from computing in integers
    return BiasHome(index, 2, "")
