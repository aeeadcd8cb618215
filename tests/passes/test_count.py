"""Multiply-accumulates, operator by operator: at full width, and after half of a group has gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import pytest

from passes.count import macs
from passes.counting.formulas import formula_of, may_cost
from passes.counting.sizes import Sizes
from passes.couple import couple
from passes.load import load
from passes.rules import rules

HEADER = '<ir_version: 10, opset_import: ["" : 19, "com.microsoft" : 1]>\n'
LSTM = """
main (float[5,2,6] x) => (float[5,2,4] y)
    <float[1,32,6] w = {0}, float[1,32,8] r = {0}, float[8,4] v = {0}, int64[1] ways = {1}> {
    h = LSTM <hidden_size: int = 8> (x, w, r)
    s = Squeeze (h, ways)
    y = MatMul (s, v)
}"""
EINSUM = """
main (float[2,3,6] x) => (float[2,3,4] y) <float[6,8] w = {0}, float[8,4] v = {0}> {
    h = Einsum <equation: string = "...i,ij->...j"> (x, w)
    y = Einsum <equation: string = "bnj,jk->bnk"> (h, v)
}"""
FUSED = """
main (float[3,6] x) => (float[3,4] y) <float[8,6] w = {0}, float[8,4] v = {0}> {
    h = com.microsoft.FusedMatMul <transB: int = 1> (x, w)
    y = MatMul (h, v)
}"""
ATTENTION = """
main (float[2,5,6] x) => (float[2,5,4] y)
    <float[6,8] wq = {0}, float[6,8] wk = {0}, float[6,8] wv = {0}, float[8,4] v = {0}> {
    q = MatMul (x, wq)
    k = MatMul (x, wk)
    u = MatMul (x, wv)
    h = com.microsoft.MultiHeadAttention <num_heads: int = 2> (q, k, u)
    y = MatMul (h, v)
}"""

FUSED_LAYERS = """
main (float[2,3,6,6] x) => (float[2,4] y)
    <float[8,3,3,3] w = {0}, float[8,8,1,1] v = {0}, float[4,8] d = {0}> {
    h = com.microsoft.FusedConv <activation: string = "Relu", pads: ints = [1, 1, 1, 1]> (x, w)
    g = com.microsoft.FusedConv <activation: string = "Relu"> (h, v, , h)
    p = GlobalAveragePool (g)
    f = Flatten (p)
    y = com.microsoft.FusedGemm <activation: string = "Tanh", transB: int = 1> (f, d)
}"""
DEFORMED = """
main (float[1,6,5,5] x, float[1,18,5,5] moved) => (float[1,4,5,5] y) <float[8,6,3,3] w = {0}, float[4,8,1,1] v = {0}> {
    h = DeformConv <pads: ints = [1, 1, 1, 1]> (x, w, moved)
    y = Conv (h, v)
}"""
PACKED = """
main (float[2,5,6] x) => (float[2,5,4] y) <float[6,24] w = {0}, float[24] b = {0}, float[8,4] v = {0}> {
    h = com.microsoft.Attention <num_heads: int = 2, scale: float = 0.5> (x, w, b)
    y = MatMul (h, v)
}"""
IN_THE_BATCH = """
main (float[1,3,6,6] x) => (float[1,4,6,6] y)
    <float[8,3,1,1] w = {0}, float[1,1,3,3] k = {0}, float[4,8,1,1] v = {0}, int64[4] there = {8, 1, 6, 6},
     int64[4] back = {1, 8, 6, 6}> {
    h = Conv (x, w)
    r = Reshape (h, there)
    c = Conv <pads: ints = [1, 1, 1, 1]> (r, k)
    s = Reshape (c, back)
    y = Conv (s, v)
}"""
UNEVEN = """
main (float[2,5,6] x) => (float[2,5,4] y) <float[6,28] w = {0}, float[28] b = {0}, float[12,4] v = {0}> {
    h = com.microsoft.Attention <num_heads: int = 2, qkv_hidden_sizes: ints = [8, 8, 12]> (x, w, b)
    y = MatMul (h, v)
}"""


@pytest.mark.parametrize(
    "text, whole, halved",
    [
        (LSTM, 10 * (32 * 6 + 32 * 8 + 8 * 4), 10 * (16 * 6 + 16 * 4 + 4 * 4)),
        (EINSUM, 6 * (6 * 8 + 8 * 4), 6 * (6 * 4 + 4 * 4)),
        (FUSED, 3 * (6 * 8 + 8 * 4), 3 * (6 * 4 + 4 * 4)),
        (ATTENTION, 10 * (3 * 6 * 8 + 2 * 5 * 8 + 8 * 4), None),
        (FUSED_LAYERS, 72 * (27 * 8 + 8 * 8) + 2 * 8 * 4, 72 * (27 * 4 + 4 * 4) + 2 * 4 * 4),
        (DEFORMED, 25 * (54 * 8 + 8 * 4), 25 * (54 * 4 + 4 * 4)),
        (PACKED, 10 * (6 * 24 + 2 * 5 * 8 + 8 * 4), 10 * (6 * 6 + 2 * 5 * 2 + 2 * 4)),
        (IN_THE_BATCH, 36 * (3 * 8 + 9 * 8 + 8 * 4), 36 * (3 * 4 + 9 * 4 + 4 * 4)),
        (UNEVEN, 10 * (6 * 28 + 5 * 8 + 5 * 12 + 12 * 4), None),
    ],
    ids=[
        "LSTM",
        "Einsum",
        "FusedMatMul",
        "MultiHeadAttention",
        "FusedConv",
        "DeformConv",
        "Attention",
        "in the batch",
        "uneven",
    ],
)
def test_products_are_counted_whole_and_halved(text: str, whole: int, halved: int | None, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    proto = onnx.parser.parse_model(HEADER + text)
    for tensor in proto.graph.initializer:
        if tensor.name not in ("ways", "there", "back"):
            dims = list(tensor.dims)
            tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, 1, dims, [0.5] * int(np.prod(dims))))
    onnx.save(proto, path)
    twin = load(path).twin
    coupling = couple(twin)
    cost = macs(twin, coupling)
    assert cost.at({}) == whole
    assert coupling.free()
    if halved is not None:
        assert cost.at({name: group.size // 2 for name, group in coupling.free().items()}) == halved
    else:
        assert cost.at(dict.fromkeys(coupling.free(), 1)) < whole


MICROSOFT = "com.microsoft"
FOUR = [2, 4, 7, 6]


@pytest.mark.parametrize(
    "op, domain, operands, results, attributes, expected",
    [
        ("MultiHeadAttention", MICROSOFT, [[2, 5, 4, 3, 6]], [[2, 5, 24]], {}, 2 * 10 * 5 * 24),
        ("MultiHeadAttention", MICROSOFT, [[2, 5, 24], [2, 7, 4, 2, 6]], [[2, 5, 24]], {}, 2 * 10 * 7 * 24),
        ("MultiHeadAttention", MICROSOFT, [[2, 5, 24], FOUR, FOUR], [[2, 5, 24]], {}, 2 * 10 * 7 * 24),
        ("MultiHeadAttention", MICROSOFT, [[2, 5, 24], [2, 7, 24], [2, 7, 12]], [[2, 5, 12]], {}, 10 * 7 * (24 + 12)),
        ("Attention", "", [[2, 4, 5, 6], FOUR, FOUR], [[2, 4, 5, 6]], {}, 2 * 10 * 7 * 24),
        ("Attention", "", [[2, 4, 5, 6], FOUR, FOUR, None, [2, 4, 3, 6]], [[2, 4, 5, 6]], {}, 2 * 10 * 10 * 24),
        ("Attention", "", [[2, 4, 5, 6], FOUR, FOUR], [[2, 4, 5, 6], [2, 4, 9, 6]], {}, 2 * 10 * 9 * 24),
        ("GroupQueryAttention", MICROSOFT, [[2, 5, 64]], [[2, 5, 32]], {}, 2 * 10 * 5 * 32),
        ("GroupQueryAttention", MICROSOFT, [[2, 1, 32], [2, 1, 16], [2, 1, 16], [2, 2, 6, 8]], [[2, 1, 32]], {},
         2 * 2 * 7 * 32),
        ("Attention", MICROSOFT, [[2, 5, 24], [24, 72], [72], None, [2, 2, 4, 3, 6]], [[2, 5, 24]], {},
         10 * 24 * 72 + 2 * 10 * 8 * 24),
        ("QAttention", MICROSOFT, [[2, 5, 24], [24, 72], [72]], [[2, 5, 24]], {}, 10 * 24 * 72 + 2 * 10 * 5 * 24),
        ("DynamicQuantizeLSTM", MICROSOFT, [[5, 2, 6], [2, 6, 32], [2, 8, 32]], [[5, 2, 2, 8]], {},
         10 * 2 * (6 * 32 + 8 * 32)),
        ("NhwcFusedConv", MICROSOFT, [[1, 5, 5, 6], [8, 6, 3, 3]], [[1, 3, 3, 8]], {}, 9 * 54 * 8),
        ("QLinearConv", MICROSOFT, [[1, 5, 5, 6], [], [], [8, 6, 3, 3]], [[1, 3, 3, 8]], {"channels_last": 1},
         9 * 54 * 8),
    ],
)  # fmt: skip
def test_forms_that_one_operator_takes(
    op: str,
    domain: str,
    operands: list[list[int] | None],
    results: list[list[int]],
    attributes: dict[str, int],
    expected: int,
) -> None:
    inputs = [gs.Variable.empty() if s is None else gs.Variable(f"x{i}", shape=s) for i, s in enumerate(operands)]
    outputs = [gs.Variable(f"y{i}", shape=s) for i, s in enumerate(results)]
    node = gs.Node(op, "it", attributes, inputs, outputs, domain)
    formula = formula_of(node)
    assert formula is not None
    assert sum(volume.whole for volume in formula(node, Sizes({}))) == expected


def test_what_has_a_formula_or_a_rule_is_not_said_to_be_uncounted() -> None:
    free = [gs.Node(op, domain=domain) for domain, op in rules()]
    assert [node.op for node in free if formula_of(node) is None and may_cost(node)] == ["DFT", "STFT"]
    assert may_cost(gs.Node("Conv", domain="elsewhere"))
    assert formula_of(gs.Node("Conv", domain="elsewhere")) is None
