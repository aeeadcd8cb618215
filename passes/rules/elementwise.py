"""Operators that work entry by entry, with broadcasting.

Three things differ between them: what f(0) is (is a removed channel still zero behind it?), whether 0 is a
point where the function is not finite, and, for two operands, whether one zero is enough.
"""

from __future__ import annotations

from collections.abc import Sequence

from passes.rules.language import Axis, Equal, Facts, Op, Operand, Pin, Zero, rule, same

# f(0) = 0
KEEPS_ZERO = (
    "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "HardSwish", "Swish", "Mish", "Gelu", "Tanh",
    "Sin", "Tan", "Asin", "Atan", "Sinh", "Asinh", "Atanh", "Abs", "Neg", "Sign", "Sqrt", "Erf", "Floor", "Ceil",
    "Round", "Softsign", "Identity", "Shrink", "Cast", "BitCast", "IsNaN", "IsInf",
)  # fmt: skip
# f(0) is finite and not 0
MOVES_ZERO = ("Sigmoid", "HardSigmoid", "Softplus", "Exp", "Cos", "Cosh", "Acos", "Not", "BitwiseNot")
# f(0) is not finite: a masked channel would poison its consumers, so the channel stays
POLE_AT_ZERO = ("Log", "Reciprocal", "Acosh")


def behind(op: Op, facts: Facts, residual: Operand | None = None) -> Facts:
    """Facts of an operator with the activation, and the residual added before it, that are fused into it.

    What is removed stays zero where it is zero in the residual, too, and the activation is known to keep it.
    """
    activation = str(op.attr("activation", "") or "Identity")
    for fact in facts:
        if not isinstance(fact, Zero):
            yield fact
        elif activation in KEEPS_ZERO or (activation == "Clip" and _spans_zero(op.attr("activation_params", ()))):
            more = () if residual is None else (residual.axis(fact.y.index),)
            yield Zero(fact.y, (*fact.sources, *more), fact.any)


def _spans_zero(limits: Sequence[float]) -> bool:
    return len(limits) == 2 and limits[0] <= 0 <= limits[1]


@rule(*KEEPS_ZERO)
def keeps_zero(op: Op) -> Facts:
    """y = f(x) with f(0) = 0: every axis is the same, what is removed stays zero."""
    yield from same(op.x(), op.y())


@rule("Dropout")
def dropout(op: Op) -> Facts:
    """The identity, and a mask of what was not dropped: everything."""
    for position, y in enumerate(op.outputs):
        if y is not None:
            yield from same(op.x(), y, zero=position == 0)


@rule("CastLike")
def cast_like(op: Op) -> Facts:
    """A cast; of the second operand only the type is read, so its axes may do as they like."""
    yield from same(op.x(0), op.y())
    for axis in op.x(1).axes:
        yield Equal(axis, axis)


@rule("Gelu", "QuickGelu", domain="com.microsoft")
def activations(op: Op) -> Facts:
    """onnxruntime's own activations with f(0) = 0."""
    yield from same(op.x(), op.y())


@rule("BiasGelu", "FastGelu", domain="com.microsoft")
def biased_gelu(op: Op) -> Facts:
    """y = gelu(x + bias), the bias along the last axis."""
    x, y, bias = op.x(0), op.y(), op.maybe(1)
    yield from same(x, y, skip=(-1,) if bias is not None else (), zero=bias is None)
    if bias is not None:
        for axis in (x.axis(-1), bias.axis(-1)):
            yield Equal(axis, y.axis(-1))
        yield Zero(y.axis(-1), (x.axis(-1), bias.axis(-1)))


@rule(*MOVES_ZERO)
def moves_zero(op: Op) -> Facts:
    """y = f(x) with f(0) ≠ 0: every axis is the same, but what is removed is not zero behind it."""
    yield from same(op.x(), op.y(), zero=False)


@rule(*POLE_AT_ZERO)
def pole_at_zero(op: Op) -> Facts:
    """y = f(x), not finite at 0: removing a channel is no longer the same as zeroing it."""
    yield from same(op.x(), op.y(), zero=False)
    for axis in op.y().axes if op.x().sign != "positive" else ():
        yield Pin(axis, f"{op.type} is not finite at zero")


