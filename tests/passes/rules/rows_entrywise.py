"""Rows of operators that work entry by entry, and of reductions."""

from __future__ import annotations

import numpy as np

from passes.rules.elementwise import KEEPS_ZERO, MOVES_ZERO
from tests.passes.rules.row import Row, row

f32, i64 = np.float32, np.int64
NEWER = {"Gelu": 20, "Swish": 24, "BitCast": 26, "Mish": 18, "HardSwish": 14}
CASTS = {"Cast": {"to": 1}, "BitCast": {"to": 6}}
OTHER_KINDS = ("Not", "BitwiseNot")
WIDE = {"Asin", "Acos", "Atanh", "Acosh"}  # not numbers beyond 1: the bench's weights are, so the equations must do

UNARY = [
    row(op, "f4,6", "a,b -> a,b", opset=NEWER.get(op, 18), runs=op not in ("BitCast", "Swish"), **CASTS.get(op, {}))
    for op in (*KEEPS_ZERO, *MOVES_ZERO)
    if op not in OTHER_KINDS
]
BINARY = [
    row(op, "f4,6 f6", "a,b b -> a,b", opset=18)
    for op in (
        "Add",
        "Sub",
        "Sum",
        "Max",
        "Min",
        "Mean",
        "Mul",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
    )
]
ROWS: list[Row] = [
    *UNARY,
    *BINARY,
    row("Not", "b4,6", "!,! -> !,!"),
    row("BitwiseNot", "i4,6", "!,! -> !,!"),
    *(row(op, "b4,6 b6", "!,! ! -> !,!") for op in ("And", "Or", "Xor")),
    *(row(op, "i4,6 i6", "!,! ! -> !,!", opset=18) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    row("BitShift", "u4,6 u6", "a,b b -> a,b", direction="LEFT", runs=False),
    row("Log", "f4,6", "!,! -> !,!"),
    row("Reciprocal", "f4,6", "!,! -> !,!"),
    row("Acosh", "f4,6", "!,! -> !,!", runs=False),  # no number below 1, where the bench's values are
    row("Add", "f2,1,6 f4,1", "a,1,b c,1 -> a,c,b"),
    row("Mul", "f2,4,6 f4,1", "a,b,c b,1 -> a,b,c"),
    row("Mul", "f4,6 #", "a,b -> a,b", f32(2)),
    row("Div", "f4,6 f4,1", "!,a !,1 -> !,a"),
    row("Div", "f4,6 #", "a,b -> a,b", f32(2)),
    row("Mod", "f4,6 #", "a,b -> a,b", f32(2), fmod=1),
    row("Pow", "f4,6 #", "a,b -> a,b", f32(2)),
    row("Pow", "f4,6 #", "!,! -> !,!", f32(-1)),
    row("Clip", "f4,6 # #", "a,b -> a,b", f32(-1), f32(1)),
    row("Clip", "f4,6 # #", "a,b -> a,b", f32(0.5), f32(1)),
    row("Dropout", "f4,6", "a,b -> a,b a,b", outputs=2),
    row("CastLike", "f4,6 f3,5", "a,b c,d -> a,b"),
    row("PRelu", "f4,6 w6", "a,b b -> a,b"),
    row("PRelu", "f4,6 w1", "a,b 1 -> a,b"),
    row("Where", "b4,1 f4,6 f6", "!,1 !,a a -> !,a"),
    row("com.microsoft::Gelu", "f4,6", "a,b -> a,b"),
    row("com.microsoft::QuickGelu", "f4,6", "a,b -> a,b"),
    row("com.microsoft::BiasGelu", "f4,6 w6", "a,b b -> a,b"),
    row("com.microsoft::FastGelu", "f4,6 w6", "a,b b -> a,b"),
    row("com.microsoft::FastGelu", "f4,6", "a,b -> a,b"),
    *(row(op, "f4,6 #", "a,b -> a,1", i64([1])) for op in ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")),
    *(row(op, "f4,6 #", "a,! -> a", i64([1]), keepdims=0) for op in ("ReduceProd", "ReduceLogSumExp")),
    *(row(op, "f4,6 #", "a,! -> a", i64([-1]), keepdims=0) for op in ("ReduceMax", "ReduceMin")),
    row("ReduceLogSum", "f4,6 #", "!,! -> !", i64([1]), keepdims=0),
    row("ReduceMean", "f4,6 #", "a,b -> a", i64([1]), keepdims=0),
    row("ReduceMean", "f4,6", "a,b -> 1,1"),
    row("ReduceMean", "f4,6", "a,b -> b", axes=[0], keepdims=0, opset=13),
    row("ReduceSum", "f4,6 #", "a,b -> a,b", i64([]), noop_with_empty_axes=1),
    row("Softmax", "f4,6", "a,! -> a,!"),
    row("Softmax", "f4,5,6", "a,!,! -> a,!,!", opset=11),
    row("LogSoftmax", "f4,6", "!,a -> !,a", axis=0),
    row("Hardmax", "f4,6", "a,! -> a,!"),
    row("ArgMax", "f4,6", "!,a -> 1,a"),
    row("ArgMin", "f4,6", "a,! -> a", axis=1, keepdims=0),
    row("CumSum", "f4,6 #", "a,b -> a,b", i64(1)),
    row("CumProd", "f4,6 #", "a,! -> a,!", i64(1), opset=26, runs=False),
]
