"""The oracle where networks select: near ties do not fool it, and no wrong model hides behind a choice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from halpc.errors import VerificationError
from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from halpc.ir.plan import Plan
from passes.couple import couple
from passes.load import load
from passes.proto import proto_of
from passes.slim import plan_for, slim
from passes.verify import verify
from tests.passes.patterns import model_of

DETECTOR = """detector (float[1,3,32,32] x) => (float[1,300,4] boxes, float[1,300] best)
    <int64[1] many = {300}, int64[3] tokens = {1,-1,1024}, int64[1] last = {2}, int64[3] wide = {1,1,12}> {
        near = Conv(x, near_w, near_b)
        seen = Relu(near)
        scored = Mul(seen, score_w)
        flat = Reshape(scored, tokens)
        turned = Transpose<perm=[0,2,1]>(flat)
        highest = ReduceSum<keepdims=0>(turned, last)
        best, index = TopK<axis=1>(highest, many)
        encoded = Conv(x, encoder_w)
        features = Relu(encoded)
        folded = Reshape(features, tokens)
        memory = Transpose<perm=[0,2,1]>(folded)
        at = Unsqueeze(index, last)
        everywhere = Tile(at, wide)
        queries = GatherElements<axis=1>(memory, everywhere)
        hidden = MatMul(queries, decoder_w)
        active = Relu(hidden)
        boxes = MatMul(active, box_w)
    }"""
DETECTOR_WEIGHTS = {"near_w": (48, 3, 3, 3), "near_b": (48,), "score_w": (1, 48, 1, 1), "encoder_w": (12, 3, 3, 3),
                    "decoder_w": (12, 20), "box_w": (20, 4)}  # fmt: skip
THRESHOLD = """threshold (float[2,3,4,4] x) => (float[2,2,4,4] y) <float limit = {0.25}> {
        a = Conv(x, a_w, a_b)
        b = Conv(a, b_w)
        c = Conv(x, c_w)
        high = Greater(b, limit)
        chosen = Where(high, c, b)
        y = Conv(chosen, y_w)
    }"""


def detector() -> onnx.ModelProto:
    """Scores so close that summation order swaps some of them; features that differ plainly."""
    model = model_of(DETECTOR.replace("Conv(x,", "Conv<pads=[1,1,1,1]>(x,"), DETECTOR_WEIGHTS)
    change(model, "near_w", lambda w: w * np.float32(1e-3))
    change(model, "near_b", lambda b: np.abs(b) + np.float32(1))
    return model


def change(model: onnx.ModelProto, name: str, how: Callable[[np.ndarray], np.ndarray]) -> None:
    """An initializer, changed in place."""
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(how(numpy_helper.to_array(tensor).copy())), name))


def pruned(model: onnx.ModelProto, folder: Path) -> tuple[Model, Coupling, Plan, onnx.ModelProto]:
    path = folder / "model.onnx"
    onnx.save(model, path)
    loaded = load(path)
    coupling = couple(loaded.twin)
    plan = plan_for(loaded, coupling, {n: np.arange(g.size) % 3 != 1 for n, g in coupling.free().items()})
    return loaded, coupling, plan, proto_of(slim(loaded, coupling, plan), loaded.header)


def test_near_ties_before_a_topk_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pruned(detector(), tmp_path)
    assert {"near_w", "score_w", "decoder_w", "box_w"} <= set(made[2].keep)
    result = verify(*made)
    assert [s.node.split("_")[0] for s in result.selections] == ["TopK"]
    assert result.max_relative_error < 1e-5
    assert result.selections[0].error < 1e-5
    monkeypatch.setattr("passes.verify.cuts_of", lambda model: ())
    with pytest.raises(VerificationError):
        verify(*made)


@pytest.mark.parametrize(
    "name, axis", [("near_w", 0), ("score_w", 1), ("encoder_w", 0), ("decoder_w", 1), ("box_w", 0)]
)
def test_a_wrong_slice_before_or_behind_a_topk_is_refused(name: str, axis: int, tmp_path: Path) -> None:
    loaded, coupling, plan, proto = pruned(detector(), tmp_path)
    change(proto, name, lambda w: np.roll(w, 1, axis))
    with pytest.raises(VerificationError, match="TopK" if name in ("near_w", "score_w") else "differs from"):
        verify(loaded, coupling, plan, proto)


@pytest.mark.parametrize("attribute, value", [("largest", 0), ("sorted", 0), ("axis", 0)])
def test_a_node_that_selects_otherwise_is_refused(attribute: str, value: int, tmp_path: Path) -> None:
    loaded, coupling, plan, proto = pruned(detector(), tmp_path)
    node = next(n for n in proto.graph.node if n.op_type == "TopK")
    kept = [a for a in node.attribute if a.name != attribute]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(attribute, value)])
    if attribute == "sorted":
        change(proto, "many", lambda k: k - 1)
    with pytest.raises(VerificationError):
        verify(loaded, coupling, plan, proto)


def test_a_threshold_on_channels_that_go_is_judged_on_those_that_stay(tmp_path: Path) -> None:
    weights = {"a_w": (8, 3, 1, 1), "a_b": (8,), "b_w": (12, 8, 1, 1), "c_w": (12, 3, 1, 1), "y_w": (2, 12, 1, 1)}
    model = model_of(THRESHOLD, weights)
    change(model, "a_w", lambda w: w * np.float32(1e-7))
    made = pruned(model, tmp_path)
    assert len(made[2].keep["b_w"]) == 2
    result = verify(*made)
    assert [s.node.split("_")[0] for s in result.selections] == ["Greater"]
    change(made[3], "b_w", lambda w: w[::-1])
    with pytest.raises(VerificationError, match="Greater"):
        verify(*made)


def test_a_weight_that_does_not_fit_is_a_verification_error(tmp_path: Path) -> None:
    loaded, coupling, plan, proto = pruned(detector(), tmp_path)
    change(proto, "decoder_w", lambda w: w[:-1])
    with pytest.raises(VerificationError, match="does not"):
        verify(loaded, coupling, plan, proto)


def test_choices_inside_a_loop_are_counted(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["more"], ["again"]),
            helper.make_node("Floor", ["state"], ["lower"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, 4]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("lower", TensorProto.FLOAT, [1, 4]),
        ],
    )
    model = model_of(
        "loop (float[1,6] x) => (float[1,4] y) <int64 twice = {2}> { a = MatMul(x, w) b = Relu(a) c = MatMul(b, v) }",
        {"w": (6, 8), "v": (8, 4)},
    )
    model.graph.node.append(helper.make_node("Loop", ["twice", "", "c"], ["y"], name="loop", body=body))
    assert verify(*pruned(model, tmp_path)).hidden_selections == 1


def test_a_quantised_activation_is_compared_before_it_is_rounded(tmp_path: Path) -> None:
    """Rounding turns a difference in the last place into a whole step, which other layers then carry on."""
    text = """rounded (float[1,3,6,6] x) => (float[1,2,6,6] y) <float step = {0.05}, int8 point = {3}> {
        a = Conv(x, a_w)
        q = QuantizeLinear(a, step, point)
        d = DequantizeLinear(q, step, point)
        y = Conv(d, y_w)
    }"""
    model, coupling, plan, small = pruned(model_of(text, {"a_w": (6, 3, 1, 1), "y_w": (2, 6, 1, 1)}), tmp_path)
    (selection,) = verify(model, coupling, plan, small).selections
    assert selection.operand == 0
    change(small, "a_w", lambda w: w + np.float32(1e-3) * np.abs(w).max())
    with pytest.raises(VerificationError, match="operand 0"):
        verify(model, coupling, plan, small)


def test_what_cancels_behind_a_choice_is_compared_without_holding(tmp_path: Path) -> None:
    """x less its own largest entry is exactly 0; less a held one, it is the difference in the last place."""
    text = """cancels (float[1,16,6,6] x) => (float[1,2,6,6] y, float[1,3,6,6] z) <int64[1] one = {1}> {
        a = Conv(x, a_w)
        b = Conv(a, b_w)
        highest, at = TopK<axis=1>(b, one)
        nothing = Sub(b, highest)
        y = Conv(nothing, y_w)
        z = Conv(a, z_w)
    }"""
    weights = {"a_w": (64, 16, 1, 1), "b_w": (1, 64, 1, 1), "y_w": (2, 1, 1, 1), "z_w": (3, 64, 1, 1)}
    model, coupling, plan, small = pruned(model_of(text, weights), tmp_path)
    assert verify(model, coupling, plan, small).passed
    change(small, "z_w", lambda w: np.roll(w, 1, 1))  # what cancels elsewhere excuses nothing here
    with pytest.raises(VerificationError, match="differs from"):
        verify(model, coupling, plan, small)


FADED = """faded (float[1,8,4,4] x) => (float[1,1,4,4] y) {
        a = Conv(x, a_w, a_b)
        b = Relu(a)
        p = Conv(b, p_w)
        q = Conv(b, q_w)
        less = Sub(p, q)
        y = Sign(less)
    }"""


def test_noise_is_seen_where_the_inputs_no_longer_reach(tmp_path: Path) -> None:
    """The biases alone are left, and two sums of them that nearly cancel: summation order shows, a nudge of x not."""
    model = model_of(FADED, {"a_w": (64, 8, 1, 1), "a_b": (64,), "p_w": (1, 64, 1, 1), "q_w": (1, 64, 1, 1)})
    change(model, "a_w", lambda w: w * np.float32(1e-12))
    change(model, "a_b", lambda b: np.abs(b) + np.float32(1))
    for name in ("p_w", "q_w"):
        change(model, name, lambda w: np.float32(1) + np.float32(3e-3) * w)
    loaded, coupling, plan, small = pruned(model, tmp_path)
    (selection,) = verify(loaded, coupling, plan, small).selections
    assert selection.error < selection.tolerance
    change(small, "a_b", lambda b: np.roll(b, 1))
    with pytest.raises(VerificationError, match="Sign"):
        verify(loaded, coupling, plan, small)


SQUASHED = """squashed (float[1,3,8,8] x) => (float[1,64] y)
    <int64[2] flat = {1,64}> {
        a = Conv(x, a_w, a_b)
        b = Relu(a)
        c = Conv(b, c_w, c_b)
        d = Sigmoid(c)
        y = Reshape(d, flat)
    }"""
SQUASHED_WEIGHTS = {"a_w": (48, 3, 1, 1), "a_b": (48,), "c_w": (1, 48, 1, 1), "c_b": (1,)}


def test_a_sigmoid_that_is_nearly_zero_is_compared_before_it_rounds(tmp_path: Path) -> None:
    proto = model_of(SQUASHED, SQUASHED_WEIGHTS)
    change(proto, "c_b", lambda b: b * 0 - np.float32(16))
    model, coupling, plan, small = pruned(proto, tmp_path)
    outputs = len(small.graph.output)
    assert verify(model, coupling, plan, small).max_relative_error < 1e-5
    assert len(small.graph.output) == outputs
    change(small, "c_w", lambda w: w * np.float32(1.1))
    with pytest.raises(VerificationError, match="differs from the masked original"):
        verify(model, coupling, plan, small)


@pytest.mark.parametrize("first, comparable", [("Sqrt(x)", True), ("Acosh(x)", False)])
def test_a_network_that_gives_numbers_on_positive_inputs_only_is_compared_on_such(
    first: str, comparable: bool, tmp_path: Path
) -> None:
    """Acosh has numbers from 1 on: nothing is compared on any inputs that are tried, and so nothing is verified."""
    text = f"""root (float[2,8] x) => (float[2,3] y) {{
        low = {first}
        a = MatMul(low, a_w)
        y = MatMul(a, b_w)
    }}"""
    made = pruned(model_of(text, {"a_w": (8, 12), "b_w": (12, 3)}), tmp_path)
    if not comparable:
        with pytest.raises(VerificationError, match=r"small positive numbers.* nothing can be compared"):
            verify(*made)
        return
    assert verify(*made).runs > 0
    change(made[3], "b_w", lambda b: b * np.float32(1.01))
    with pytest.raises(VerificationError, match="differs from the masked original"):
        verify(*made)
