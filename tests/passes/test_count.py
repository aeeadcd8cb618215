"""Multiply-accumulates, operator by operator: at full width, and after half of a group has gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from passes.count import macs
from passes.couple import couple
from passes.load import load

HEADER = '<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>\n'
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


@pytest.mark.parametrize(
    "text, whole, halved",
    [
        (LSTM, 10 * (32 * 6 + 32 * 8 + 8 * 4), 10 * (16 * 6 + 16 * 4 + 4 * 4)),
        (EINSUM, 6 * (6 * 8 + 8 * 4), 6 * (6 * 4 + 4 * 4)),
        (FUSED, 3 * (6 * 8 + 8 * 4), 3 * (6 * 4 + 4 * 4)),
        (ATTENTION, 10 * (3 * 6 * 8 + 2 * 5 * 8 + 8 * 4), None),
    ],
    ids=["LSTM", "Einsum", "FusedMatMul", "MultiHeadAttention"],
)
def test_products_are_counted_whole_and_halved(text: str, whole: int, halved: int | None, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    proto = onnx.parser.parse_model(HEADER + text)
    for tensor in proto.graph.initializer:
        if tensor.name != "ways":
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
