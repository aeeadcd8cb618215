"""A cost model: what stages between `profile` and `select` hand on for one resource."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from halpc.ir.problem import Charge, Resource, Widths


@dataclass(frozen=True, slots=True)
class CostModel:
    """One resource as a function of the groups' widths.

    Attributes:
        name: `latency`, `macs`, `params`, `peak-memory`.
        unit: `ms`, `MACs`, …
        fixed: what no width changes.
        charges: what widths change.
        steps: latency-aware group size per group name, where it was detected.
        scale: factor on everything, from what was measured end to end.
    """

    name: str
    unit: str
    fixed: float
    charges: tuple[Charge, ...]
    steps: Mapping[str, int] = field(default_factory=dict)
    scale: float = 1.0

    def at(self, widths: Widths) -> float:
        """Predicted cost at `widths`, in the unit."""
        return self.scale * (self.fixed + float(sum(float(c.at(widths)) for c in self.charges)))

    def resource(self, limit: float) -> Resource:
        """As a limited resource; the scale is taken out of the limit."""
        return Resource(self.name, self.unit, limit / self.scale, self.fixed, self.charges)

    def corrected(self, widths: Widths, measured: float) -> CostModel:
        """The same model, scaled so that it predicts at `widths` what was measured there."""
        return replace(self, scale=self.scale * measured / max(self.at(widths), 1e-300))
