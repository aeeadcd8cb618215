"""Quantised operators: scales and zero points are axes like any other.

Two meanings of "zero" differ here. A removed slice of an initializer holds literal zeros; a sum loses
nothing only where what is removed stands for the *real* number zero, which a quantised tensor spells as its
zero point. `Real(x, zero_point)` therefore names the axes of x as seen through a zero point: x's own axes
where the zero point is 0, else axes of their own, equal to x's, that only an operator which writes with the
same zero point makes zero. A weight with a zero point other than 0 is never zero by itself; but a per-channel
scale is removed with its channel, and what is scaled by zero is zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from passes.rules.language import (
    Attribute,
    Axis,
    Contract,
    Count,
    Equal,
    Facts,
    Leaf,
    Op,
    Operand,
    Pin,
    Product,
    Zero,
    rule,
)
from passes.rules.matrix import product

SUMS = "a quantised product sums over it"
MICROSOFT = "com.microsoft"


@dataclass(frozen=True, slots=True)
class Real:
    """A quantised operand as numbers: its axes, where "zero" means its zero point."""

    x: Operand
    zero_point: Operand | None

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Axes of x as seen through the zero point."""
        point = self.zero_point
        if point is None or (point.value is not None and not point.value.any()):
            return self.x.axes
        single = point.value is not None and point.value.size == 1
        alike = str(point.value.reshape(-1)[0]) if single and point.value is not None else point.name
        name = f"{self.x.name} through zero point {alike}"
        return tuple(Axis(f"{name}:{a.index}", a.size, name, a.index) for a in self.x.axes)

    def axis(self, index: int) -> Axis:
        """One axis; negative indices count from the last."""
        return self.axes[index]

    def ties(self) -> Facts:
        """Its axes are x's axes."""
        for a, b in zip(self.axes, self.x.axes, strict=True):
            if a != b:
                yield Equal(a, b)


def _along(parameter: Operand | None, axis: Axis) -> Iterator[Axis]:
    """The axis of a per-channel scale or zero point; nothing for a single one."""
    if parameter is not None and parameter.rank and parameter.shape[-1] == axis.size != 1:
        yield parameter.axis(-1)


def _parameters(channels: Axis, result: Axis, scale: Operand | None, zero_point: Operand | None) -> Facts:
    """Per-channel parameters follow `channels`: scaled by zero is zero, and so is zero minus a zero point of zero."""
    for axis in _along(scale, channels):
        yield Equal(axis, channels)
        yield Zero(result, (axis,))
    for axis in _along(zero_point, channels):
        yield Equal(axis, channels)
        yield Zero(result, (channels, axis))


# ---- to and from quantised ------------------------------------------------------------------------


@rule("DequantizeLinear")
@rule("DequantizeLinear", domain=MICROSOFT)
def dequantize_linear(op: Op) -> Facts:
    """y = (x − zero point)·scale; scale and zero point are single, per channel or per block.

    Source: https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html
    """
    x, scale, point, y = op.x(0), op.x(1), op.maybe(2), op.y()
    real = Real(x, point)
    yield from real.ties()
    for a, b in zip(real.axes, y.axes, strict=True):
        yield Equal(a, b)
        yield Zero(b, (a,))
    at = _channel_axis(op, x)
    if _blocked(op, x, scale):
        yield from _blocks(op, x, y, at)
    elif at is not None:
        yield from _parameters(x.axis(at), y.axis(at), scale, point)


@rule("QuantizeLinear")
@rule("QuantizeLinear", domain=MICROSOFT)
def quantize_linear(op: Op) -> Facts:
    """y = round(x / scale) + zero point. What a removed scale of zero divides is any integer, or NaN.

    Source: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
    """
    x, scale, point, y = op.x(0), op.x(1), op.maybe(2), op.y()
    real, at = Real(y, point), _channel_axis(op, x)
    parameters = [p for p in (scale, point) if p is not None]
    yield from real.ties()
    divided = {at} if at is not None and any(True for _ in _along(scale, x.axis(at))) else set()
    for a, b in zip(x.axes, real.axes, strict=True):
        yield Equal(a, b)
        if a.index not in divided and not _blocked(op, x, scale):
            yield Zero(b, (a,))
    if _blocked(op, x, scale):
        for axis in (*x.axes, *(a for p in parameters for a in p.axes)):
            yield Pin(axis, "it is quantised in blocks at run time")
        return
    for i in divided:
        for parameter in parameters:
            for axis in _along(parameter, x.axis(i)):
                yield Equal(axis, x.axis(i))
        if "int" not in y.dtype:
            yield Pin(x.axis(i), "a removed scale of zero gives NaN in this type")


