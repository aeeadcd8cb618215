"""moment: what the state of the machine at the moment makes of predictions.

A table is of the moments in which it was taken. What other tenants of the host leave of its caches changes from minute
to minute, and networks feel that by how large they are: one that just fitted does not any more, where small and very
large ones hardly notice. So some calibration networks, small and large, are measured again, and the ratio of what they
take now to what is predicted of them is smoothed over the latency: a Gaussian process around its median.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), equation 2.25.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from halpc.ir.cost import CostModel
from halpc.ir.response import Response
from halpc.ir.table import NetworkSample

REFERENCES: Final = 8
_REACH: Final = 0.6  # of a logarithm of the latency, over which ratios are alike
_SPREAD: Final = 0.05  # how far ratios are from their median
_NOISE: Final = 0.02  # of one ratio: the network is off its prediction in its own way, and measured with some noise
_KNOTS: Final = 24
_BEYOND: Final = 1.5  # the curve goes on to so many times the largest reference
_RISE: Final = 1e-3  # of what is given, that is taken at least from one knot to the next


def references(context: Sequence[NetworkSample], most: int) -> list[NetworkSample]:
    """Calibration networks to measure again, from the fastest to the slowest at equal distances in logarithms.

    Args:
        context: all of them.
        most: that memory bears; at least one is taken.
    """
    by_time = sorted(context, key=lambda network: network.ms)
    logs = np.log([network.ms for network in by_time])
    places = np.linspace(logs[0], logs[-1], max(1, min(REFERENCES, most)))
    chosen = {int(np.argmin(np.abs(logs - place))) for place in places}
    return [by_time[i] for i in sorted(chosen)]


def at_the_moment(cost: CostModel, known: Sequence[NetworkSample], now_ms: Sequence[float]) -> CostModel:
    """The latency model with the response of the moment.

    Args:
        cost: as it was fitted.
        known: networks that it was fitted to.
        now_ms: what these take now.
    """
    given = np.array([cost.bent(network.widths) for network in known])
    ratios = np.log(now_ms) - np.log(cost.scale * given)
    knots = np.geomspace(given.min() / _BEYOND, given.max() * _BEYOND, _KNOTS)
    taken = knots * np.exp(_smoothed(np.log(given), ratios, np.log(knots)))
    rising = np.maximum.accumulate(taken - _RISE * knots) + _RISE * knots
    return replace(cost, response=Response(tuple(knots.tolist()), tuple(rising.tolist())))


def _smoothed(at: NDArray[np.float64], ratios: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[places]: the posterior mean of a Gaussian process around the median of the ratios."""
    middle = float(np.median(ratios))

    def like(a: NDArray[np.float64], b: NDArray[np.float64]) -> Any:
        return _SPREAD**2 * np.exp(-0.5 * np.square((a[:, None] - b[None, :]) / _REACH))

    weights = np.linalg.solve(like(at, at) + _NOISE**2 * np.eye(len(at)), ratios - middle)
    return np.asarray(middle + like(places, at) @ weights)
