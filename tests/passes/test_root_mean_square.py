"""Channels leave a root mean square exactly: epsilon and scale are mended by the share that is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from passes.couple import couple
from passes.load import load
from passes.proto import proto_of
from passes.replay import in_the_files_words
from passes.slim import plan_for, slim
from passes.verify import verify
from tests.corpus.oracle import judge
from tests.small import weights

SHAPES = {"w": (6, 16), "g": (16,), "v": (16, 8), "u": (8, 16), "g2": (16,), "o": (16, 4), "b": (16,)}
BLOCK = """main (float[2,5,6] x) => (float[2,5,4] y) {{
    a = MatMul (x, w)
    n = {first}
    h = MatMul (n, v)
    r = Relu (h)
    d = MatMul (r, u)
    {second}
    y = MatMul (m, o)
}}"""
ADDED = "s = Add (a, d)  m = "
OPSETS = {"RMSNormalization": 23, "SimplifiedLayerNormalization": 17}
SKIP = "com.microsoft.SkipSimplifiedLayerNormalization"


def network(text: str, opset: int) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n' + text)
    rng = np.random.default_rng(3)
    used = {name for node in proto.graph.node for name in node.input}
    for name, values in weights(SHAPES).items():
        if name in used:
            values = values if values.ndim > 1 else 1 + rng.random(values.shape).astype(np.float32)
            proto.graph.initializer.append(numpy_helper.from_array(values, name))
    return proto


def normed(op: str, scale: str = "g", epsilon: str = "epsilon = 0.3") -> str:
    return f"{op} <axis = -1, {epsilon}> (a, {scale})"


@pytest.mark.parametrize(
    "text, opset",
    [
        (BLOCK.format(first=normed(op), second=ADDED + normed(op, scale).replace("(a", "(s")), opset)
        for op, opset in OPSETS.items()
        for scale in ("g2", "g")
    ]
    + [
        (BLOCK.format(first="Relu (a)", second=f"m = {SKIP} <epsilon = 0.3> (a, d, g)"), 17),
        (BLOCK.format(first="Relu (a)", second=f"m = {SKIP} (a, d, g, b)"), 17),
        (BLOCK.format(first="Relu (a)", second=f"m, , , q = {SKIP} <epsilon = 0.3> (a, d, g)"), 17),
    ],
    ids=["rms", "rms, one scale", "simplified", "simplified, one scale", "skip", "skip with bias", "skip with sum"],
)
def test_what_is_kept_is_what_it_was(text: str, opset: int, tmp_path: Path) -> None:
    onnx.save(network(text, opset), tmp_path / "model.onnx")
    model = load(tmp_path / "model.onnx")
    coupling = couple(model.twin)
    free = coupling.free()
    assert sorted(group.size for group in free.values()) == [8, 16]
    rng = np.random.default_rng(0)
    plan = plan_for(model, coupling, {n: rng.permutation(g.size) < g.size // 2 - 1 for n, g in free.items()})
    (tmp_path / "plan.json").write_text(json.dumps(in_the_files_words(model, plan).as_json()))
    small = proto_of(slim(model, coupling, plan), model.header)
    onnx.save(small, tmp_path / "pruned.onnx")
    assert verify(model, coupling, plan, small).passed
    judged = judge(tmp_path / "model.onnx", tmp_path / "plan.json", tmp_path / "pruned.onnx")
    assert judged.sound
    assert judged.moved > 1e-2


def test_who_reads_the_root_itself_keeps_the_axis(tmp_path: Path) -> None:
    text = """main (float[2,5,6] x) => (float[2,5,4] y, float[2,5,1] i) {
        a = MatMul (x, w)
        n, i = SimplifiedLayerNormalization <axis = -1, epsilon = 0.3> (a, g)
        y = MatMul (n, o)
    }"""
    onnx.save(network(text, 17), tmp_path / "model.onnx")
    assert not couple(load(tmp_path / "model.onnx").twin).free()


def test_what_is_not_zero_where_it_is_removed_stays(tmp_path: Path) -> None:
    text = """main (float[2,5,6] x) => (float[2,5,4] y) {
        a = MatMul (x, w)
        e = Exp (a)
        n = SimplifiedLayerNormalization <axis = -1, epsilon = 0.3> (e, g)
        y = MatMul (n, o)
    }"""
    onnx.save(network(text, 17), tmp_path / "model.onnx")
    assert not couple(load(tmp_path / "model.onnx").twin).free()
