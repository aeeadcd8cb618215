"""Rows of operators with weights, pools and resampling."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.passes.rules.row import Row, row

f32, i64 = np.float32, np.int64
info = helper.make_tensor_value_info

LSTM = "!,!,a 1,!·b,a 1,!·b,b 1,!·b 1,!,b 1,!,b 1,!·b -> !,1,!,b 1,!,b 1,!,b"
TWO_WAYS = "!,!,a !,!·b,a !,!·b,b -> !,!,!,b"
GRU = "!,!,a 1,!·b,a 1,!·b,b 1,!·b -> !,1,!,b"

INTO = [info("i", TensorProto.INT64, []), info("on", TensorProto.BOOL, []), info("state", TensorProto.FLOAT, [4, 6]),
        info("carried", TensorProto.FLOAT, [6, 6])]  # fmt: skip
AFTER = [info("goes_on", TensorProto.BOOL, []), info("after", TensorProto.FLOAT, [4, 6]),
         info("carried", TensorProto.FLOAT, [6, 6]), info("state", TensorProto.FLOAT, [4, 6])]  # fmt: skip
STEP = [helper.make_node("Identity", ["on"], ["goes_on"]), helper.make_node("MatMul", ["state", "carried"], ["after"])]
BODY = helper.make_graph(STEP, "body", INTO, AFTER)

FUSED = "com.microsoft::FusedConv"

ROWS: list[Row] = [
    row("Loop", "# # f4,6 w6,6", "a,b b,b -> a,b b,b !,a,b", np.array(3), np.array(True), outputs=3, body=BODY),
    row("Conv", "f2,6,5,5 w4,6,3,3 w4", "a,b,!,! c,b,!,! c -> a,c,!,!"),
    row("Conv", "f2,6,5 w4,6,3", "a,b,! c,b,! -> a,c,!", auto_pad="SAME_UPPER"),
    row("Conv", "f2,6,3,3,3 w4,6,2,2,2", "a,b,!,!,! c,b,!,!,! -> a,c,!,!,!"),
    row("Conv", "f2,6,5,5 w6,3,3,3 w6", "a,b·c,!,! b·d,c,!,! b·d -> a,b·d,!,!", group=2),
    row("Conv", "f2,6,5,5 w6,1,3,3 w6", "a,b,!,! b,1,!,! b -> a,b,!,!", group=6),
    row("Conv", "f2,6,5,5 w12,1,3,3", "a,b,!,! b·c,1,!,! -> a,b·c,!,!", group=6),
    row("Conv", "f2,6,5,5 w4,6,3,3 f4", "a,b,!,! c,b,!,! c -> a,c,!,!"),
    row(FUSED, "f2,6,5,5 w4,6,3,3 w4", "a,b,!,! c,b,!,! c -> a,c,!,!", activation="Relu"),
    row(FUSED, "f2,6,5,5 w4,6,3,3", "a,b,!,! c,b,!,! -> a,c,!,!", activation="LeakyRelu", activation_params=[0.1]),
    row(FUSED, "f2,6,5,5 w4,6,3,3 w4 f2,4,3,3", "a,b,!,! c,b,!,! c a,c,!,! -> a,c,!,!", activation="Relu"),
    row(FUSED, "f2,6,5,5 w4,6,3,3 _ f2,4,3,3", "a,b,!,! c,b,!,! a,c,!,! -> a,c,!,!", activation="Tanh"),
    row(FUSED, "f2,6,5,5 w4,6,3,3 w4", "a,b,!,! c,b,!,! c -> a,c,!,!", activation="Sigmoid"),
    row(FUSED, "f2,6,5,5 w4,6,3,3 w4", "a,b,!,! c,b,!,! c -> a,c,!,!", activation="Clip", activation_params=[0.0, 6.0]),
    row(FUSED, "f2,6,5,5 w4,6,3,3 w4", "a,b,!,! c,b,!,! c -> a,c,!,!", activation="Clip", activation_params=[1.0, 6.0]),
    row(FUSED, "f2,6,5,5 w6,3,3,3 w6", "a,b·c,!,! b·d,c,!,! b·d -> a,b·d,!,!", group=2, activation="Relu"),
    row("InstanceNormalization", "f2,6,4 f6 f6", "a,b,! b b -> a,b,!"),
    row("ConvTranspose", "f2,6,5,5 w6,4,2,2 w4", "a,b,!,! b,c,!,! c -> a,c,!,!", strides=[2, 2]),
    row("ConvTranspose", "f2,6,5,5 w6,2,2,2 w4", "a,b·c,!,! b·c,d,!,! b·d -> a,b·d,!,!", group=2),
    row("DeformConv", "f2,6,5,5 w4,6,3,3 f2,18,3,3 w4", "a,b,!,! c,b,!,! a,!,!,! c -> a,c,!,!", opset=19),
    row(
        "DeformConv", "f1,6,5,5 w4,6,3,3 f1,36,3,3", "1,!·a,!,! b,!·a,!,! 1,!,!,! -> 1,b,!,!", opset=19, offset_group=2
    ),
    row("MaxPool", "f2,6,4,4", "a,b,!,! -> a,b,!,!", kernel_shape=[2, 2]),
    row("MaxPool", "f2,6,4,4", "!,!,!,! -> !,!,!,! !,!,!,!", kernel_shape=[2, 2], outputs=2),
    row("AveragePool", "f2,6,4,4", "a,b,!,! -> a,b,!,!", kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
    row("LpPool", "f2,6,4,4", "a,b,!,! -> a,b,!,!", kernel_shape=[2, 2]),
    *(row(op, "f2,6,4,4", "a,b,!,! -> a,b,1,1") for op in ("GlobalMaxPool", "GlobalLpPool")),
    row("GlobalAveragePool", "f2,6,4,5", "a,b,c,d -> a,b,1,1"),
    row("Resize", "f2,6,4,4 _ #", "a,b,!,! -> a,b,!,!", f32([1, 1, 2, 2])),
    row("Resize", "f2,6,4,4 _ _ #", "a,b,!,! -> a,b,!,!", i64([2, 6, 8, 8]), mode="linear"),
    row("Resize", "f2,6,4,4 _ #", "a,!,b,c -> a,!,b,c", f32([2]), axes=[1]),
    row("Upsample", "f2,6,4,4 #", "a,b,!,! -> a,b,!,!", f32([1, 1, 2, 2]), opset=9),
    row("DepthToSpace", "f2,12,3,3", "a,!·b,!,! -> a,b,!,!", blocksize=2),
    row("DepthToSpace", "f2,12,3,3", "a,b·!,!,! -> a,b,!,!", blocksize=2, mode="CRD"),
    row("SpaceToDepth", "f2,3,4,4", "a,b,!,! -> a,!·b,!,!", blocksize=2),
    row("Col2Im", "f2,12,4 # #", "a,b·!,! -> a,b,!,!", i64([4, 4]), i64([2, 2]), strides=[2, 2]),
    row("GridSample", "f2,6,4,4 f2,3,3,2", "a,b,!,! a,!,!,! -> a,b,!,!"),
    row("RoiAlign", "f2,6,4,4 f3,4 #", "!,a,!,! !,! -> !,a,!,!", i64([0, 1, 0]), output_height=2, output_width=2),
    row("MaxRoiPool", "f2,6,4,4 f3,5", "!,a,!,! !,! -> !,a,!,!", pooled_shape=[2, 2], runs=False),
    row("CenterCropPad", "f4,6 #", "a,! -> a,!", i64([4]), axes=[1], runs=False),
    row("Det", "f5,3,3", "a,!,! -> a"),
    row("LSTM", "f3,2,6 w1,12,6 w1,12,3", "!,!,a 1,!·b,a 1,!·b,b -> !,1,!,b", hidden_size=3),
    row("LSTM", "f3,2,6 w1,12,6 w1,12,3 w1,24 _ w1,2,3 w1,2,3 w1,9", LSTM, hidden_size=3, outputs=3),
    row("LSTM", "f3,2,6 w2,12,6 w2,12,3", TWO_WAYS, hidden_size=3, direction="bidirectional"),
    row("GRU", "f3,2,6 w1,9,6 w1,9,3", "!,!,a 1,!·b,a 1,!·b,b -> !,1,!,b", hidden_size=3),
    row("GRU", "f3,2,6 w1,9,6 w1,9,3 w1,18", GRU, hidden_size=3, linear_before_reset=1),
    row("RNN", "f3,2,6 w1,3,6 w1,3,3 w1,6", "!,!,a 1,b,a 1,b,b 1,!·b -> !,1,!,b", hidden_size=3),
    row("GRU", "f3,2,6 w1,9,6 w1,9,3 f1,18", "!,!,a 1,!·b,a 1,!·b,b 1,!·b -> !,1,!,b", hidden_size=3),
    row("GRU", "f3,2,6 w1,9,6 w1,9,3 _ _ f1,2,3", "!,!,a 1,!·b,a 1,!·b,b 1,!,b -> !,1,!,b", hidden_size=3),
    row("LSTM", "f3,2,6 w1,12,6 w1,12,3 _ _ _ f1,2,3", "!,!,a 1,!·b,a 1,!·b,b 1,!,b -> !,1,!,b", hidden_size=3),
    row("RNN", "f3,2,6 w1,3,6 w1,3,3", "!,!,a 1,b,a 1,b,b -> !,1,!,b", hidden_size=3, activations=["Sigmoid"]),
    row("ReverseSequence", "f3,2,6 #", "!,!,a -> !,!,a", i64([2, 3])),
]
