"""Least squares from Gram matrices: streamed second moments, ridge solutions and what they leave unexplained.

Everything is batched over `groups`, the independent blocks of a grouped convolution (one for plain layers):
rows x in R^unknowns, targets y in R^outputs, and y ≈ W'x + b.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Array = NDArray[np.float64]
DOUBLE_FLOPS = 2e8  # below this, a batch's products are made in double precision: they cost nothing


@dataclass(slots=True)
class Moments:
    """Sums over samples of x, y and their products, shifted by a constant to avoid cancellation.

    Attributes:
        xx: float64[groups, unknowns, unknowns], Σ (x−s)(x−s)'.
        xy: float64[groups, unknowns, outputs], Σ (x−s)(y−t)'.
        yy: float64[groups, outputs], Σ (y−t)².
        x, y: float64[groups, ·], Σ (x−s) and Σ (y−t).
        shift_x, shift_y: float64[groups, ·], s and t; any value gives the same result but for rounding.
        count: number of rows.
    """

    xx: Array
    xy: Array
    yy: Array
    x: Array
    y: Array
    shift_x: Array
    shift_y: Array
    count: int = 0

    @classmethod
    def empty(cls, shift_x: Array, shift_y: Array) -> Moments:
        """No rows yet; the shifts float64[groups, ·] also give the sizes."""
        groups, unknowns = shift_x.shape
        outputs = shift_y.shape[1]
        return cls(
            np.zeros((groups, unknowns, unknowns)),
            np.zeros((groups, unknowns, outputs)),
            np.zeros((groups, outputs)),
            np.zeros((groups, unknowns)),
            np.zeros((groups, outputs)),
            shift_x,
            shift_y,
        )

    def add(self, rows: NDArray[np.float32], targets: NDArray[np.float32]) -> None:
        """Adds rows float32[groups, n, unknowns] with their targets float32[groups, n, outputs]."""
        groups, count, unknowns = rows.shape
        kind: Any = np.float64 if 2.0 * groups * count * unknowns**2 < DOUBLE_FLOPS else np.float32
        x: NDArray[Any] = rows.astype(kind) - self.shift_x.astype(kind)[:, np.newaxis]
        y: NDArray[Any] = targets.astype(kind) - self.shift_y.astype(kind)[:, np.newaxis]
        turned = x.transpose(0, 2, 1)
        self.xx += turned @ x
        self.xy += turned @ y
        self.yy += np.square(y, dtype=np.float64).sum(axis=1)
        self.x += x.sum(axis=1, dtype=np.float64)
        self.y += y.sum(axis=1, dtype=np.float64)
        self.count += count

    def about(self, *, mean: bool) -> Normal:
        """The normal equations per row: about the mean (a bias is fitted too), or about zero (it is not)."""
        n = max(self.count, 1)
        x, y = self.x / n, self.y / n
        xx, xy, yy = self.xx / n, self.xy / n, self.yy / n
        if mean:
            xx -= x[:, :, np.newaxis] * x[:, np.newaxis]
            xy -= x[:, :, np.newaxis] * y[:, np.newaxis]
            yy = yy - y * y
            return Normal(xx, xy, yy, x + self.shift_x, y + self.shift_y)
        s, t = self.shift_x, self.shift_y
        xx += _outer(s, x) + _outer(x, s) + _outer(s, s)
        xy += _outer(s, y) + _outer(x, t) + _outer(s, t)
        yy = yy + 2 * t * y + t * t
        return Normal(xx, xy, yy, np.zeros_like(s), np.zeros_like(t))


def _outer(a: Array, b: Array) -> Array:
    return a[:, :, np.newaxis] * b[:, np.newaxis]


@dataclass(frozen=True, slots=True)
class Normal:
    """Normal equations: mean products about (`x`, `y`), which are the means, or zero without a bias.

    Shapes: xx float64[groups, unknowns, unknowns], xy float64[groups, unknowns, outputs],
    yy and y float64[groups, outputs], x float64[groups, unknowns].
    """

    xx: Array
    xy: Array
    yy: Array
    x: Array
    y: Array

    def error(self, weights: Array, bias: Array) -> Array:
        """Mean squared error float64[groups, outputs] of y ≈ W'x + b; about zero, b must be zero."""
        inner = np.einsum("gkm,gkm->gm", weights, self.xx @ weights - 2 * self.xy)
        offset = self.y - np.einsum("gk,gkm->gm", self.x, weights) - bias
        return np.asarray(np.maximum(self.yy + inner, 0.0) + offset**2)

    def bias(self, weights: Array) -> Array:
        """The best bias float64[groups, outputs] for `weights`."""
        return np.asarray(self.y - np.einsum("gk,gkm->gm", self.x, weights))

    def ridge(self, prior: Array, strength: float) -> Array:
        """Weights float64[groups, unknowns, outputs] minimising Σ|y − W'x|²/n + strength · d · |W − prior|².

        d is the mean diagonal of `xx`, so that `strength` has no unit. As it grows the solution tends to the
        prior, the pruned weights themselves, not to zero.
        """
        return prior + factored(self, strength)(self.xy - self.xx @ prior)


def factored(normal: Normal, strength: float) -> Callable[[Array], Array]:
    """Solves (xx + strength · d) W = right for any right side float64[groups, unknowns, outputs]."""
    groups, unknowns = normal.x.shape
    mean_diagonal = np.einsum("gkk->g", normal.xx) / unknowns
    solvers = []
    for group in range(groups):
        lifted = normal.xx[group].copy()
        lifted.flat[:: unknowns + 1] += max(strength * mean_diagonal[group], 1e-30)
        solvers.append(_solver(lifted))
    return lambda right: np.stack([solve(block) for solve, block in zip(solvers, right, strict=True)])


def _solver(matrix: Array) -> Callable[[Array], Array]:
    """Solves a symmetric positive (semi)definite system; by least squares where rounding spoilt it."""
    try:
        factor = linalg.cho_factor(matrix, lower=True, check_finite=False)
    except linalg.LinAlgError:
        return lambda right: np.asarray(linalg.lstsq(matrix, right, check_finite=False)[0])
    return lambda right: np.asarray(linalg.cho_solve(factor, right, check_finite=False))
