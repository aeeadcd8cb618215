"""Operators that compute in integers as what they stand for: DequantizeLinear, the plain operator, QuantizeLinear.

    QLinearConv, QLinearMatMul, QGemm, QLinearAdd, QLinearMul        with scales that are constants
    MatMulInteger and its like                                       scaled afterwards (`passes/recovery/scaled.py`)

So recovery and scores see layers with weights on a grid (`passes/recovery/grids.py`). Initializers keep their names,
and what is stored in them; their values go back by name.

Source: ONNX operators QLinearConv and QLinearMatMul;
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md for the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from passes.proto import opset_of
from passes.recovery.scaled import Quantised, Scaled, scaled_products

LEAST_OPSET = 13  # from which on DequantizeLinear takes a scale per channel
Value = TypeVar("Value")


def opened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that computes in real numbers what `model` computes in integers; `model` itself where it does not."""
    opset = opset_of(model, 0)
    if opset < LEAST_OPSET:
        return model
    writer = _Writer({item.name: item for item in model.graph.initializer})
    writer.products = {name: found for name, found in scaled_products(model).items() if writer.has(found.right)}
    nodes = [list(writer.opened(node)) for node in model.graph.node]
    if all(len(each) == 1 for each in nodes):
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(node for each in nodes for node in each)
    result.graph.initializer.extend(writer.made)
    return result


