"""onnxruntime's quantised element-wise, pooling and joining operators: the plain ones between zero points.

Source of them all: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from passes.rules.language import Equal, Facts, Op, Pin, Sum, Zero, rule
from passes.rules.quantised import MICROSOFT, Real


def _unary(op: Op) -> tuple[Real, Real]:
    """X, its scale and zero point; Y's scale and zero point."""
    return Real(op.x(0), op.maybe(2)), Real(op.y(), op.maybe(4))


@rule("QLinearLeakyRelu", "QLinearSigmoid", domain=MICROSOFT)
def entrywise(op: Op) -> Facts:
    """Entry by entry; LeakyRelu keeps a real zero, Sigmoid does not."""
    x, y = _unary(op)
    yield from x.ties()
    yield from y.ties()
    for a, b in zip(x.axes, y.axes, strict=True):
        yield Equal(a, b)
        if op.type == "QLinearLeakyRelu":
            yield Zero(b, (a,))


@rule("QLinearSoftmax", domain=MICROSOFT)
def softmax(op: Op) -> Facts:
    """The axis is pinned; before opset 13 all axes behind it too."""
    x, y = _unary(op)
    yield from x.ties()
    yield from y.ties()
    first = int(op.attr("axis", -1)) % x.x.rank
    for a, b in zip(x.axes, y.axes, strict=True):
        yield Equal(a, b)
        if a.index == first or (a.index > first and int(op.attr("opset", 13)) < 13):
            yield Pin(a, "Softmax runs along it")


@rule("QLinearGlobalAveragePool", "QLinearAveragePool", domain=MICROSOFT)
def pool(op: Op) -> Facts:
    """Batch and channels pass through, spatial axes stay."""
    x, y = _unary(op)
    yield from x.ties()
    yield from y.ties()
    channels = x.x.rank - 1 if op.attr("channels_last", 0) else 1
    for a, b in zip(x.axes, y.axes, strict=True):
        if a.index in (0, channels):
            yield Equal(a, b)
            yield Zero(b, (a,))
        else:
            yield Pin(a, "a window slides along it")
            yield Pin(b, "a window slides along it")


@rule("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def binary(op: Op) -> Facts:
    """Broadcast; a sum is zero where both are, a product where either is."""
    operands, y = (Real(op.x(0), op.maybe(2)), Real(op.x(3), op.maybe(5))), Real(op.y(), op.maybe(7))
    for real in (*operands, y):
        yield from real.ties()
    for back, axis in enumerate(reversed(y.axes), start=1):
        along = tuple(r.axes[-back] for r in operands if r.x.rank >= back and r.x.shape[-back] == axis.size)
        for a in along:
            yield Equal(a, axis)
        if op.type == "QLinearMul" or len(along) == len(operands):
            yield Zero(axis, along, any=op.type == "QLinearMul")


@rule("QLinearConcat", domain=MICROSOFT)
def concat(op: Op) -> Facts:
    """Y's scale and zero point, then triples of operand, scale and zero point."""
    y = Real(op.y(), op.x(1))
    operands = [Real(op.x(i), op.x(i + 2)) for i in range(2, len(op.inputs), 3)]
    at = int(op.attr("axis")) % y.x.rank
    for real in (*operands, y):
        yield from real.ties()
    for i, axis in enumerate(y.axes):
        pieces = tuple(real.axes[i] for real in operands)
        yield Zero(axis, pieces)
        if i == at:
            yield Equal(axis, Sum(pieces))
        else:
            for piece in pieces:
                yield Equal(piece, axis)