def _channel_axis(op: Op, x: Operand) -> int | None:
    axis = int(op.attr("axis", 1))
    return axis % x.rank if x.rank and -x.rank <= axis < x.rank else None


def _blocked(op: Op, x: Operand, scale: Operand) -> bool:
    return bool(op.attr("block_size", 0)) and scale.rank == x.rank


def _blocks(op: Op, x: Operand, y: Operand, at: int | None) -> Facts:
    """Along `axis` a scale serves `block_size` entries: whole blocks may go. The other axes are x's."""
    for parameter in (op.x(1), op.maybe(2)):
        for a, b in () if parameter is None else zip(parameter.axes, x.axes, strict=True):
            if a.index != at:
                yield Equal(a, b)
            elif a.size * int(op.attr("block_size")) == b.size:
                block = Leaf("block", int(op.attr("block_size")))
                yield Equal(Product((a, block)), b)
                yield Pin(block, "a block shares one scale")
            else:
                yield Pin(a, "its last block is not full")
                yield Pin(b, "its last block is not full")
    for a, b in zip(op.x(1).axes, y.axes, strict=True):
        yield Zero(b, (a,))


@rule("DynamicQuantizeLinear")
def dynamic_quantize_linear(op: Op) -> Facts:
    """The range of x always holds zero: it does not change when zeros go.

    Source: https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html
    """
    x, real = op.x(), Real(op.y(), op.y(2))
    yield from real.ties()
    for a, b in zip(x.axes, real.axes, strict=True):
        yield Equal(a, b)
        yield Zero(b, (a,))
        if a.size != 1:
            yield Contract((a,), "the range of the whole tensor is taken")


# ---- products -------------------------------------------------------------------------------------


def _matrix(a: Real, b: Real, y: Real, scale: Operand | None) -> Facts:
    """A matrix product between zero points; b's parameters may be per column, a's per row."""
    for real in (a, b, y):
        yield from real.ties()
    yield from product(a.axes, b.axes, y.axes)
    if b.x.rank > 1:
        yield from _parameters(b.x.axis(-1), y.axis(-1), scale, b.zero_point)
    if a.x.rank > 1 and a.zero_point is not None and a.zero_point.rank == 1:
        for axis in _along(a.zero_point, a.x.axis(-2)):
            yield Equal(axis, a.x.axis(-2))


@rule("QLinearMatMul")
def qlinear_matmul(op: Op) -> Facts:
    """MatMul of real numbers, quantised again.

    Source: https://onnx.ai/onnx/operators/onnx__QLinearMatMul.html
    """
    yield from _matrix(Real(op.x(0), op.x(2)), Real(op.x(3), op.x(5)), Real(op.y(), op.x(7)), op.x(4))


@rule("MatMulInteger")
def matmul_integer(op: Op) -> Facts:
    """MatMul of what is above the zero points, as integers.

    Source: https://onnx.ai/onnx/operators/onnx__MatMulInteger.html
    """
    yield from _matrix(Real(op.x(0), op.maybe(2)), Real(op.x(1), op.maybe(3)), Real(op.y(), None), None)


