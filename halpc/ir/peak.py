"""Peak memory: the largest of several sums, each of which limits selection on its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from halpc.ir.cost import CostModel, Proportional
from halpc.ir.dims import Dim
from halpc.ir.problem import Charge, Resource, Widths
from halpc.units import UNITS


@dataclass(frozen=True, slots=True)
class PeakModel:
    """Peak memory: the largest of the sums that live at each node.

    Attributes:
        nodes: where memory may be largest; any other node needs no more than one of these, whatever the widths.
        axes: per term, whose widths are multiplied.
        bytes: float64[nodes, terms], bytes of each term's unit product that live there.
        fixed: float64[nodes], bytes that no width changes.
    """

    nodes: tuple[str, ...]
    axes: tuple[tuple[Dim, ...], ...]
    bytes: NDArray[np.float64]
    fixed: NDArray[np.float64]
    name: str = "peak-memory"
    unit: str = UNITS["peak-memory"]

    def at(self, widths: Widths) -> float:
        """Bytes at the node that needs most."""
        return float(self._at(widths).max())

    def resources(self, limit: float, met: Iterable[Widths] = ()) -> tuple[Resource, ...]:
        """One resource per node that needs most at one of the widths `met`, and at full width."""
        worst = dict.fromkeys(int(self._at(widths).argmax()) for widths in ({}, *met))
        return tuple(self._moment(index).resource(limit) for index in worst)

    def _at(self, widths: Widths) -> NDArray[np.float64]:
        products = [float(Charge("", axes, Proportional(1.0)).at(widths)) for axes in self.axes]
        return np.asarray(self.fixed + self.bytes @ np.array(products, dtype=np.float64))

    def _moment(self, index: int) -> CostModel:
        charges = tuple(
            Charge(self.nodes[index], axes, Proportional(float(coefficient)))
            for axes, coefficient in zip(self.axes, self.bytes[index], strict=True)
            if coefficient
        )
        return CostModel(f"{self.name} at {self.nodes[index]}", self.unit, float(self.fixed[index]), charges)
