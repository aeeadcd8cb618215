"""Convolutions: weights tie input and output channels to their own axes; spatial axes are not for pruning."""

from __future__ import annotations

from passes.rules.elementwise import behind
from passes.rules.language import (
    Attribute,
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

SPATIAL = "a convolution slides along it"
SUMS = "a convolution sums over its input channels"


def _frame(x: Operand, w: Operand, y: Operand) -> Facts:
    """The batch passes through; spatial and kernel extents stay."""
    yield Equal(x.axis(0), y.axis(0))
    for axis in (*x.axes[2:], *y.axes[2:], *w.axes[2:]):
        yield Pin(axis, SPATIAL)


def _bias(bias: Operand | None, y: Operand, filters: Operand, axis: int) -> Facts:
    """Bias follows the output channels; an output whose filter and bias are zero is zero."""
    if bias is None:
        yield Zero(y.axis(1), (filters.axis(axis),))
    else:
        yield Equal(bias.axis(0), y.axis(1))
        yield Zero(y.axis(1), (filters.axis(axis), bias.axis(0)))


@rule("Conv")
def conv(op: Op) -> Facts:
    """x.C = G·K, w = (G·M, K, …), y.C = bias = G·M; `group` counts G.

    Source: https://onnx.ai/onnx/operators/onnx__Conv.html
    """
    yield from _convolved(op, op.maybe(2))


@rule("FusedConv", domain="com.microsoft")
def fused_conv(op: Op) -> Facts:
    """activation(Conv + Z): a residual Z has the axes of y.

    Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """
    z, y = op.maybe(3), op.y()
    if z is not None and z.shape != y.shape:
        return
    yield from behind(op, _convolved(op, op.maybe(2)), z)
    for a, b in () if z is None else zip(z.axes, y.axes, strict=True):
        yield Equal(a, b)


def _convolved(op: Op, bias: Operand | None) -> Facts:
    x, w, y = op.x(0), op.x(1), op.y()
    groups = int(op.attr("group", 1))
    yield from _frame(x, w, y)
    yield Equal(w.axis(0), y.axis(1))
    yield from _bias(bias, y, w, 0)
    if groups == 1:
        yield Contract((x.axis(1), w.axis(1)), SUMS)
        return
    g = Leaf("groups", groups)
    yield Equal(x.axis(1), Product((g, w.axis(1))))
    yield Equal(w.axis(0), Product((g, Leaf("filters per group", w.shape[0] // groups))))
    yield Contract((w.axis(1),), SUMS)
    yield Count(Attribute("group"), (g,))


@rule("DeformConv")
def deform_conv(op: Op) -> Facts:
    """A convolution whose kernel is displaced: offsets (and their mask) stay, in groups that x.C is a fold of.

    Source: https://onnx.ai/onnx/operators/onnx__DeformConv.html
    """
    yield from _convolved(op, op.maybe(3))
    x, offset, mask = op.x(0), op.x(2), op.maybe(4)
    moved = int(op.attr("offset_group", 1))
    if moved > 1:
        g = Leaf("offset groups", moved)
        yield Equal(x.axis(1), Product((g, Leaf("inputs per offset", x.shape[1] // moved))))
        yield Pin(g, "each group of channels has its own offsets")
    for operand in (offset, mask):
        if operand is not None:
            yield Equal(x.axis(0), operand.axis(0))
            for axis in operand.axes[1:]:
                yield Pin(axis, "it displaces the kernel")


@rule("ConvTranspose")
def conv_transpose(op: Op) -> Facts:
    """x.C = w.0 = G·K, w = (G·K, M, …), y.C = bias = G·M; `group` counts G.

    Source: https://onnx.ai/onnx/operators/onnx__ConvTranspose.html
    """
    x, w, y = op.x(0), op.x(1), op.y()
    groups = int(op.attr("group", 1))
    yield from _frame(x, w, y)
    yield from _bias(op.maybe(2), y, w, 1)
    if groups == 1:
        yield Contract((x.axis(1), w.axis(0)), SUMS)
        yield Equal(w.axis(1), y.axis(1))
        return
    g, k = Leaf("groups", groups), Leaf("inputs per group", w.shape[0] // groups)
    yield Equal(x.axis(1), w.axis(0))
    yield Equal(w.axis(0), Product((g, k)))
    yield Equal(y.axis(1), Product((g, w.axis(1))))
    yield Contract((w.axis(0),), SUMS)
    yield Count(Attribute("group"), (g,))
