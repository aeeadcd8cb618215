"""Dynamic sizes: nothing that depends on them is taken for a constant, and verify looks at other sizes too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from halpc.errors import ModelError, VerificationError
from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from halpc.ir.plan import Plan
from passes.couple import couple
from passes.load import load
from passes.loading import fitting
from passes.proto import proto_of
from passes.runtime import session_of
from passes.slim import plan_for, slim
from passes.verify import verify
from tests.passes.patterns import model_of

PADDED = """padded (float[N,3,H,W] x) => (float[N,2,A,B] y)
    <int64[1] at = {2}, int64[1] stride = {32}, int64[6] none = {0,0,0,0,0,0}> {
        a = Conv(x, w)
        s = Shape(x)
        h = Gather(s, at)
        missing = Mod(h, stride)
        pads = Concat<axis=0>(none, missing, missing)
        wide = Pad(a, pads)
        y = Conv(wide, v)
    }"""
ATTENTION = """attention (float[N,8,H,W] x) => (float[N,8,T] y)
    <int64[3] flat = {0,8,-1}> {
        tokens = Reshape(x, flat)
        keys = Transpose<perm=[0,2,1]>(tokens)
        scores = MatMul(keys, tokens)
        shares = Softmax(scores)
        y = MatMul(tokens, shares)
    }"""


def pruned(folder: Path) -> tuple[Model, Coupling, Plan, onnx.ModelProto]:
    path = folder / "model.onnx"
    onnx.save(model_of(PADDED, {"w": (8, 3, 1, 1), "v": (2, 8, 3, 3)}), path)
    model = load(path)
    coupling = couple(model.twin)
    plan = plan_for(model, coupling, {n: np.arange(g.size) % 2 == 0 for n, g in coupling.free().items()})
    return model, coupling, plan, proto_of(slim(model, coupling, plan), model.header)


def test_padding_that_is_zero_at_whole_strides_stays_computed(tmp_path: Path) -> None:
    model, coupling, plan, small = pruned(tmp_path)
    assert verify(model, coupling, plan, small).passed
    assert plan.keep["w"][0].size == 4
    odd = {"x": np.zeros((1, 3, 37, 32), np.float32)}
    assert session_of(small, optimise=False).run(None, odd)[0].shape == (1, 2, 40, 35)


def test_a_size_below_zero_is_an_open_one(tmp_path: Path) -> None:
    """As PaddlePaddle's exporter writes it, and onnxruntime reads it: it stays open in the slim model."""
    proto = model_of("""g (float[1,3,4,A] x) => (float[1,2,4,A] y) { a = Conv(x, w) r = Relu(a) y = Conv(r, v) }""",
                     {"w": (8, 3, 1, 1), "v": (2, 8, 1, 1)})  # fmt: skip
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[3].dim_value = -1
    onnx.save(proto, tmp_path / "model.onnx")
    model = load(tmp_path / "model.onnx")
    assert model.dynamic == {"x": (3,)}
    coupling = couple(model.twin)
    plan = plan_for(model, coupling, {n: np.arange(g.size) % 2 == 0 for n, g in coupling.free().items()})
    small = proto_of(slim(model, coupling, plan), model.header)
    assert verify(model, coupling, plan, small).passed
    for size in (5, 224):
        feeds = {"x": np.ones((1, 3, 4, size), np.float32)}
        assert session_of(small, optimise=False).run(None, feeds)[0].shape == (1, 2, 4, size)


def test_a_slim_model_that_is_right_at_one_size_only_fails_verification(tmp_path: Path) -> None:
    model, coupling, plan, small = pruned(tmp_path)
    small.graph.initializer.append(numpy_helper.from_array(np.zeros(8, np.int64), "no pads"))
    next(node for node in small.graph.node if node.op_type == "Pad").input[1] = "no pads"
    with pytest.raises(VerificationError, match="differs from the masked original"):
        verify(model, coupling, plan, small)


def test_assumed_sizes_shrink_until_every_tensor_fits(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model_of(ATTENTION, {}), path)
    assert load(path).shapes == {"x": (1, 8, 56, 56)}
    assert load(path, shapes={"x": (1, 8, 128, 96)}).shapes == {"x": (1, 8, 128, 96)}


SHIFTED = """shifted (float[N,4,L] x) => (float[N,2,M] y)
    <int64[1] start = {-3}, int64[1] end = {-1}, int64[1] channels = {1}, int64[1] along = {2}, int64[1] first = {-8}> {
        a = Conv(x, w)
        few = Slice(a, first, end, channels)
        head = Slice(few, start, end, along)
        y = Conv(head, v)
    }"""
