"""Rows of quantised operators. Data has zero point 3; `literals` are scales and zero points."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from tests.passes.rules.row import Row, row

f32, i8, u8 = np.float32, np.int8, np.uint8
MICROSOFT = "com.microsoft::"
S, Z, Z3, U0, U3 = f32(0.02), i8(0), i8(3), u8(0), u8(3)
FIVE = f32([0.1, 0.2, 0.3, 0.4, 0.5])
FOUR_POINTS = i8([1, 2, 3, 4])

LINEAR: list[Row] = [
    row("DequantizeLinear", "q2,5,6 # #", "a,b,c -> a,b,c", S, Z3),
    row("DequantizeLinear", "k5,6 # #", "a,b -> a,b", S, Z3),
    row("DequantizeLinear", "k5,6 #", "a,b -> a,b", S),
    row("DequantizeLinear", "k5,6 w5 #", "a,b a -> a,b", i8([1, 2, 3, 4, 5]), axis=0),
    row("DequantizeLinear", "k2,4,12 w2,4,3", "a,b,c·! a,b,c -> a,b,c·!", axis=2, block_size=4, opset=21),
    row("DequantizeLinear", "k5,6 w1 #", "a,b 1 -> a,b", i8([3]), axis=0),
    row("QuantizeLinear", "f2,5,6 # #", "a,b,c -> a,b,c", S, Z3),
    row("QuantizeLinear", "f2,5,6 # #", "a,b,c -> a,b,c", FIVE, i8([1, 2, 3, 4, 5])),
    row("QuantizeLinear", "f2,5,6 # #", "a,!,b -> a,!,b", FIVE, np.zeros(5, ml_dtypes.float8_e4m3fn), opset=19),
    row("QuantizeLinear", "f2,12 w2,3", "!,! !,! -> !,!", axis=1, block_size=4, opset=21),
    row(MICROSOFT + "DequantizeLinear", "q2,5,6 # #", "a,b,c -> a,b,c", S, Z3),
    row(MICROSOFT + "QuantizeLinear", "f2,5,6 # #", "a,b,c -> a,b,c", S, Z3),
    row("DynamicQuantizeLinear", "f2,5,6", "a,b,c -> a,b,c . .", outputs=3),
]

PRODUCTS: list[Row] = [
    row("QLinearMatMul", "q2,5,6 # # k6,4 w4 # # #", "a,b,c c,d d -> a,b,d", S, Z3, i8([0, 0, 0, 0]), f32(0.5), Z3),
    row("QLinearMatMul", "q2,5,6 # # k6,4 w4 # # #", "a,b,c c,d d -> a,b,d", S, Z3, FOUR_POINTS, f32(0.5), Z3),
    row("QLinearMatMul", "q2,5,6 # # q2,6,4 # # # #", "a,b,c a,c,d -> a,b,d", S, Z3, S, Z3, f32(0.5), Z3),
    row("MatMulInteger", "u2,5,6 k6,4 #", "a,b,c c,d -> a,b,d", u8(3)),
    row("MatMulInteger", "u2,5,6 k6,4 # #", "a,b,c c,d -> a,b,d", u8(3), FOUR_POINTS),
    row("QLinearConv", "u2,6,5,5 # # k4,6,3,3 w4 # # # n4", "a,b,!,! c,b,!,! c c -> a,c,!,!", S, U3, np.zeros(4, i8), S,
        u8(9)),
    row("QLinearConv", "u2,6,5 # # k4,6,3 # # # #", "a,b,! c,b,! -> a,c,!", S, u8(3), S, Z, f32(2), u8(0)),
    row("QLinearConv", "u2,6,5,5 # # k6,3,3,3 w6 # # #", "a,b·c,!,! b·d,c,!,! b·d -> a,b·d,!,!", S, U3,
        np.zeros(6, i8), S,
        u8(9), group=2),
    row("ConvInteger", "u2,6,5,5 k4,6,3,3 #", "a,b,!,! c,b,!,! -> a,c,!,!", u8(3)),
    row(MICROSOFT + "MatMulIntegerToFloat", "u2,5,6 k6,4 # w4 # # w4", "a,b,c c,d d d -> a,b,d", S, u8(3), Z),
    row(MICROSOFT + "DynamicQuantizeMatMul", "f2,5,6 k6,4 w4 # w4", "a,b,c c,d d d -> a,b,d", np.zeros(4, i8)),
    row(MICROSOFT + "QGemm", "u5,6 # # k6,4 w4 # n4 # #", "a,b b,c c c -> a,c", S, U3, np.zeros(4, i8), f32(0.5), U3),
    row(MICROSOFT + "QGemm", "u5,6 # # k6,4 # # m4", "a,b b,c c -> a,c", S, U3, S, Z),
    row(MICROSOFT + "QGemm", "u5,6 # # k4,6 # #", "a,b c,b -> a,c", S, u8(3), S, Z, transB=1),
    row(MICROSOFT + "MatMulNBits", "f2,5,64 # w8,4", "a,b,c·! d,c -> a,b,d", np.full((8, 4, 8), 77, u8), K=64,
        N=8, bits=4,
        block_size=16),
    row(MICROSOFT + "MatMulNBits", "f2,5,64 # w8,4 #", "a,b,! c,! -> a,b,c", np.full((8, 4, 8), 77, u8),
        np.full(16, 0x88, u8), K=64, N=8, bits=4, block_size=16),
]  # fmt: skip

ENTRYWISE: list[Row] = [
    row(MICROSOFT + "QLinearLeakyRelu", "u2,5,6 # # # #", "a,b,c -> a,b,c", S, U3, S, u8(7)),
    row(MICROSOFT + "QLinearSigmoid", "u2,5,6 # # # #", "a,b,c -> a,b,c", S, U3, S, u8(7)),
    Row(MICROSOFT + "QLinearSoftmax", "u2,5,6 # # # #", "a,b,! -> a,b,!", (S, U3, S, u8(0)),
        attributes={"axis": -1, "opset": 13}),
    row(MICROSOFT + "QLinearGlobalAveragePool", "u2,6,4,4 # # # #", "a,b,!,! -> a,b,1,1", S, u8(3), S, u8(7)),
    row(MICROSOFT + "QLinearAveragePool", "u2,6,4,4 # # # #", "a,b,!,! -> a,b,!,!", S, U3, S, u8(7),
        kernel_shape=[2, 2]),
    row(MICROSOFT + "QLinearAdd", "u2,5,6 # # u5,6 # # # #", "a,b,c b,c -> a,b,c", S, u8(3), S, u8(3), S, u8(9)),
    row(MICROSOFT + "QLinearMul", "u2,5,6 # # u5,1 # # # #", "a,b,c b,1 -> a,b,c", S, u8(3), S, u8(3), S, u8(9)),
    row(MICROSOFT + "QLinearSigmoid", "u2,5,6 # # # #", "a,b,c -> a,b,c", S, U3, S, U0),
    Row(MICROSOFT + "QLinearSoftmax", "u2,5,6 # # # #", "a,!,! -> a,!,!", (S, U3, S, U0),
        attributes={"axis": 1, "opset": 12}),
    row(MICROSOFT + "QLinearGlobalAveragePool", "u2,5,5,6 # # # #", "a,!,!,b -> a,1,1,b", S, U3, S, U0,
        channels_last=1),
    row(MICROSOFT + "QLinearAdd", "u2,5,6 # # u2,5,6 # # # #", "a,b,c a,b,c -> a,b,c", S, U3, S, U3, S, U0),
    row(MICROSOFT + "QLinearAdd", "u2,5,6 # # u5,6 # # # #", "a,b,c b,c -> a,b,c", S, U3, S, U3, S, U0),
    row(MICROSOFT + "QLinearConcat", "# # u2,6 # # u3,6 # #", "a,b c,b -> a+c,b", S, U0, S, U3, S, U3, axis=0),
    row(MICROSOFT + "QLinearConcat", "# # u2,5 # # u2,3 # #", "a,b a,c -> a,b+c", S, u8(9), S, u8(3), S, u8(3), axis=1),
]  # fmt: skip

ROWS = [*LINEAR, *PRODUCTS, *ENTRYWISE]