def closed(real: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with the values of its opened copy `real`, and with the biases that were added there."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    values = {item.name: item for item in real.graph.initializer}
    for item in result.graph.initializer:
        item.CopyFrom(values.pop(item.name))
    plain = {(node.op_type, node.output[0]): node for node in real.graph.node}
    for node in result.graph.node:
        changed = plain.get((node.op_type, node.output[0]), node).input
        result.graph.initializer.extend(values.pop(name) for name in changed[len(node.input) :] if name in values)
        node.input.extend(changed[len(node.input) :])
    return result


def with_opened(known: Mapping[tuple[str, int], Value], real: onnx.ModelProto) -> dict[tuple[str, int], Value]:
    """What is known per tensor and axis, also of the real numbers behind tensors of integers in an opened model."""
    by_tensor: dict[str, dict[int, Value]] = {}
    for (tensor, axis), value in known.items():
        by_tensor.setdefault(tensor, {})[axis] = value
    for node in real.graph.node:
        if node.op_type in ("DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear"):
            ends = (node.output[0], node.input[0])
            source, name = ends if node.op_type == "QuantizeLinear" else ends[::-1]
            by_tensor[name] = by_tensor.get(source, {}) | by_tensor.get(name, {})
    return {(tensor, axis): value for tensor, axes in by_tensor.items() for axis, value in axes.items()}


@dataclass(slots=True)
class _Writer:
    """Attributes:
    constants: initializers of the model.
    made: those that it lacks.
    products: that several nodes, or one with scales found at run time, compute in integers.
    decoded: tensors found at run time → the real numbers that they stand for.
    """

    constants: Mapping[str, onnx.TensorProto]
    made: list[onnx.TensorProto] = field(default_factory=list)
    products: Mapping[str, Scaled] = field(default_factory=dict)
    decoded: dict[str, str] = field(default_factory=dict)

    def opened(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """The nodes that `node` stands for; itself where it is none of these, or a scale is no constant."""
        result = node.output[0] if node.output else ""
        if result in self.products:
            yield from self._multiplied(self.products[result])
        elif not any(result in product.inside for product in self.products.values()):
            yield from self._by_itself(node)

    def _multiplied(self, product: Scaled) -> Iterator[onnx.NodeProto]:
        left, right = product.left, product.right
        if product.unquantised:
            made = [left.tensor, left.scale, left.point]
            yield helper.make_node("DynamicQuantizeLinear", [product.unquantised], made)
        if left.tensor not in self.decoded:
            self.decoded[left.tensor] = f"{product.result}.halpc_real0"
            yield _dequantized((left.tensor, left.scale, left.point), self.decoded[left.tensor], None)
        weight, out = (
            f"{product.result}.halpc_real1",
            f"{product.result}.halpc_real" if product.bias else product.result,
        )
        per_channel = self._value(right.scale).size > 1
        yield _dequantized((right.tensor, right.scale, right.point), weight, -1 if per_channel else None)
        yield helper.make_node("MatMul", [self.decoded[left.tensor], weight], [out], product.node.name)
        if product.bias:
            yield helper.make_node("Add", [out, product.bias], [product.result], f"{product.node.name}.halpc_bias")

    def has(self, weight: Quantised) -> bool:
        """Whether it is a constant that DequantizeLinear can decode."""
        if not {weight.tensor, weight.scale, weight.point} - {""} <= set(self.constants):
            return False
        scale = self._value(weight.scale)
        point = self._value(weight.point) if weight.point else scale
        return scale.dtype == np.float32 and scale.ndim < 2 and point.shape == scale.shape

    def _by_itself(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        where = _OPERANDS.get(node.op_type)
        if where is None or not self._is_plain(node, where):
            yield node
            return
        operands = [(_at(node, i), _at(node, i + 1), _at(node, i + 2)) for i in where.operands]
        names = [f"{node.output[0]}.halpc_real{i}" for i in range(len(operands))]
        flags = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        outputs_first = node.op_type == "QLinearConv" or bool(flags.get("transB", 0))
        per_channel = self._value(operands[1][1]).size > 1
        yield _dequantized(operands[0], names[0], None)
        yield _dequantized(operands[1], names[1], (0 if outputs_first else -1) if per_channel else None)
        bias = _at(node, where.bias) if where.bias else ""
        if bias:
            step = np.float32(flags.get("alpha", 1.0)) * self._value(operands[0][1]) * self._value(operands[1][1])
            scale = numpy_helper.from_array(step.astype(np.float32), f"{node.output[0]}.halpc_step")
            self.made.append(scale)
            names.append(f"{node.output[0]}.halpc_bias")
            yield _dequantized((bias, scale.name, ""), names[-1], 0)
        step_name = _at(node, where.result)
        result = f"{node.output[0]}.halpc_real" if step_name else node.output[0]
        plain = helper.make_node(where.plain, names, [result], node.name)
        plain.attribute.extend(node.attribute)
        yield plain
        if step_name:
            inputs = [result, step_name, *filter(None, [_at(node, where.result + 1)])]
            yield helper.make_node("QuantizeLinear", inputs, [node.output[0]])

    def _is_plain(self, node: onnx.NodeProto, where: _Operands) -> bool:
        """Whether scales are float32 constants, one each but for a weight's, and zero points of their shape."""
        names = [_at(node, i) for i in where.parameters]
        if not all(name in self.constants for name in names if name):
            return False
        values = [self._value(name) if name else None for name in names]
        weighted = where.plain not in ("Add", "Mul")
        for number, (scale, point) in enumerate(zip(values[::2], values[1::2], strict=True)):
            if scale is None:
                continue
            known = scale.dtype == np.float32 and (scale.size == 1 or (weighted and number == 1))
            if not known or (point is None and number == 2) or (point is not None and point.shape != scale.shape):
                return False
        return values[0] is not None and values[2] is not None

    def _value(self, name: str) -> NDArray[Any]:
        return np.asarray(numpy_helper.to_array(self.constants[name]))


@dataclass(frozen=True, slots=True)
class _Operands:
    """Where an operator's inputs are: an operand is followed by its scale and zero point.

    Attributes:
        plain: the operator on real numbers.
        operands: both of them.
        result: the result's scale, followed by its zero point.
        bias: 0 for none.
    """

    plain: str
    operands: tuple[int, int]
    result: int
    bias: int = 0

    @property
    def parameters(self) -> tuple[int, ...]:
        """Scales and zero points."""
        return (*(i + k for i in self.operands for k in (1, 2)), self.result, self.result + 1)


_OPERANDS = {
    "QLinearConv": _Operands("Conv", (0, 3), 6, bias=8),
    "QLinearMatMul": _Operands("MatMul", (0, 3), 6),
    "QGemm": _Operands("Gemm", (0, 3), 7, bias=6),
    "QLinearAdd": _Operands("Add", (0, 3), 6),
    "QLinearMul": _Operands("Mul", (0, 3), 6),
}


def _at(node: onnx.NodeProto, index: int) -> str:
    return node.input[index] if index < len(node.input) else ""


def _dequantized(operand: tuple[str, str, str], name: str, axis: int | None) -> onnx.NodeProto:
    inputs = list(operand) if operand[2] else list(operand[:2])
    return helper.make_node("DequantizeLinear", inputs, [name], **({} if axis is None else {"axis": axis}))