@rule("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(op: Op) -> Facts:
    """MatMulInteger, scaled, plus a bias of the columns.

    Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """
    a, b, y, bias = Real(op.x(0), op.maybe(4)), Real(op.x(1), op.maybe(5)), Real(op.y(), None), op.maybe(6)
    for fact in _matrix(a, b, y, op.x(3)):
        if bias is None or not isinstance(fact, Zero):
            yield fact
    if bias is not None:
        yield Equal(bias.axis(0), y.axis(-1))


@rule("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(op: Op) -> Facts:
    """DynamicQuantizeLinear of A, then MatMulIntegerToFloat: zeros may leave the range of A.

    Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """
    a, b, y, bias = op.x(0), Real(op.x(1), op.maybe(3)), op.y(), op.maybe(4)
    for fact in _matrix(Real(a, None), b, Real(y, None), op.x(2)):
        if bias is None or not isinstance(fact, Zero):
            yield fact
    for axis in a.axes:
        yield Contract((axis,), "the range of the whole tensor is taken")
    if bias is not None:
        yield Equal(bias.axis(0), y.axis(-1))


@rule("QGemm", domain=MICROSOFT)
def qgemm(op: Op) -> Facts:
    """Gemm of real numbers with an integer bias, quantised again where a scale for that is given.

    Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QGemm
    """
    a, b, y = Real(op.x(0), op.x(2)), Real(op.x(3), op.x(5)), Real(op.y(), op.maybe(8))
    for real in (a, b, y):
        yield from real.ties()
    rows, inner_a = (1, 0) if op.attr("transA", 0) else (0, 1)
    inner_b, columns = (1, 0) if op.attr("transB", 0) else (0, 1)
    bias = op.maybe(6)
    yield Contract((a.axis(inner_a), b.axis(inner_b)), SUMS)
    yield Equal(a.axis(rows), y.axis(0))
    yield Equal(b.axis(columns), y.axis(1))
    yield from _parameters(b.x.axis(columns), y.axis(1), op.x(4), b.zero_point)
    if bias is None:
        yield Zero(y.axis(0), (a.axis(rows),))
        yield Zero(y.axis(1), (b.axis(columns),))
    else:
        for axis in _along(bias, y.axis(1)):
            yield Equal(axis, y.axis(1))
            yield Zero(y.axis(1), (b.axis(columns), axis))


@rule("MatMulNBits", domain=MICROSOFT)
def matmul_n_bits(op: Op) -> Facts:
    """Weights [N, blocks, packed bytes] with scales per block: columns and whole blocks of rows may go.

    Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits
    """
    a, b, scales, points, y, bias = op.x(0), op.x(1), op.x(2), op.maybe(3), op.y(), op.maybe(5)
    columns, blocks, size = b.axis(0), b.axis(1), int(op.attr("block_size"))
    block = Leaf("block", size)
    weights = Axis(f"{b.name} unpacked", a.shape[-1], f"{b.name} unpacked", 0)
    yield Pin(b.axis(2), "several numbers share a byte")
    yield Pin(block, "a block shares one scale")
    yield Equal(columns, y.axis(-1))
    yield Equal(Product(scales.axes), Product((columns, blocks)))
    yield Zero(weights, (scales.axis(-1),))
    if a.shape[-1] == blocks.size * size and points is None and op.maybe(4) is None:
        yield Equal(weights, Product((blocks, block)))
        yield Contract((a.axis(-1), weights), SUMS)
        yield Count(Attribute("K"), (weights,))
    else:
        for axis in (a.axis(-1), blocks):
            yield Pin(axis, "its blocks have packed zero points or an order, or the last is not full")
    if points is not None:
        count = points.shape[0] * (points.shape[1] if points.rank > 1 else 1)
        bytes_ = Leaf("bytes of zero points", max(count // columns.size, 1))
        yield Equal(Product(points.axes), Product((columns, bytes_)))
        yield Pin(bytes_, "several numbers share a byte")
    if bias is not None:
        yield Equal(bias.axis(0), columns)
    elif scales.rank > 1 or blocks.size == 1:
        yield Zero(y.axis(-1), (scales.axis(0),))
    for p, q in zip(a.axes[:-1], y.axes[:-1], strict=True):
        yield Equal(p, q)
    yield Count(Attribute("N"), (columns,))


# ---- convolutions ---------------------------------------------------------------------------------


def _convolution(op: Op, x: Real, w: Real, y: Real, scale: Operand | None, bias: Operand | None) -> Facts:
    """As Conv, between zero points."""
    for real in (x, w, y):
        yield from real.ties()
    yield Equal(x.axis(0), y.axis(0))
    yield Equal(w.axis(0), y.axis(1))
    for axis in (*x.x.axes[2:], *y.x.axes[2:], *w.x.axes[2:]):
        yield Pin(axis, "a convolution slides along it")
    yield from _parameters(w.x.axis(0), y.axis(1), scale, w.zero_point)
    if bias is None:
        yield Zero(y.axis(1), (w.axis(0),))
    else:
        yield Equal(bias.axis(0), y.axis(1))
        yield Zero(y.axis(1), (w.axis(0), bias.axis(0)))
    groups = int(op.attr("group", 1))
    if groups == 1:
        yield Contract((x.axis(1), w.axis(1)), SUMS)
        return
    g = Leaf("groups", groups)
    yield Equal(x.axis(1), Product((g, w.axis(1))))
    yield Equal(w.axis(0), Product((g, Leaf("filters per group", w.x.shape[0] // groups))))
    yield Contract((w.axis(1),), SUMS)
    yield Count(Attribute("group"), (g,))


@rule("QLinearConv")
def qlinear_conv(op: Op) -> Facts:
    """Conv of real numbers, quantised again; its bias is in units of x's scale times w's.

    Source: https://onnx.ai/onnx/operators/onnx__QLinearConv.html
    """
    x, w, y = Real(op.x(0), op.x(2)), Real(op.x(3), op.x(5)), Real(op.y(), op.x(7))
    yield from _convolution(op, x, w, y, op.x(4), op.maybe(8))


@rule("ConvInteger")
def conv_integer(op: Op) -> Facts:
    """Conv of what is above the zero points, as integers.

    Source: https://onnx.ai/onnx/operators/onnx__ConvInteger.html
    """
    x, w, y = Real(op.x(0), op.maybe(2)), Real(op.x(1), op.maybe(3)), Real(op.y(), None)
    yield from _convolution(op, x, w, y, None, None)
