"""Refits that know of the activation behind them.

Where the original's output lies below zero and a Relu follows, any output below zero is as good. Plain least squares
spends its freedom on such values all the same. Here they are *censored*: a target beyond the activation's bound is
replaced by what the layer gives, or by the bound if the layer is on the wrong side of it, and the layer is
fitted again. Each round lowers the censored loss, which is convex and an upper bound on the error behind the
activation; the best round is chosen by that error itself, on inputs held back.

Source: Tobin 1958 (censored regression); Zhang et al. 2015 (arXiv 1505.06798, nonlinear responses).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from passes.recovery.gram import Array, Normal, factored

Rows32 = NDArray[np.float32]


@dataclass(slots=True)
class Rows:
    """Rows of one layer kept in memory, those to fit on ([0]) apart from those held back ([1]).

    Per batch: inputs float32[groups, n, unknowns] less `centre`, targets and bounds float32[groups, n, outputs].
    """

    parts: tuple[list[tuple[Rows32, ...]], list[tuple[Rows32, ...]]] = field(default_factory=lambda: ([], []))
    centre: Rows32 | None = None

    def add(self, part: int, *rows: Rows32) -> None:
        """Takes in one batch: inputs, targets, lower bounds, upper bounds."""
        x, *others = rows
        if self.centre is None:
            self.centre = x.mean(axis=1, keepdims=True)
        self.parts[part].append((x - self.centre, *others))

    def absorb(self, weights: Array, bias: Array) -> tuple[Rows32, Rows32]:
        """Weights, and the bias that goes with centred inputs, float32[groups, 1, outputs]."""
        assert self.centre is not None
        return weights.astype(np.float32), (bias[:, np.newaxis] + self.centre @ weights).astype(np.float32)

    def error(self, weights: Array, bias: Array) -> float:
        """Squared error per row of the clipped outputs, on what was held back, summed over outputs."""
        total, count = 0.0, 0
        w, b = self.absorb(weights, bias)
        for x, y, low, high in self.parts[1]:
            difference = np.clip(x @ w + b, low, high) - np.clip(y, low, high)
            total += float(np.square(difference, dtype=np.float64).sum())
            count += x.shape[1]
        return total / max(count, 1)

    def variance(self) -> float:
        """Variance of the clipped targets, on what was held back, summed over outputs."""
        clipped = np.concatenate([np.clip(y, low, high) for _, y, low, high in self.parts[1]], axis=1)
        return float(clipped.var(axis=1, dtype=np.float64).sum())


def refine(
    rows: Rows, normal: Normal, prior: Array, strength: float, weights: Array, bias: Array, rounds: int
) -> Iterator[tuple[Array, Array]]:
    """Weights and biases after each round, from those that plain least squares gave.

    Args:
        normal: of the same rows, about the mean.
        prior, strength: of the ridge, as in `Normal.ridge`.
    """
    solve = factored(normal, strength)
    pull = normal.xx @ prior
    for _ in range(rounds):
        xy, mean = _censored_moments(rows, normal, weights, bias)
        weights = prior + solve(xy - pull)
        bias = mean - np.einsum("gk,gkm->gm", normal.x, weights)
        yield weights, bias


def _censored_moments(rows: Rows, normal: Normal, weights: Array, bias: Array) -> tuple[Array, Array]:
    """Mean products of centred inputs with the censored targets, and the targets' means."""
    xy, total, count = np.zeros_like(weights), np.zeros_like(bias), 0
    w, b = rows.absorb(weights, bias)
    for x, y, low, high in rows.parts[0]:
        now = x @ w + b
        wanted = np.where(y <= low, np.minimum(now, low), np.where(y >= high, np.maximum(now, high), y))
        xy += x.transpose(0, 2, 1) @ wanted
        total += wanted.sum(axis=1, dtype=np.float64)
        count += x.shape[1]
    assert rows.centre is not None
    beyond = normal.x - rows.centre[:, 0]  # the mean, as seen from the centre
    mean = total / max(count, 1)
    return xy / max(count, 1) - beyond[:, :, np.newaxis] * mean[:, np.newaxis], mean