FOUND = """found (float[1,3,6,6] x) => (float[K,4] y)
    <int64[1] last = {1}, int64[2] flat = {0,-1}, float limit = {0.5}, int64[1] width = {8}> {
        a = Conv(x, w)
        b = Relu(a)
        large = Greater(x, limit)
        places = NonZero(large)
        size = Shape(places)
        count = Gather(size, last)
        shape = Concat<axis=0>(count, width)
        pooled = GlobalAveragePool(b)
        row = Reshape(pooled, flat)
        rows = Expand(row, shape)
        y = MatMul(rows, v)
    }"""
LINE = """line (float[N,3,H,W] x) => (float[N,2,46,T] y)
    <int64[4] lines = {0,2,46,-1}> {
        a = Conv(x, w)
        b = Conv(a, v)
        y = Reshape(b, lines)
    }"""
OPEN = """open (float[SHAPE] x) => (float[RESULT] y) {
        a = FIRST(x, w)
        b = Relu(a)
        y = SECOND(b, v)
    }"""
LONG = """long (float[N,1,L] x) => (float[N,2,M] y) {
        a = Conv<strides=[16]>(x, w)
        b = Relu(a)
        y = Conv(b, v)
    }"""


PARTED = """parted (float[N,3,H,W] x) => (float[N,2,H,W] y)
    <int64[1] width = {8}> {
        a = Conv(x, w)
        s = Shape(x)
        n, c, h, t = Split<axis=0>(s)
        size = Concat<axis=0>(n, width, h, t)
        e = Expand(b, size)
        z = Add(a, e)
        y = Conv(z, v)
    }"""


def halved(folder: Path, text: str, weights: dict[str, tuple[int, ...]]) -> tuple[Model, Plan, onnx.ModelProto]:
    """Every other channel of every free group removed, and verified."""
    path = folder / "model.onnx"
    onnx.save(model_of(text, weights), path)
    model = load(path)
    coupling = couple(model.twin)
    plan = plan_for(model, coupling, {n: np.arange(g.size) % 2 == 0 for n, g in coupling.free().items()})
    small = proto_of(slim(model, coupling, plan), model.header)
    assert verify(model, coupling, plan, small).passed
    return model, plan, small


def test_bounds_that_count_from_the_end_still_do(tmp_path: Path) -> None:
    _, plan, small = halved(tmp_path, SHIFTED, {"w": (10, 4, 1), "v": (2, 7, 1)})
    assert plan.keep["w"][0].size < 10
    (y,) = session_of(small, optimise=False).run(None, {"x": np.zeros((1, 4, 9), np.float32)})
    assert y.shape == (1, 2, 2)


def test_what_counts_things_found_in_the_data_stays_computed(tmp_path: Path) -> None:
    _, plan, small = halved(tmp_path, FOUND, {"w": (8, 3, 1, 1), "v": (8, 4)})
    assert plan.keep["w"][0].size == 4
    session = session_of(small, optimise=False)
    for count in (0, 1, 7):
        x = np.zeros((1, 3, 6, 6), np.float32)
        x.reshape(-1)[:count] = 1
        assert session.run(None, {"x": x})[0].shape == (count, 4)


STATE = """state (float[N,L] x, float[1,B,8] h) => (float[T,1,B,8] y)
    <int64[1] one = {1}> {
        u = Unsqueeze(x, one)
        c = Conv<strides=[16]>(u, w)
        t = Transpose<perm=[2,0,1]>(c)
        y = GRU<hidden_size=8>(t, g, r, , , h)
    }"""
STATE_WEIGHTS = {"w": (6, 1, 100), "g": (1, 24, 6), "r": (1, 24, 8)}


@pytest.mark.parametrize("batch", ["N", "?", "B"])
def test_sizes_grow_but_not_the_batch_of_a_state(tmp_path: Path, batch: str) -> None:
    text = STATE.replace("[1,B,8] h", f"[1,{batch},8] h").replace("[T,1,B,8]", "[T,1,?,8]")
    path = tmp_path / "model.onnx"
    onnx.save(model_of(text, STATE_WEIGHTS), path)
    assert load(path).shapes == {"x": (1, 128), "h": (1, 1, 8)}
    assert load(path, batch=3).shapes == {"x": (3, 128), "h": (1, 3, 8)}


def test_a_given_shape_settles_the_axes_that_are_called_the_same(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model_of(STATE.replace("B", "N"), STATE_WEIGHTS), path)
    assert load(path, shapes={"x": (2, 160)}).shapes == {"x": (2, 160), "h": (1, 2, 8)}


def test_an_output_that_is_declared_again_without_a_shape_keeps_its_shape(tmp_path: Path) -> None:
    proto = model_of(SHIFTED, {"w": (10, 4, 1), "v": (2, 7, 1)})
    again = proto.graph.value_info.add(name="y")
    again.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(proto, tmp_path / "model.onnx")
    model = load(tmp_path / "model.onnx")
    onnx.checker.check_model(proto_of(model.graph, model.header))


