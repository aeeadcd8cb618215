"""Backward elimination of channels when the layers that read them are refitted, from Gram matrices alone.

Taking the features R away from a layer with weights W and (regularised) second moments G, and refitting what is left,
costs tr(W_R' S W_R) with S = ((G⁻¹)_RR)⁻¹, the part of R that the other features cannot predict. Weights and
inverse are then updated in closed form, and the next channels are judged on what is left:

    W ← W − G⁻¹_R S W_R          G⁻¹ ← G⁻¹ − G⁻¹_R S G⁻¹_R'

Source: Hassibi and Stork 1993 (Optimal Brain Surgeon); Kurtic, Frantar and Alistarh 2023 (ZipLM, arXiv 2302.04089).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Array = NDArray[np.float64]
CHUNK_BYTES = 64 << 20


@dataclass(slots=True)
class Reader:
    """A layer (or one group of a grouped one) that reads the channels being eliminated.

    Attributes:
        inverse: float64[k, k], inverse of its inputs' regularised second moments.
        weights: float64[k, outputs], as refitted so far.
        features: int64[channels, r], the inputs that go with each channel.
        scale: what one unit of squared error counts: 1 / variance of what the layer contributes to.
    """

    inverse: Array
    weights: Array
    features: NDArray[np.int64]
    scale: float

    @classmethod
    def build(
        cls, moments: Array, weights: Array, features: NDArray[np.int64], variance: float, damping: float
    ) -> Reader:
        """From second moments float64[k, k]; `damping` is in units of their mean diagonal."""
        lifted = moments.copy()
        size = len(lifted)
        lifted.flat[:: size + 1] += max(damping * float(np.trace(lifted)) / size, 1e-30)
        inverse = linalg.inv(lifted, overwrite_a=True, check_finite=False)
        return cls((inverse + inverse.T) / 2, weights.copy(), features, 1.0 / max(variance, 1e-30))

    def costs(self, channels: NDArray[np.int64]) -> Array:
        """What taking away each of `channels` alone would cost: float64[len(channels)]."""
        result = np.empty(len(channels))
        reach, outputs = self.features.shape[1], self.weights.shape[1]
        step = max(1, CHUNK_BYTES // (8 * reach * (reach + 2 * outputs)))
        for start in range(0, len(channels), step):
            features = self.features[channels[start : start + step]]
            block = self.inverse[features[:, :, np.newaxis], features[:, np.newaxis]]
            weights = self.weights[features]
            solved = np.linalg.solve(block, weights)
            result[start : start + step] = np.einsum("crm,crm->c", weights, solved)
        return np.maximum(result, 0.0) * self.scale

    def take(self, channels: NDArray[np.int64]) -> float:
        """Takes `channels` away, refits, and gives what that cost."""
        gone = self.features[channels].reshape(-1)
        weights, columns = self.weights[gone], self.inverse[:, gone]
        solved = linalg.solve(columns[gone], np.concatenate([weights, columns.T], axis=1), assume_a="pos")
        outputs = weights.shape[1]
        cost = float(np.einsum("rm,rm->", weights, solved[:, :outputs]))
        self.weights -= columns @ solved[:, :outputs]
        self.inverse -= columns @ solved[:, outputs:]
        self._compact(gone)
        return max(cost, 0.0) * self.scale

    def _compact(self, gone: NDArray[np.int64]) -> None:
        stays = np.ones(len(self.weights), dtype=np.bool_)
        stays[gone] = False
        self.inverse = self.inverse[np.ix_(stays, stays)]
        self.weights = self.weights[stays]
        places = np.cumsum(stays) - 1
        self.features = np.where(stays[self.features], places[self.features], -1)


@dataclass(frozen=True, slots=True)
class Elimination:
    """The order in which channels go, and what has been lost by then.

    Attributes:
        order: int64[size], the channel that goes first comes first.
        loss: float64[size + 1], what is lost when that many channels are gone and all readers are refitted.
    """

    order: NDArray[np.int64]
    loss: Array

    @property
    def curve(self) -> Array:
        """float64[size + 1]: value kept by the best 0, 1, … channels, zero at 0 and not falling."""
        return np.asarray(np.maximum.accumulate(self.loss[-1] - self.loss[::-1]))

    @property
    def scores(self) -> Array:
        """float64[size] whose k largest are the channels that stay at width k and sum, nearly, to `curve[k]`.

        The increments of the loss are made monotone along the order (the loss' convex minorant), so that the sum is
        never more than the curve's concave majorant says.
        """
        increments = monotone(np.maximum(np.diff(self.loss), 0.0))
        tilt = 1.0 + 1e-9 * np.arange(len(increments))  # equal increments must still sort in this order
        result = np.empty(len(increments))
        result[self.order] = np.maximum(increments, 1e-300) * tilt
        return result


def monotone(values: Array) -> Array:
    """The nearest not falling sequence in least squares: neighbours that fall are pooled (isotonic regression)."""
    pools: list[tuple[float, int]] = []
    for value in values.tolist():
        total, count = value, 1
        while pools and pools[-1][0] * count > total * pools[-1][1]:
            other, more = pools.pop()
            total, count = total + other, count + more
        pools.append((total, count))
    return np.concatenate([np.full(count, total / count) for total, count in pools] or [np.zeros(0)])


def eliminate(readers: Sequence[Reader], size: int, *, share: float = 1 / 24) -> Elimination:
    """Greedy backward elimination of `size` channels that `readers` read.

    Args:
        share: of the channels still there, how many go between two looks at the costs (at least one).
    """
    left = np.arange(size)
    order, loss = list[int](), [0.0]
    while len(left):
        costs = np.sum([reader.costs(left) for reader in readers], axis=0)
        count = max(1, int(len(left) * share))
        chosen = np.argsort(costs, kind="stable")[:count]
        going = left[chosen]
        cost = sum(reader.take(going) for reader in readers)
        parts = costs[chosen] + 1e-12 * (costs[chosen].sum() + 1e-300)
        loss += (loss[-1] + cost * np.cumsum(parts) / max(float(parts.sum()), 1e-300)).tolist()
        order += going.tolist()
        left = np.delete(left, chosen)
    return Elimination(np.array(order, dtype=np.int64), np.array(loss))
