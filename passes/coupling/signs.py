"""Which tensors hold no negative, or only positive, entries, whatever the weights: what is safe to divide by.

A divisor whose removed entries are zero would make 0/0 in the masked original. One that is positive by
construction (clipped from below, an exponential, a sum of squares plus an epsilon) does not: 0 divided by it
is 0, and its axis may shrink.
"""

from __future__ import annotations

import numpy as np

from passes.rules.language import Op, Operand, Sign

POSITIVE = ("Exp", "Sigmoid", "Softplus")
NOT_NEGATIVE = ("Abs", "Relu", "HardSigmoid", "Softmax", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ThresholdedRelu")
MOVES = (
    "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Tile", "Slice", "Split", "Gather",
    "Cast", "Sqrt", "Concat", "Reciprocal", "ReduceMax", "ReduceMin", "GlobalAveragePool", "AveragePool", "MaxPool",
)  # fmt: skip
SUMS = ("ReduceSum", "ReduceMean", "Einsum", "MatMul")
INDEXED = ("Reshape", "Expand", "Tile", "Slice", "Split", "Gather", "Squeeze", "Unsqueeze", "ReduceSum", "ReduceMean",
           "ReduceMax", "ReduceMin")  # fmt: skip


def sign_of(op: Op) -> Sign:
    """The sign of all entries of the node's outputs, from its operands'."""
    operands = [x for x in op.inputs if x is not None]
    if op.domain not in ("", "ai.onnx") or not operands:
        return "unknown"
    signs = [_sign(x) for x in operands]
    if op.type in POSITIVE:
        return "positive"
    if op.type in NOT_NEGATIVE:
        return "not negative"
    if op.type in MOVES:
        floating = "float" in op.y().dtype
        return _least([*(signs[:1] if op.type in INDEXED else signs), "positive" if floating else "not negative"])
    if op.type in SUMS:
        return "unknown" if "unknown" in (signs[:1] if op.type in INDEXED else signs) else "not negative"
    return _arithmetic(op, operands, signs)


def _arithmetic(op: Op, operands: list[Operand], signs: list[Sign]) -> Sign:
    match op.type:
        case "Add" | "Sum" if "unknown" not in signs:
            return "positive" if "positive" in signs else "not negative"
        case "Mul" | "Div" if len(operands) == 2:
            square = op.type == "Mul" and operands[0].name == operands[1].name
            return "not negative" if square else _least(signs)
        case "Max" if any(sign != "unknown" for sign in signs):
            return "positive" if "positive" in signs else "not negative"
        case "Pow" if len(operands) == 2:
            return _power(signs[0], operands[1])
        case "Clip":
            return _clipped(op, signs[0])
    return "unknown"


def _power(base: Sign, exponent: Operand) -> Sign:
    value = _scalar(exponent)
    if base == "unknown" and value is not None and value > 0 and value % 2 == 0:
        return "not negative"
    return base if value is not None else "unknown"


def _clipped(op: Op, x: Sign) -> Sign:
    low, high = (_limit(op, name, index) for name, index in (("min", 1), ("max", 2)))
    if high is not None and not high > 0:
        return "unknown"
    if low is not None and low > 0:
        return "positive"
    return "not negative" if low == 0 or x != "unknown" else "unknown"


def _limit(op: Op, name: str, index: int) -> float | None:
    operand = op.maybe(index)
    if operand is None:
        value = op.attr(name)
        return None if value is None else float(value)
    value = _scalar(operand)
    return float("nan") if value is None else value


def _sign(x: Operand) -> Sign:
    value = _scalar(x)
    if value is None:
        return x.sign
    return "positive" if value > 0 else "not negative" if value == 0 else "unknown"


def _scalar(x: Operand) -> float | None:
    """A constant of one entry, which is never removed."""
    if not x.constant or x.value is None or x.value.size != 1 or x.value.dtype == object:
        return None
    value = float(np.asarray(x.value).reshape(-1)[0])
    return value if np.isfinite(value) else None


def _least(signs: list[Sign]) -> Sign:
    if "unknown" in signs:
        return "unknown"
    return "not negative" if "not negative" in signs else "positive"
