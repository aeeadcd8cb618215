"""What is removed is the number zero through the zero point that it was written with, and through no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from passes.couple import couple
from passes.load import load
from tests.passes.patterns import Solved, model_of, solve


def solved_of(model: onnx.ModelProto, folder: Path) -> Solved:
    """Loaded and coupled."""
    onnx.save(model, folder / "model.onnx")
    loaded = load(folder / "model.onnx")
    return Solved(loaded, couple(loaded.twin))


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


RANGED = """ranged (float[2,5] x) => (float[2,3] y) {
        a = MatMul(x, w)
        b = %s(a)
        y = com.microsoft.DynamicQuantizeMatMul(b, v, step)
    }"""


@pytest.mark.parametrize("between, spelt", [("Relu", "8"), ("Sigmoid", "8!")])
def test_what_is_not_zero_stays_in_the_range_that_a_product_takes(between: str, spelt: str, tmp_path: Path) -> None:
    model = model_of(RANGED % between, {"w": (5, 8)})
    model.graph.initializer.append(numpy_helper.from_array(np.ones((8, 3), np.int8), "v"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32([0.1]), "step"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    solved = solved_of(model, tmp_path)
    assert solved.axis("w", 1) == spelt
    assert solved.prune()[1].passed


BIASED = """biased (float[1,3,4,4] x) => (float[1,1,4,4] y)
    <float step = {0.05}, int8 point = {0}, int64[1] channels = {1}, int64[1] eight = {8}, float most = {50}> {
        u = Conv(x, u_w)
        s = %s(u)
        f = Reshape(s, eight)
        m = Mul(f, most)
        bias = Cast<to=6>(m)
        q = QuantizeLinear(x, step, point)
        c = QLinearConv(q, step, point, k, step, point, step, point, bias)
        d = DequantizeLinear(c, step, point)
        y = ReduceSum(d, channels)
    }"""


@pytest.mark.parametrize("between, spelt", [("Relu", "8"), ("Sigmoid", "8!")])
def test_a_computed_bias_that_is_not_zero_pins_in_a_sum(between: str, spelt: str, tmp_path: Path) -> None:
    model = model_of(BIASED % between, {"u_w": (8, 3, 4, 4)})
    model.graph.initializer.append(numpy_helper.from_array(np.ones((8, 3, 1, 1), np.int8), "k"))
    solved = solved_of(model, tmp_path)
    assert solved.axis("k", 0) == spelt
    assert solved.prune()[1].passed


MEASURED = """measured (float[2,5] x) => (float[2,3] y) {
        a = MatMul(x, w)
        b = %s(a)
        q, step, point = DynamicQuantizeLinear(b)
        m = MatMulInteger(q, v, point)
        f = Cast<to=1>(m)
        y = Mul(f, step)
    }"""


@pytest.mark.parametrize("between, spelt", [("Relu", "8"), ("Sigmoid", "8!")])
def test_what_is_not_zero_stays_in_a_range_that_is_measured(between: str, spelt: str, tmp_path: Path) -> None:
    model = model_of(MEASURED % between, {"w": (5, 8)})
    model.graph.initializer.append(numpy_helper.from_array(np.ones((8, 3), np.int8), "v"))
    solved = solved_of(model, tmp_path)
    assert solved.axis("w", 1) == spelt
    assert solved.prune()[1].passed


ATTENDED = """attended (float[1,5,6] x) => (float[1,5,8] y) {
        a = MatMul(x, q_w)
        b = MatMul(x, k_w)
        q = %s(a)
        k = %s(b)
        v = MatMul(x, v_w)
        y = Attention<q_num_heads=2, kv_num_heads=2>(q, k, v)
    }"""


@pytest.mark.parametrize("between, pinned", [("Relu", False), ("Sigmoid", True)])
def test_attention_sums_over_dims_that_are_zero_only(between: str, pinned: bool, tmp_path: Path) -> None:
    """A removed dim of queries and keys that is the same everywhere would be lost in Softmax: only the pin shows."""
    weights = {"q_w": (6, 8), "k_w": (6, 8), "v_w": (6, 8)}
    solved = solve(tmp_path, ATTENDED % (between, between), weights, opset=23)
    assert ("attention sums" in solved.pin("q_w", 1)) == pinned
    assert solved.prune()[1].passed