def test_a_split_of_a_shape_of_which_some_is_constant_keeps_its_places(tmp_path: Path) -> None:
    _, plan, small = halved(tmp_path, PARTED, {"w": (8, 3, 1, 1), "b": (1, 8, 1, 1), "v": (2, 8, 1, 1)})
    assert plan.keep["w"][0].size == 4
    (y,) = session_of(small, optimise=False).run(None, {"x": np.zeros((2, 3, 5, 7), np.float32)})
    assert y.shape == (2, 2, 5, 7)


LEFT_OVER = """left_over (float[1,3,6,6] x) => (float[1,2,h,6] y)
    <int64 one = {1}, int64 two = {2}, int64[1] zero = {0}, int64[8] turned = {0,1,2,3,4,5,7,6},
     int64[7] front = {0,0,0,0,0,0,0}> {
        a = Conv(x, w)
        found = NonZero(x)
        shape = Shape(found)
        count = Gather(shape, one)
        size = Shape(x)
        height = Gather(size, two)
        twice = Add(height, height)
        left = Sub(count, twice)
        behind = Unsqueeze(left, zero)
        pads = Concat<axis=0>(front, behind)
        order = Gather(pads, turned)
        b = Pad(a, order)
        y = Conv(b, v)
    }"""


def test_a_folded_scalar_stays_a_scalar(tmp_path: Path) -> None:
    """Height is folded, the count of things found is not: their difference is unsqueezed once, to one axis."""
    _, plan, small = halved(tmp_path, LEFT_OVER, {"w": (8, 3, 1, 1), "v": (2, 8, 1, 1)})
    assert plan.keep["w"][0].size == 4
    x = np.zeros((1, 3, 6, 6), np.float32)
    x.reshape(-1)[:14] = 1
    assert session_of(small, optimise=False).run(None, {"x": x})[0].shape == (1, 2, 8, 6)


def test_assumed_sizes_grow_until_every_kernel_fits(tmp_path: Path) -> None:
    model, plan, _ = halved(tmp_path, LONG, {"w": (8, 1, 400), "v": (2, 8, 3)})
    assert model.shapes == {"x": (1, 1, 512)}
    assert plan.keep["w"][0].size == 4


def test_a_size_that_the_model_insists_on_is_found_among_the_usual_ones(tmp_path: Path) -> None:
    model, plan, _ = halved(tmp_path, LINE, {"w": (8, 3, 3, 3), "v": (2, 8, 1, 1)})
    assert model.shapes == {"x": (1, 3, 48, 48)}
    assert plan.keep["w"][0].size == 4


def test_sizes_that_nobody_gave_do_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No size fits: what is tried stays small, and the refusal is that of the first."""
    tried: list[int] = []

    def known_at(graph: object, shapes: dict[str, tuple[int, ...]]) -> None:
        tried.append(int(np.prod(shapes["x"])))
        raise ModelError(f"none at {shapes}")

    monkeypatch.setattr(fitting, "_known_at", known_at)
    with pytest.raises(ModelError, match="224, 224"):
        halved(tmp_path, LINE, {"w": (8, 3, 3, 3), "v": (2, 8, 1, 1)})
    assert len(tried) > 5
    assert max(tried) <= 1 << 23


@pytest.mark.parametrize(
    "layer, shape, weight",
    [
        ("Conv <group = 2>", "N,C,H,W", (8, 3, 3, 3)),
        ("MatMul", "N,T,C", (6, 8)),
        ("Gemm", "N,C", (6, 8)),
        ("Gemm <transB = 1>", "N,C", (8, 6)),
    ],
)
def test_the_first_layer_settles_how_many_channels_an_open_axis_has(
    layer: str, shape: str, weight: tuple[int, ...], tmp_path: Path
) -> None:
    second = {"Conv": (2, 8, 1, 1), "MatMul": (8, 2), "Gemm": (8, 2)}[layer.split()[0]]
    text = OPEN.replace("SHAPE", shape).replace("RESULT", shape.replace("C", "D").replace("H", "A").replace("W", "B"))
    text = text.replace("FIRST", layer).replace("SECOND", layer.split()[0])
    model, plan, small = halved(tmp_path, text, {"w": weight, "v": second})
    assert model.shapes["x"][1 if len(weight) == 4 or "Gemm" in layer else 2] == 6
    assert any(kept.size < 8 for kept in plan.keep["w"].values())
    assert [d.dim_param for d in small.graph.input[0].type.tensor_type.shape.dim] == shape.split(",")
