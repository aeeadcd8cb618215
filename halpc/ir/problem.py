"""The selection problem: what stages before `select` hand to it, and what it hands back.

    maximise   Σ_g value_g[w_g]                         over one admissible width w_g per group
    subject to fixed_r + Σ_c cost_c(widths of its axes) ≤ limit_r     for every resource r

A charge's axes are dims over group names, so one cost may depend on a sum of many groups (a convolution
fed by a concat) or on a product of two (heads × dims).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from halpc.ir.dims import Dim, width
from halpc.units import spell_bytes, spell_count, spell_ms

Widths: TypeAlias = Mapping[str, int]
CostFunction: TypeAlias = Callable[..., NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Choice:
    """The admissible widths of one group and what each is worth.

    Attributes:
        name: the group's (leaf's) name.
        widths: int64[n], strictly ascending; 0 only where the group may vanish.
        value: float64[n], what is kept at each width (unit of the importance); need not be monotone.
        step: latency-aware group size in channels (the plateau length of the layers it feeds), ≥ 1.
        scores: float64[size], each channel's importance in descending order, for the papers' item-wise solvers.
    """

    name: str
    widths: NDArray[np.int64]
    value: NDArray[np.float64]
    step: int = 1
    scores: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, slots=True)
class Charge:
    """What one kernel costs at given widths of its axes.

    Attributes:
        name: the kernel's name.
        axes: dims over group names; leaves that are no choice are constants of their size.
        cost: takes one int64 array per axis, broadcastable against each other, gives float64 of the broadcast shape.
    """

    name: str
    axes: tuple[Dim, ...]
    cost: CostFunction

    def at(self, widths: Mapping[str, int | NDArray[np.int64]]) -> NDArray[np.float64]:
        """Cost at `widths` of the groups: float64 of their broadcast shape."""
        return self.cost(*(np.asarray(width(axis, widths), dtype=np.int64) for axis in self.axes))


@dataclass(frozen=True, slots=True)
class Resource:
    """One budget: `fixed` plus the charges must stay at or under `limit` (all in `unit`)."""

    name: str
    unit: str
    limit: float
    fixed: float
    charges: tuple[Charge, ...]

    def spent(self, widths: Widths) -> float:
        """What `widths` cost, the fixed part included."""
        return self.fixed + float(sum(float(charge.at(widths)) for charge in self.charges))

    def spell(self, amount: float) -> str:
        """An amount of it for people."""
        if self.unit in ("ms", "bytes"):
            return spell_ms(amount) if self.unit == "ms" else spell_bytes(amount)
        return f"{spell_count(amount)} {self.unit}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Groups to choose widths for, and the resources that limit them."""

    choices: tuple[Choice, ...]
    resources: tuple[Resource, ...]

    def value(self, widths: Widths) -> float:
        """Importance kept at `widths`."""
        return float(sum(c.value[int(np.searchsorted(c.widths, widths[c.name]))] for c in self.choices))

    def feasible(self, widths: Widths) -> bool:
        """Whether `widths` are within every limit."""
        return all(resource.spent(widths) <= resource.limit for resource in self.resources)


@dataclass(frozen=True, slots=True)
class Step:
    """Why a group stopped where it did: what one latency step more would buy and cost.

    `next_width` is the first admissible width at the end of the next step, or the widest; None where it is that.
    """

    group: str
    width: int
    next_width: int | None
    gain: float
    cost: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Selection:
    """What a solver found.

    Attributes:
        widths: one admissible width per group.
        value: importance kept.
        spent: per resource, in its unit.
        bound: no feasible choice keeps more than this (inf when the solver proves nothing).
        prices: Lagrange multiplier per resource, importance per unit; empty when the solver has none.
        bound_means: one sentence on what the bound is a bound of.
        steps: per group, what one step more would buy and cost.
        solver: name of the solver.
        seconds: wall time it took.
    """

    widths: Widths
    value: float
    spent: Mapping[str, float]
    bound: float
    prices: Mapping[str, float]
    bound_means: str
    steps: tuple[Step, ...]
    solver: str
    seconds: float

    @property
    def gap(self) -> float:
        """(bound − value) / |bound|: an upper limit on what was lost to the optimum."""
        return (self.bound - self.value) / max(abs(self.bound), 1e-300)