@rule("Clip")
def clip(op: Op) -> Facts:
    """Zero stays zero if it lies within the limits. Limits are scalars, operands or attributes."""
    low, high = (_limit(op, name, index) for name, index in (("min", 1), ("max", 2)))
    zero = (low is None or low <= 0) and (high is None or high >= 0)
    yield from same(op.x(), op.y(), zero=zero)


def _limit(op: Op, name: str, index: int) -> float | None:
    operand = op.maybe(index)
    if operand is None:
        return op.attr(name)  # type: ignore[no-any-return]
    return float("nan") if operand.value is None else float(operand.value.reshape(-1)[0])


def _columns(op: Op, operands: list[Operand]) -> list[tuple[Axis, list[Axis], list[Operand]]]:
    """For each axis of y: the operands' axes that run along it, and the operands that are broadcast over it."""
    y = op.y()
    columns = []
    for back, axis in enumerate(reversed(y.axes), start=1):
        along = [x.axes[-back] for x in operands if x.rank >= back and (x.shape[-back] == axis.size)]
        over = [x for x in operands if x.rank < back or x.shape[-back] != axis.size]
        columns.append((axis, along, over))
    return columns


def _is_zero(x: Operand) -> bool:
    return x.value is not None and not x.value.any()


@rule("Add", "Sub", "Sum", "Max", "Min", "Mean")
def needs_all_zeros(op: Op) -> Facts:
    """Broadcast; the result is zero only where every operand is."""
    for y, along, over in _columns(op, [x for x in op.inputs if x is not None]):
        for x in along:
            yield Equal(x, y)
        if all(_is_zero(x) for x in over):
            yield Zero(y, tuple(along))


@rule("Mul")
def needs_one_zero(op: Op) -> Facts:
    """Broadcast; the result is zero where either operand is."""
    for y, along, _ in _columns(op, [op.x(0), op.x(1)]):
        for x in along:
            yield Equal(x, y)
        yield Zero(y, tuple(along), any=True)


@rule("Div", "Mod")
def div(op: Op) -> Facts:
    """Broadcast; zero where the dividend is. A divisor that shrinks too would be 0/0 in the masked original."""
    a, b = op.x(0), op.x(1)
    for y, along, _ in _columns(op, [a, b]):
        for x in along:
            yield Equal(x, y)
        if b.sign != "positive" and any(x.tensor == b.name for x in along):
            yield Pin(y, "it is divided entry by entry along this axis")
        yield Zero(y, tuple(x for x in along if x.tensor == a.name), any=True)


@rule("Pow")
def power(op: Op) -> Facts:
    """Broadcast; 0 to a positive constant is 0, to a negative one a pole."""
    base, exponent = op.x(0), op.x(1)
    single = exponent.value is not None and exponent.value.size == 1
    constant = float(exponent.value.reshape(-1)[0]) if single and exponent.value is not None else None
    for y, along, _ in _columns(op, [base, exponent]):
        for x in along:
            yield Equal(x, y)
        if constant is not None and constant > 0:
            yield Zero(y, tuple(x for x in along if x.tensor == base.name), any=True)
        elif base.sign == "positive" and constant is not None:
            continue
        elif (constant is not None and constant < 0) or any(x.tensor == exponent.name for x in along):
            yield Pin(y, "a power that may not be finite at zero")


@rule("PRelu")
def prelu(op: Op) -> Facts:
    """The slope broadcasts to x; 0 stays 0 whatever the slope.

    Source: https://onnx.ai/onnx/operators/onnx__PRelu.html
    """
    x, slope = op.x(0), op.x(1)
    for y, along, _ in _columns(op, [x, slope]):
        for axis in along:
            yield Equal(axis, y)
        yield Zero(y, tuple(axis for axis in along if axis.tensor == x.name))


@rule("Where")
def where(op: Op) -> Facts:
    """Broadcast of condition and both branches; zero where both branches are."""
    condition, a, b = op.x(0), op.x(1), op.x(2)
    for y, along, over in _columns(op, [condition, a, b]):
        for x in along:
            yield Equal(x, y)
        if all(_is_zero(x) for x in over if x.name != condition.name):
            yield Zero(y, tuple(x for x in along if x.tensor != condition.name))


@rule("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "BitwiseAnd", "BitwiseOr",
      "BitwiseXor", "BitShift")  # fmt: skip
def compares(op: Op) -> Facts:
    """Broadcast; the result is not a number that anything sums."""
    for y, along, _ in _columns(op, [op.x(0), op.x(1)]):
        for x in along:
            yield Equal(x, y)
