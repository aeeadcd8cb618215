"""Importance from activations: the cost of elimination is the loss of the refit, and scores choose nested sets."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from halpc.ir.dims import Leaf, Product, Sum
from passes.calibration import calibrate_from
from passes.data_score import Kind, ScoreOptions, score_from_data
from passes.recovery.unrecoverable import Elimination, Reader, eliminate, monotone
from passes.recovery.uses import positions_of, uses_of

RANDOM = np.random.default_rng(4)


def _reader(x: np.ndarray, weights: np.ndarray, taps: int) -> Reader:
    channels = x.shape[1] // taps
    features = np.arange(channels)[:, None] + channels * np.arange(taps)
    return Reader.build(x.T @ x / len(x), weights, features, 1.0, 1e-12)


def _loss(x: np.ndarray, weights: np.ndarray, kept: np.ndarray) -> float:
    target = x @ weights
    fitted = np.linalg.lstsq(x[:, kept], target, rcond=None)[0] if len(kept) else np.zeros((0, weights.shape[1]))
    return float(np.square(target - x[:, kept] @ fitted).sum() / len(x))


@pytest.mark.parametrize("share", [1e-9, 0.4])
@pytest.mark.parametrize("taps", [1, 3])
def test_loss_is_that_of_the_refitted_layer(taps: int, share: float) -> None:
    x = RANDOM.normal(size=(400, 6 * taps)) @ RANDOM.normal(size=(6 * taps, 6 * taps))
    weights = RANDOM.normal(size=(6 * taps, 4))
    found = eliminate([_reader(x, weights, taps)], 6, share=share)
    steps = range(7) if share < 0.1 else (0, 2, 6)
    for gone in steps:
        channels = np.sort(found.order[gone:])
        kept = (channels[:, None] + 6 * np.arange(taps)).reshape(-1)
        assert found.loss[gone] == pytest.approx(_loss(x, weights, kept), rel=1e-5, abs=1e-7)


def test_the_cheapest_single_channel_goes_first() -> None:
    x, weights = RANDOM.normal(size=(400, 8)) @ RANDOM.normal(size=(8, 8)), RANDOM.normal(size=(8, 3))
    alone = [_loss(x, weights, np.delete(np.arange(8), channel)) for channel in range(8)]
    assert eliminate([_reader(x, weights, 1)], 8).order[0] == int(np.argmin(alone))


def test_a_duplicate_costs_nothing() -> None:
    x = RANDOM.normal(size=(400, 4))
    found = eliminate([_reader(np.hstack([x, x[:, :1]]), RANDOM.normal(size=(5, 3)), 1)], 5)
    assert found.order[0] in (0, 4)
    assert found.loss[1] < 1e-6 * found.loss[-1]


def test_readers_share_one_order() -> None:
    x, weights = RANDOM.normal(size=(400, 6)), RANDOM.normal(size=(6, 3))
    one = eliminate([_reader(x, weights, 1)], 6)
    two = eliminate([_reader(x, weights, 1), _reader(x, weights, 1)], 6)
    np.testing.assert_array_equal(one.order, two.order)
    np.testing.assert_allclose(two.loss, 2 * one.loss, rtol=1e-6)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30))
def test_pooled_increments_do_not_fall_and_keep_their_sum(values: list[float]) -> None:
    pooled = monotone(np.array(values))
    assert (np.diff(pooled) >= -1e-9).all()
    assert pooled.sum() == pytest.approx(sum(values), abs=1e-6)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30), st.randoms())
def test_the_best_scores_are_the_channels_that_stay(increments: list[float], random: object) -> None:
    order = np.random.default_rng(len(increments)).permutation(len(increments))
    found = Elimination(order, np.concatenate([[0.0], np.cumsum(increments)]))
    for width in range(len(increments) + 1):
        best = np.argsort(-found.scores, kind="stable")[:width]
        assert set(best.tolist()) == set(order[len(increments) - width :].tolist())
    assert (np.diff(found.curve) >= 0).all()
    assert found.curve[0] == 0


def test_positions_follow_sums_and_products() -> None:
    a, b = Leaf("a", 2), Leaf("b", 3)
    assert positions_of(Sum((b, a)), "a", 2) is not None
    np.testing.assert_array_equal(positions_of(Sum((b, a)), "a", 2), [[3], [4]])
    np.testing.assert_array_equal(positions_of(Sum((a, a)), "a", 2), [[0, 2], [1, 3]])
    np.testing.assert_array_equal(positions_of(Product((a, b)), "a", 2), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(positions_of(Product((a, b)), "b", 3), [[0, 3], [1, 4], [2, 5]])
    assert positions_of(a, "b", 3) is None


BODY = """u = Conv(x, a)
    r = Relu(u)
    d = Conv<group=8, pads=[1,1,1,1]>(r, e)
    y = Conv<pads=[1,1,1,1]>(d, b)"""


def _model() -> onnx.ModelProto:
    text = f"""<ir_version: 9, opset_import: ["" : 17]> g (float[N,3,8,8] x) => (float[N,5,8,8] y) {{ {BODY} }}"""
    model = onnx.parser.parse_model(text)
    first = RANDOM.normal(size=(8, 3, 1, 1))
    first[6] = 2 * first[1]
    e = np.zeros((8, 1, 3, 3))
    e[:, :, 1, 1] = 1
    weights = {"a": first, "e": e, "b": RANDOM.normal(size=(5, 8, 3, 3))}
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    return model


@pytest.mark.parametrize("unknowns", [2400, 10])
def test_a_channel_that_others_predict_is_worth_nothing(unknowns: int) -> None:
    model, leaf = _model(), Leaf("g", 8)
    axes = {("u", 1): leaf, ("r", 1): leaf, ("d", 1): leaf, ("a", 0): leaf, ("e", 0): leaf, ("b", 1): leaf}
    uses = uses_of(model, axes, {"g": 8})
    assert [use.layer.output for use in uses["g"]] == ["y"]
    calibration = calibrate_from({"x": RANDOM.normal(size=(64, 3, 8, 8)).astype(np.float32)}, model)
    options = ScoreOptions(unknowns=unknowns, damping=1e-6)
    lost = score_from_data(model, uses, calibration, "unrecoverable", options=options)["g"]
    assert int(np.argmin(lost.scores)) in (1, 6)
    assert lost.scores.min() < 1e-3 * np.median(lost.scores)
    energy = score_from_data(model, uses, calibration, "energy", options=options)["g"]
    assert energy.scores.min() > 1e-2 * np.median(energy.scores)
    assert lost.curve.shape == energy.curve.shape == (9,)


@pytest.mark.parametrize("kind", ["energy", "unrecoverable"])
def test_a_loss_counts_more_the_fewer_refits_are_behind_it(kind: Kind) -> None:
    text = """<ir_version: 9, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,3] y) {
        u = MatMul(x, a)
        v = MatMul(u, b)
        y = MatMul(v, c)
    }"""
    model = onnx.parser.parse_model(text)
    for name, shape in {"a": (4, 6), "b": (6, 5), "c": (5, 3)}.items():
        model.graph.initializer.append(numpy_helper.from_array(RANDOM.normal(size=shape).astype(np.float32), name))
    early, late = Leaf("early", 6), Leaf("late", 5)
    axes = {("u", 1): early, ("a", 1): early, ("b", 0): early, ("v", 1): late, ("b", 1): late, ("c", 0): late}
    uses = uses_of(model, axes, {"early": 6, "late": 5})
    calibration = calibrate_from({"x": RANDOM.normal(size=(64, 4)).astype(np.float32)}, model)
    plain, deep = (
        score_from_data(model, uses, calibration, kind, options=ScoreOptions(depth=depth)) for depth in (0.0, 1.5)
    )
    np.testing.assert_allclose(deep["early"].curve, plain["early"].curve, rtol=1e-6)
    np.testing.assert_allclose(deep["late"].curve, np.exp(1.5) * plain["late"].curve, rtol=1e-6)
