"""Rows of operators that pick and place by position."""

from __future__ import annotations

import numpy as np

from tests.passes.rules.row import Row, row

i64 = np.int64
BOX = np.stack(np.meshgrid(np.arange(2), np.arange(1, 4), indexing="ij"), axis=-1).astype(np.int64)

ROWS: list[Row] = [
    row("Gather", "f5,6 #", "a+!+b,c -> c", i64(2)),
    row("Gather", "f5,6 #", "a,b+c -> a,c", i64([3, 4, 5]), axis=1),
    row("Gather", "f5,6 #", "a,b·c -> a,c·b", i64([0, 2, 4, 1, 3, 5]), axis=1),
    row("Gather", "f5,6 #", "a,b+c+d -> a,d+b", i64([4, 5, 0, 1]), axis=-1),
    row("Gather", "f5,6 #", "a,! -> a,b", i64([5, 0, 3, 1, 4, 2]), axis=1),
    row("Gather", "f5,6 #", "a,!+b+c -> a,b·d", i64([1, 1, 2, 2]), axis=1),
    row("Gather", "f5,6 #", "a,!+b+c -> a,d·b", i64([1, 2, 1, 2]), axis=1),
    row("Gather", "w5,6 i2,3", "!,a !,! -> !,!,a"),
    row("GatherElements", "f4,6 i4,2", "!,! !,! -> !,!", axis=1),
    row("GatherElements", "f4,6 j4,2", "a,! a,b -> a,b", axis=1),
    row("GatherND", "f4,5,6 #", "!,a,b -> !,a,b", i64([[1], [3]])),
    row("ScatterElements", "f4,6 # f4,2", "!,! !,! -> !,!", i64([[0, 1]] * 4), axis=1),
    row("ScatterElements", "f4,6 j4,1 f4,1", "a,! a,1 a,1 -> a,!", axis=1),
    row("ScatterElements", "f4,6 j4,2 f4,2", "a,! a,! a,! -> a,!", axis=1, reduction="add"),
    row("Scatter", "f4,6 # f4,2", "!,! !,! -> !,!", i64([[0, 1]] * 4), axis=1, opset=9),
    row("ScatterND", "f4,6 # f2,6", "!,a !,a -> !,a", i64([[3], [1]])),
    row("ScatterND", "f4,6 # f2,6", "!+a+!,b a,b -> !+a+!,b", i64([[1], [2]])),
    row("ScatterND", "f2,6,3 # f2,3,3", "a,!+b+c,d a,b,d -> a,!+b+c,d", BOX),
    row("TensorScatter", "f2,6,4 f2,2,4 #", "a,!,b a,!,b -> a,!,b", i64([0, 0]), opset=24, runs=False),
    row("Compress", "f4,6 #", "a,! -> a,!", np.array([True, False, True, False, True, True]), axis=1),
    row("TopK", "f4,6 #", "a,! -> a,! a,!", i64([2]), outputs=2),
]
