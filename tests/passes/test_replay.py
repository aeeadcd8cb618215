"""plan.json speaks of the file's own weights, whatever load folded; what it cannot say so is marked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from halpc.ir.plan import Plan, read_plan
from passes.couple import couple
from passes.load import load
from passes.proto import proto_of
from passes.replay import in_the_files_words
from passes.slim import plan_for, slim
from tests.corpus.oracle import judge
from tests.passes.patterns import model_of

SECOND = " b = Relu(a) y = MatMul(b, v) }"
TRANSPOSED = "t (float[2,6] x) => (float[2,3] y) { t = Transpose<perm=[1,0]>(w) a = MatMul(x, t)" + SECOND
TWICE = (
    "t (float[2,6] x) => (float[2,3] y) { u = Transpose(w) i = Identity(u) c = Cast<to=1>(i) a = MatMul(x, c)" + SECOND
)
FOLDED = (
    """t (float[2,6] x) => (float[2,3] y) <int64[2] two = {6,8}> {
    u = Reshape(w, two) a = MatMul(x, u)"""
    + SECOND
)
FLATTENED = """t (float[1,4,2,2] x) => (float[1,3] y) <int64[2] rows = {5,16}, int64[2] flat = {1,16}> {
    c = Conv(x, k) f = Reshape(c, flat) r = Reshape(w, rows) g = Gemm<transB=1>(f, r) b = Relu(g) y = MatMul(b, v) }"""
JOINED = (
    """t (float[2,6] x) => (float[2,3] y) {
    u = Concat<axis=1>(w1, w2) a = MatMul(x, u)"""
    + SECOND
)
HALVES = """t (float[2,6] x) => (float[2,4] y) <int64[2] parts = {8,8}> {
    p, q = Split<axis=1>(w, parts) a = MatMul(x, p) b = Relu(a) c = MatMul(x, q) d = Relu(c)
    e = MatMul(b, v) f = MatMul(d, v) y = Add(e, f) }"""
NORMED = """t (float[2,6] x) => (float[2,3] y) { n = Mul(w, g) a = MatMul(x, n)""" + SECOND


def plans(text: str, weights: dict[str, tuple[int, ...]], folder: Path) -> tuple[Plan, Plan, Path]:
    """The plan inside, the plan as written and read again, and the folder with the three files."""
    onnx.save(model_of(text, weights), folder / "model.onnx")
    model = load(folder / "model.onnx")
    coupling = couple(model.twin)
    rng = np.random.default_rng(0)
    plan = plan_for(model, coupling, {n: rng.permutation(g.size) % 3 != 1 for n, g in coupling.free().items()})
    (folder / "plan.json").write_text(json.dumps(in_the_files_words(model, plan).as_json()))
    onnx.save(proto_of(slim(model, coupling, plan), model.header), folder / "pruned.onnx")
    assert judge(*(folder / name for name in ("model.onnx", "plan.json", "pruned.onnx"))).sound
    return plan, read_plan(folder / "plan.json"), folder


@pytest.mark.parametrize("text, tensor", [(TRANSPOSED, "t"), (TWICE, "c")])
def test_a_transposed_weight_is_named_with_its_axis_turned(text: str, tensor: str, tmp_path: Path) -> None:
    inside, written, _ = plans(text, {"w": (8, 6), "v": (8, 3)}, tmp_path)
    assert set(written.keep) == {"w", "v"}
    assert np.array_equal(written.keep["w"][0], inside.keep[tensor][1])
    assert not written.derived


def test_a_reshape_that_splits_axes_is_undone(tmp_path: Path) -> None:
    inside, written, _ = plans(FOLDED, {"w": (2, 3, 8), "v": (8, 3)}, tmp_path)
    assert list(written.keep["w"]) == [2]
    assert np.array_equal(written.keep["w"][2], inside.keep["u"][1])


def test_a_flattened_weight_is_sliced_by_channels(tmp_path: Path) -> None:
    _, written, _ = plans(FLATTENED, {"k": (4, 4, 1, 1), "w": (5, 4, 2, 2), "v": (5, 3)}, tmp_path)
    assert np.array_equal(written.keep["w"][1], written.keep["k"][0])
    assert np.array_equal(written.keep["w"][0], written.keep["v"][0])


def test_joined_weights_are_named_each(tmp_path: Path) -> None:
    inside, written, _ = plans(JOINED, {"w1": (6, 4), "w2": (6, 5), "v": (9, 3)}, tmp_path)
    kept = inside.keep["u"][1]
    assert np.array_equal(written.keep["w1"][1], kept[kept < 4])
    assert np.array_equal(written.keep["w2"][1], kept[kept >= 4] - 4)


def test_parts_of_one_weight_are_put_together(tmp_path: Path) -> None:
    _, written, _ = plans(HALVES, {"w": (6, 16), "v": (8, 4)}, tmp_path)
    half = written.keep["v"][0]
    assert np.array_equal(written.keep["w"][1], np.concatenate([half, half + 8]))


def test_a_computed_weight_is_derived_and_says_from_what(tmp_path: Path) -> None:
    inside, written, _ = plans(NORMED, {"w": (6, 8), "g": (1, 8), "v": (8, 3)}, tmp_path)
    assert set(written.keep) == {"n", "v"}
    assert written.derived["n"].sources == ("g", "w")
    assert "Mul" in written.derived["n"].why
    assert np.array_equal(written.derived["n"].keep[1], inside.keep["n"][1])


def test_a_weight_used_in_two_ways_that_keep_different_slices_is_derived(tmp_path: Path) -> None:
    text = """t (float[2,6] x) => (float[2,3] y) {
        t = Transpose(w) a = MatMul(x, t) b = Relu(a) y = MatMul(b, v)
        s = Identity(w) }"""
    whole = text.replace("(float[2,3] y)", "(float[2,3] y, float[8,6] s)")
    _, written, _ = plans(whole, {"w": (8, 6), "v": (8, 3)}, tmp_path)
    assert "w" not in written.keep
    assert "another use" in written.derived["t"].why


COPIED = """t (float[2,6] x) => (float[2,6] y) {
    a = MatMul(x, w) b = Relu(a) c = MatMul(b, v) w2 = Identity(w) v2 = Identity(v)
    d = MatMul(c, w2) e = Add(d, k) f = Relu(e) y = MatMul(f, v2) }"""


def test_copies_of_a_weight_are_cut_alike(tmp_path: Path) -> None:
    _, written, folder = plans(COPIED, {"w": (6, 8), "v": (8, 6), "k": (8,)}, tmp_path)
    assert set(written.keep) == {"w", "v", "k"}
    assert not written.derived
    assert len(load(folder / "model.onnx").graph.nodes) == 7


def test_copies_of_zeros_are_cut_each_in_its_way(tmp_path: Path) -> None:
    text = """t (float[2,6] x) => (float[2,6] y) {
        a = MatMul(x, w) a2 = Add(a, k) b = Relu(a2) c = MatMul(b, v) k2 = Identity(k)
        d = MatMul(c, u) e = Add(d, k2) f = Relu(e) y = MatMul(f, z) }"""
    shapes = {"w": (6, 8), "v": (8, 6), "u": (6, 8), "z": (8, 6)}
    proto = model_of(text, {**shapes, "k": (8,)})
    zero = next(t for t in proto.graph.initializer if t.name == "k")
    zero.CopyFrom(onnx.numpy_helper.from_array(np.zeros(8, np.float32), "k"))
    onnx.save(proto, tmp_path / "model.onnx")
    coupling = couple(load(tmp_path / "model.onnx").twin)
    assert len(coupling.free()) == 3


def test_what_the_plan_names_gives_the_pruned_weights_when_the_file_is_sliced(tmp_path: Path) -> None:
    _, written, folder = plans(TRANSPOSED, {"w": (8, 6), "v": (8, 3)}, tmp_path)
    original, pruned = (
        {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(folder / f"{name}.onnx").graph.initializer}
        for name in ("model", "pruned")
    )
    assert np.array_equal(original["w"].take(written.keep["w"][0], axis=0).T, pruned["t"])


def test_a_weight_made_of_itself_again_and_again_is_followed_once(tmp_path: Path) -> None:
    """Every step reads what was before it twice: 2⁶⁰ paths lead to the weight of the file."""
    steps = " ".join(f"n{i} = Neg(u{i}) u{i + 1} = Max(u{i}, n{i})" for i in range(60))
    text = f"t (float[2,6] x) => (float[2,3] y) {{ u0 = Neg(w) {steps} a = MatMul(x, u60)" + SECOND
    _, written, _ = plans(text, {"w": (6, 8), "v": (8, 3)}, tmp_path)
    assert written.derived["u60"].sources == ("w",)
