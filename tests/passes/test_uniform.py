"""Constants of one value that a file holds once and several operands are: no layer is tied to another by them."""

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
from tests.corpus.oracle import judge
from tests.passes.patterns import model_of

KERNELS = {"w": (8, 3, 3, 3), "v": (8, 8, 3, 3), "u": (4, 8, 3, 3)}
CONV = "Conv<kernel_shape=[3,3],pads=[1,1,1,1]>"
NORMED = f"""t (float[1,3,6,6] x) => (float[1,4,6,6] y) {{
    a = {CONV}(x, w) b = InstanceNormalization(a, one, zero) c = {CONV}(b, v)
    d = InstanceNormalization(c, one, zero) y = {CONV}(d, u) }}"""
GROUPED = f"""t (float[1,3,6,6] x) => (float[1,4,6,6] y) <int64[3] apart = {{0,8,-1}}, int64[4] back = {{1,8,6,6}}> {{
    a = {CONV}(x, w) r = Reshape(a, apart) b = InstanceNormalization(r, one, zero) s = Reshape(b, back)
    c = {CONV}(s, v) q = Reshape(c, apart) d = InstanceNormalization(q, one, zero) p = Reshape(d, back)
    y = {CONV}(p, u) }}"""
STANDARD = f"""t (float[1,3,6,6] x) => (float[1,4,6,6] y) {{
    a = {CONV}(x, w) b = BatchNormalization(a, one, zero, zero, one) c = {CONV}(b, v)
    d = BatchNormalization(c, one, zero, zero, one) y = {CONV}(d, u) }}"""
FOLDED_TOO = f"""t (float[1,3,6,6] x) => (float[1,4,6,6] y) <int64[4] tall = {{1,8,1,1}}> {{
    a = {CONV}(x, w) b = InstanceNormalization(a, one, zero) o = Reshape(one, tall) e = Add(b, o) c = {CONV}(e, v)
    d = InstanceNormalization(c, one, zero) y = {CONV}(d, u) }}"""


def written(text: str, folder: Path) -> onnx.ModelProto:
    proto = model_of(text, KERNELS)
    for name, value in (("one", 1.0), ("zero", 0.0)):
        proto.graph.initializer.append(numpy_helper.from_array(np.full(8, value, np.float32), name))
    onnx.save(proto, folder / "model.onnx")
    return proto


@pytest.mark.parametrize("text", [NORMED, GROUPED, STANDARD, FOLDED_TOO], ids=["norm", "group", "batch", "folded"])
def test_each_layer_is_as_wide_as_it_wants_and_the_plan_speaks_of_weights(text: str, tmp_path: Path) -> None:
    written(text, tmp_path)
    model = load(tmp_path / "model.onnx")
    coupling = couple(model.twin)
    free = coupling.free()
    assert len(free) == 2
    rng = np.random.default_rng(0)
    plan = plan_for(model, coupling, {n: rng.permutation(g.size) < 3 + i for i, (n, g) in enumerate(free.items())})
    said = in_the_files_words(model, plan)
    assert {"w", "v", "u"} <= set(said.keep)
    assert not {"one", "zero"} & set(said.keep)
    (tmp_path / "plan.json").write_text(json.dumps(said.as_json()))
    onnx.save(proto_of(slim(model, coupling, plan), model.header), tmp_path / "pruned.onnx")
    judged = judge(tmp_path / "model.onnx", tmp_path / "plan.json", tmp_path / "pruned.onnx")
    assert judged.sound
    assert judged.moved > 0


def test_what_is_not_masked_does_not_count_as_zero(tmp_path: Path) -> None:
    """A shared offset stays in the masked original, so what it is added to may not leave a sum without weights."""
    text = f"""t (float[1,3,6,6] x) => (float[1,1,6,6] y) <int64[4] tall = {{1,8,1,1}}, int64[1] axis = {{1}}> {{
        a = {CONV}(x, w) o = Reshape(one, tall) e = Add(a, o) f = Add(e, o) y = ReduceSum(f, axis) }}"""
    written(text, tmp_path)
    assert not couple(load(tmp_path / "model.onnx").twin).free()


def test_a_weight_that_is_no_uniform_constant_stays_tied(tmp_path: Path) -> None:
    proto = written(NORMED, tmp_path)
    scale = next(t for t in proto.graph.initializer if t.name == "one")
    scale.CopyFrom(numpy_helper.from_array(np.linspace(1, 2, 8, dtype=np.float32), "one"))
    onnx.save(proto, tmp_path / "model.onnx")
    assert len(couple(load(tmp_path / "model.onnx").twin).free()) == 1
