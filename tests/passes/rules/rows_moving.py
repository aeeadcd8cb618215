"""Rows of operators that cut, join, fold and move axes."""

from __future__ import annotations

import numpy as np

from tests.passes.rules.row import Row, row

f32, i64 = np.float32, np.int64

ROWS: list[Row] = [
    row("Reshape", "f2,3,4 #", "a,b,c -> a,b·c", i64([0, 12])),
    row("Reshape", "f2,12 #", "a,b·c -> a,b,c", i64([2, -1, 4])),
    row("Reshape", "f6,10 #", "!,! -> !,!", i64([15, 4])),
    row("Reshape", "f4,6 #", "a·b,c -> a,b·c", i64([2, 12])),
    row("Reshape", "f4,2,3 #", "a·b,c,d -> a,b·c,d", i64([2, 4, 3])),
    row("Reshape", "f2,8,8 #", "a,b·c,d·e -> a·b,c·d,e", i64([8, 0, 2])),
    row("Reshape", "f6 #", "a -> 1,a,1", i64([1, 6, 1])),
    row("Flatten", "f2,3,4", "a,b,c -> a,b·c"),
    row("Flatten", "f2,3,4", "a,b,c -> a·b,c", axis=-1),
    row("Flatten", "f2,3,4", "a,b,c -> 1,a·b·c", axis=0),
    row("Squeeze", "f2,1,4 #", "a,1,b -> a,b", i64([1])),
    row("Squeeze", "f2,1,4", "a,1,b -> a,b", axes=[1], opset=11),
    row("Unsqueeze", "f2,4 #", "a,b -> a,1,b", i64([1])),
    row("Transpose", "f2,3,4", "a,b,c -> b,c,a", perm=[1, 2, 0]),
    row("Transpose", "f2,3", "a,b -> b,a"),
    row("Concat", "f2,3 f4,3", "a,b c,b -> a+c,b", axis=0),
    row("Concat", "f2,3 f2,4 f2,3", "a,b a,c a,d -> a,b+c+d", axis=-1),
    row("Split", "f2,6 #", "a,b+c -> a,b a,c", i64([2, 4]), axis=1, outputs=2),
    row("Split", "f2,6", "a,b+c -> a,b a,c", axis=1, outputs=2, opset=13),
    row("Split", "f2,6", "a,b+c -> a,b a,c", axis=1, outputs=2, num_outputs=2),
    row("Split", "f2,7", "a,b+c -> a,b a,c", axis=1, outputs=2, num_outputs=2),
    row("Split", "f2,6", "a,b+c -> a,b a,c", axis=1, outputs=2, split=[2, 4], opset=11),
    row("Slice", "f3,8 # # #", "a,b+c+d -> a,c", i64([2]), i64([-3]), i64([1])),
    row("Slice", "f4,8 # # # #", "a+b,! -> b,!", i64([2, 7]), i64([9, -9]), i64([0, 1]), i64([1, -1])),
    row("Slice", "f3,8 # # # #", "a,b·! -> a,b", i64([1]), i64([9]), i64([1]), i64([2])),
    row("Slice", "f3,8", "a,b+c -> a,c", axes=[1], starts=[4], ends=[100], opset=9),
    row("Pad", "f3,4 #", "a,b -> a,c+b+d", i64([0, 2, 0, 3])),
    row("Pad", "f3,4 # #", "a,b -> a,!+b+!", i64([0, 2, 0, 3]), f32(1)),
    row("Pad", "f3,4 #", "a,! -> a,!", i64([0, 2, 0, 3]), mode="reflect"),
    row("Pad", "f3,4 # _ #", "a,b -> a,b+c", i64([0, 3]), i64([1]), opset=18),
    row("Pad", "f3,4", "a,b -> a,c+b", pads=[0, 2, 0, 0], opset=9),
    row("Expand", "f3,1 #", "a,1 -> b,a,c", i64([2, 3, 4])),
    row("Expand", "f3,4 #", "a,b -> a,b", i64([1, 4])),
    row("Tile", "f3,4 #", "a,b -> a,!·b", i64([1, 2])),
    row("Tile", "f3,1 #", "a,1 -> a,b", i64([1, 5])),
    row("Trilu", "f2,3,4", "a,!,! -> a,!,!"),
]
