"""Refits behind an activation: plain where nothing is clipped, and never worse on what is fitted where it is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from passes.calibration import calibrate_from
from passes.recover import Options, recover
from passes.recovery.censored import Rows, refine
from passes.recovery.constants import Constants
from passes.recovery.gram import Moments, Normal
from passes.recovery.layers import Layer, make_layer
from passes.recovery.targets import own_target, with_activation
from tests.passes.slimming import cut

RANDOM = np.random.default_rng(8)
X = RANDOM.normal(size=(2, 500, 5)).astype(np.float32)
HIDDEN = RANDOM.normal(size=(2, 500, 6)).astype(np.float32)
Y = (X @ RANDOM.normal(size=(2, 5, 3)) + HIDDEN @ RANDOM.normal(size=(2, 6, 3)) - 1).astype(np.float32)
PRIOR = RANDOM.normal(size=(2, 5, 3))


def _setup(low: float, high: float) -> tuple[Rows, Normal]:
    rows, moments = Rows(), Moments.empty(np.zeros((2, 5)), np.zeros((2, 3)))
    moments.add(X, Y)
    for part in (0, 1):
        for piece in (slice(0, 200), slice(200, 500)):
            bounds = (np.full_like(Y[:, piece], end) for end in (low, high))
            rows.add(part, X[:, piece], Y[:, piece], *bounds)
    return rows, moments.about(mean=True)


def test_without_bounds_a_round_is_plain_least_squares() -> None:
    rows, normal = _setup(-np.inf, np.inf)
    plain = normal.ridge(PRIOR, 1e-3)
    ((weights, bias),) = refine(rows, normal, PRIOR, 1e-3, 0 * plain, normal.bias(0 * plain), 1)
    np.testing.assert_allclose(weights, plain, atol=1e-5)
    np.testing.assert_allclose(bias, normal.bias(plain), atol=1e-5)


def _censored_loss(weights: np.ndarray, bias: np.ndarray, low: float, high: float) -> float:
    """Squared error, one-sided where the target lies at or beyond a bound."""
    now = X @ weights + bias[:, None]
    short = np.where(low >= Y, np.maximum(now - low, 0), np.where(high <= Y, np.minimum(now - high, 0), now - Y))
    return float(np.square(short).mean(axis=1).sum())


@pytest.mark.parametrize("bounds", [(0.0, np.inf), (-1.0, 1.0), (-np.inf, 0.5)])
def test_each_round_lowers_the_censored_loss(bounds: tuple[float, float]) -> None:
    rows, normal = _setup(*bounds)
    plain = normal.ridge(PRIOR, 0.0)
    start = (plain, normal.bias(plain))
    steps = [start, *refine(rows, normal, PRIOR, 0.0, *start, 12)]
    losses = [_censored_loss(weights, bias, *bounds) for weights, bias in steps]
    assert (np.diff(losses) <= 1e-6).all()
    assert min(rows.error(*step) for step in steps) < 0.97 * rows.error(*start)
    assert all(rows.error(*step) <= loss + 1e-6 for step, loss in zip(steps, losses, strict=True))


def test_error_and_variance_are_of_the_clipped_outputs() -> None:
    rows, normal = _setup(0.0, 2.0)
    bias = normal.bias(PRIOR)
    outputs = np.clip(X @ PRIOR + bias[:, None], 0, 2)
    expected = np.square(outputs - np.clip(Y, 0, 2)).mean(axis=1).sum()
    assert rows.error(PRIOR, bias) == pytest.approx(expected, rel=1e-4)
    assert rows.variance() == pytest.approx(np.clip(Y, 0, 2).var(axis=1).sum(), rel=1e-4)


def _model(tail: str) -> onnx.ModelProto:
    body = f"u = Conv<pads=[1,1,1,1]>(x, a)\n r = Relu(u)\n v = Conv<pads=[1,1,1,1]>(r, b)\n {tail}"
    model = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["" : 17]> g (float[N,3,8,8] x) => (float[] y) {{ {body} }}"""
    )
    model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
    random = np.random.default_rng(6)
    values = {"a": random.normal(size=(10, 3, 3, 3)), "b": random.normal(size=(6, 10, 3, 3))}
    values |= {"low": np.zeros(()), "high": np.full((), 6.0)}
    values |= {
        "s": np.array([1.0, -1, 2, -2, 1, 1]),
        "t": random.normal(size=6),
        "m": random.normal(size=6),
        "k": np.ones(6),
    }
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    return model


TAILS = {
    "relu": ("y = Relu(v)", (0.0, np.inf), 0),
    "relu6": ("y = Clip(v, low, high)", (0.0, 6.0), 0),
    "half open": ("y = Clip(v, , high)", (-np.inf, 6.0), 0),
    "normalised": ("w = BatchNormalization(v, s, t, m, k)\n y = Relu(w)", (0.0, np.inf), 1),
    "sigmoid": ("y = Sigmoid(v)", None, 0),
}


@pytest.mark.parametrize("name", TAILS)
def test_the_activation_is_found(name: str) -> None:
    tail, clip, hops = TAILS[name]
    model = _model(tail)
    constants = Constants(model)
    layer = make_layer(model.graph.node[2], 2, constants)
    assert isinstance(layer, Layer)
    target = with_activation(own_target(layer), constants)
    assert target.clip == clip
    assert len(target.clip_hops) == hops


@pytest.mark.parametrize("name", ["relu", "normalised"])
def test_recovery_behind_an_activation_beats_plain_least_squares(name: str) -> None:
    model = _model(TAILS[name][0])
    kept = np.array([0, 1, 3, 5, 6])
    keep = {"a": {0: kept}, "b": {1: kept}}
    calibration = calibrate_from({"x": np.random.default_rng(7).normal(size=(96, 3, 8, 8)).astype(np.float32)}, model)
    slim = cut(model, keep)
    plain = recover(model, slim, keep, calibration, options=Options(rounds=0))
    found = recover(model, slim, keep, calibration, options=Options(rounds=8))
    assert found.error_after < plain.error_after < plain.error_before
