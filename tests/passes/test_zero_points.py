"""What is removed is the number zero through the zero point that it was written with, and through no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.passes.patterns import solve

SUMMED = """summed (float[1,3,4,4] x) => (float[1,1,4,4] y)
    <float step = {0.05}, int8 written = {3}, int8 read = {%d}, int64[1] channels = {1}> {
        a = Conv(x, w)
        q = QuantizeLinear(a, step, written)
        d = DequantizeLinear(q, step, read)
        y = ReduceSum(d, channels)
    }"""


@pytest.mark.parametrize("read, spelt", [(3, "8"), (5, "8!"), (0, "8!")])
def test_a_sum_behind_another_zero_point_pins(read: int, spelt: str, tmp_path: Path) -> None:
    solved = solve(tmp_path, SUMMED % read, {"w": (8, 3, 1, 1)})
    assert solved.axis("w", 0) == spelt
    assert solved.prune()[1].passed
