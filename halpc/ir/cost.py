"""A cost model: what stages between `profile` and `select` hand on for one resource."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halpc.ir.problem import Charge, CostFunction, Resource, Widths
from halpc.ir.response import AS_GIVEN, Response

_TINY = 1e-30  # of a sum that is not positive: whatever it is, the cost is above zero


@dataclass(frozen=True, slots=True)
class CostModel:
    """One resource as a function of the groups' widths: `scale · response(sum + more · max(0, sum - knee))`.

    The sum is that of fixed part and charges. Beyond the knee kernels hinder each other: the more a network moves, the
    less of it the caches hold. What else is in them changes from minute to minute: that is the response, of the moment.
    Being monotone all of that leaves the constraint a sum, which is all that selection can use.

    Attributes:
        name: `latency`, `macs`, `params`, `peak-memory`.
        unit: `ms`, `MACs`, …
        fixed: what no width changes.
        charges: what widths change.
        steps: latency-aware group size per group name, where it was detected.
        scale: factor on everything, from what was measured end to end.
        knee, more: from which sum on every part of it costs how much more; `more` is above -1.
        response: what the machine makes of it at the moment, without `scale`.
    """

    name: str
    unit: str
    fixed: float
    charges: tuple[Charge, ...]
    steps: Mapping[str, int] = field(default_factory=dict)
    scale: float = 1.0
    knee: float = 0.0
    more: float = 0.0
    response: Response = AS_GIVEN

    def at(self, widths: Widths) -> float:
        """Predicted cost at `widths`, in the unit."""
        return self.scale * self.response.at(self.bent(widths))

    def bent(self, widths: Widths) -> float:
        """What the response is of: the sum, and what is added to it beyond the knee."""
        total = max(self._sum(widths), _TINY)
        return total + self.more * max(0.0, total - self.knee)

    def resource(self, limit: float) -> Resource:
        """As a limited resource, in the unit: what it says of widths is exact for those that reach the limit."""
        most = self._sum_of(limit) if math.isfinite(limit) else max(self._sum({}), _TINY)
        cost = limit if math.isfinite(limit) else self.at({})
        unit = self.scale if self._plain or most <= 0 else cost / most
        if unit == 1.0:
            return Resource(self.name, self.unit, limit, self.fixed, self.charges)
        charges = tuple(Charge(c.name, c.axes, Times(unit, c.cost)) for c in self.charges)
        return Resource(self.name, self.unit, limit, unit * self.fixed, charges)

    def resources(self, limit: float, met: Iterable[Widths] = ()) -> tuple[Resource, ...]:
        """What limits the choice; the same whatever widths were met."""
        return (self.resource(limit),)

    def corrected(self, widths: Widths, measured: float) -> CostModel:
        """The same model, scaled so that it predicts at `widths` what was measured there."""
        return replace(self, scale=self.scale * measured / max(self.at(widths), _TINY))

    def through(self, wide: Widths, wide_ms: float, narrow: Widths, narrow_ms: float) -> CostModel:
        """The same charges, with a factor and a fixed part by which it predicts what was measured at two widths."""
        sums = [self._sum_of(ms) for ms in (wide_ms, narrow_ms)]
        charged = [self._sum(widths) - self.fixed for widths in (wide, narrow)]
        factor = (sums[0] - sums[1]) / max(charged[0] - charged[1], _TINY)
        charges = tuple(Charge(c.name, c.axes, Times(factor, c.cost)) for c in self.charges)
        return replace(self, charges=charges, fixed=sums[0] - factor * charged[0])

    def parts(self, widths: Widths) -> NDArray[np.float64]:
        """float64[1 + charges]: what adds up to the sum at `widths`, the fixed part first."""
        return np.array([self.fixed, *(float(c.at(widths)) for c in self.charges)])

    @property
    def _plain(self) -> bool:
        """Whether the cost is proportional to the sum."""
        return self.more == 0 and not self.response.given

    def _sum(self, widths: Widths) -> float:
        return float(self.parts(widths).sum())

    def _sum_of(self, cost: float) -> float:
        """The sum at which the cost is `cost`."""
        total = self.response.inverse(cost / self.scale)
        return total if total <= self.knee else (total + self.more * self.knee) / (1 + self.more)


@dataclass(frozen=True, slots=True)
class Times:
    """A cost function times a factor."""

    factor: float
    cost: CostFunction

    def __call__(self, *widths: Any) -> NDArray[np.float64]:
        return self.factor * self.cost(*widths)


@dataclass(frozen=True, slots=True)
class Proportional:
    """Cost = coefficient × the product of the axes' widths."""

    coefficient: float

    def __call__(self, *widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """float64 of the widths' broadcast shape."""
        result: NDArray[np.float64] = np.asarray(self.coefficient, dtype=np.float64)
        for width in widths:
            result = result * width.astype(np.float64)
        return result
