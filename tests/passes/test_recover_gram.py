"""The refit is least squares: the same answer as numpy.linalg.lstsq, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from passes.recovery.gram import Moments

RANDOM = np.random.default_rng(11)
X = (RANDOM.normal(size=(2, 300, 7)) @ RANDOM.normal(size=(7, 7)) + 3).astype(np.float32)
Y = (X @ RANDOM.normal(size=(2, 7, 4)) + 0.3 * RANDOM.normal(size=(2, 300, 4)) - 5).astype(np.float32)
PRIOR = RANDOM.normal(size=(2, 7, 4))


def _moments(cuts: list[int], shift: float = 0.0) -> Moments:
    moments = Moments.empty(np.full((2, 7), shift), np.full((2, 4), -shift))
    for x, y in zip(np.split(X, cuts, axis=1), np.split(Y, cuts, axis=1), strict=True):
        moments.add(x, y)
    return moments


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("shift", [0.0, 2.5])
def test_refit_equals_lstsq(mean: bool, shift: float) -> None:
    normal = _moments([100, 101], shift).about(mean=mean)
    weights = normal.ridge(PRIOR, 0.0)
    bias = normal.bias(weights) if mean else np.zeros((2, 4))
    for group in range(2):
        design = np.hstack([X[group], np.ones((300, 1))]) if mean else X[group].astype(np.float64)
        expected = np.linalg.lstsq(design.astype(np.float64), Y[group].astype(np.float64), rcond=None)[0]
        np.testing.assert_allclose(weights[group], expected[:7], atol=1e-5)
        if mean:
            np.testing.assert_allclose(bias[group], expected[7], atol=1e-4)


@pytest.mark.parametrize("strength", [1e-3, 1.0])
def test_ridge_equals_lstsq_with_rows_for_the_prior(strength: float) -> None:
    normal = _moments([]).about(mean=False)
    weights = normal.ridge(PRIOR, strength)
    for group in range(2):
        x, y = X[group].astype(np.float64), Y[group].astype(np.float64)
        scale = np.sqrt(strength * np.square(x).sum() / 7)
        design = np.vstack([x, scale * np.eye(7)])
        expected = np.linalg.lstsq(design, np.vstack([y, scale * PRIOR[group]]), rcond=None)[0]
        np.testing.assert_allclose(weights[group], expected, atol=1e-5)


def test_a_strong_ridge_leaves_the_prior() -> None:
    np.testing.assert_allclose(_moments([]).about(mean=True).ridge(PRIOR, 1e9), PRIOR, atol=1e-6)


@pytest.mark.parametrize("mean", [True, False])
def test_error_from_moments_is_the_mean_squared_error(mean: bool) -> None:
    bias = RANDOM.normal(size=(2, 4)) * mean
    expected = np.square(X @ PRIOR + bias[:, None] - Y).mean(axis=1)
    np.testing.assert_allclose(_moments([40], 1.0).about(mean=mean).error(PRIOR, bias), expected, rtol=1e-5)


@pytest.mark.parametrize("cuts", [[1], [50, 100, 250], list(range(1, 300))])
def test_moments_do_not_depend_on_the_batches(cuts: list[int]) -> None:
    whole, parts = _moments([]).about(mean=True), _moments(cuts).about(mean=True)
    np.testing.assert_allclose(parts.xx, whole.xx, rtol=1e-9)
    np.testing.assert_allclose(parts.xy, whole.xy, rtol=1e-9, atol=1e-9)


def test_dependent_inputs_are_solved_all_the_same() -> None:
    x: NDArray[np.float32] = np.concatenate([X, X], axis=2)
    moments = Moments.empty(np.zeros((2, 14)), np.zeros((2, 4)))
    moments.add(x, Y)
    normal = moments.about(mean=True)
    weights = normal.ridge(np.zeros((2, 14, 4)), 1e-9)
    best = _moments([]).about(mean=True)
    ideal = best.ridge(PRIOR, 0.0)
    error, least = normal.error(weights, normal.bias(weights)), best.error(ideal, best.bias(ideal))
    np.testing.assert_allclose(error, least, rtol=1e-4)
