"""A monotone line with bends: how a whole network takes what its kernels take together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np


@dataclass(frozen=True, slots=True)
class Response:
    """A function from costs to costs that keeps their order, so that a limit on one is a limit on the other.

    Between knots it is straight, before the first and behind the last it has the ratio there.

    Attributes:
        given, taken: float[knots], all above zero, both strictly ascending; no knots: what is given is taken.
    """

    given: tuple[float, ...] = ()
    taken: tuple[float, ...] = ()

    def at(self, cost: float) -> float:
        """What is taken where `cost` is given."""
        return _through(self.given, self.taken, cost)

    def inverse(self, cost: float) -> float:
        """What is given where `cost` is taken."""
        return _through(self.taken, self.given, cost)

    def as_json(self) -> dict[str, object]:
        """Plain data for reports."""
        return {"given": list(self.given), "taken": list(self.taken)}


def _through(xs: tuple[float, ...], ys: tuple[float, ...], x: float) -> float:
    if not xs:
        return x
    if not xs[0] < x < xs[-1]:
        end = 0 if x <= xs[0] else -1
        return x * ys[end] / xs[end]
    return float(np.interp(x, xs, ys))


AS_GIVEN: Final = Response()
