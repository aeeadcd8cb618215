"""calibrate: whole networks, slimmed to a designed set of width mixes, measured in context.

A kernel alone runs with other caches, other neighbours and other fusions than in its network, and nobody charges
it for what the runtime puts in between. So each kernel's cost in context is fitted as

    b · (cost alone) + v · (size of its result) + c        all of them ≥ 0

over the networks, `b` being drawn to what kernels of the same signature have, `v` and `c` to zero; and the whole
network's latency as the sum over its kernels, times a factor near one, plus what no width changes.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from halpc.ir.dims import Dim, width
from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from halpc.ir.problem import Charge, CostFunction, Widths
from halpc.ir.table import NetworkSample
from passes.latency.kernels import Kernel

log = logging.getLogger(__name__)

LOWEST: Final = 0.2
_PRIOR: Final = 2.0  # worth so many networks
_PRIOR_REST: Final = 0.5
_FACTOR_PRIOR: Final = 0.2
_LEAST_WEIGHED: Final = 0.2
_REWEIGHTINGS: Final = 10


def network_key(model: Model, coupling: Coupling) -> str:
    """Names a model by what its latency depends on: nodes, shapes and groups, not the values of its weights."""
    digest = hashlib.sha256()
    for node in model.twin.nodes:
        shapes = [(t.name, list(t.shape or ())) for t in node.outputs]
        digest.update(repr((node.name, node.op, shapes)).encode())
    for name, group in coupling.groups.items():
        digest.update(repr((name, group.size, group.pin is None)).encode())
    return digest.hexdigest()[:16]


def mixes(coupling: Coupling, count: int, grid: int, seed: int) -> list[dict[str, int]]:
    """`count` width mixes: the whole network, then random ones that cover small and large networks alike.

    Half of a group's width follows the network's own level, so that small networks occur, and half a level of its
    own from a Latin hypercube, so that every group is seen at every level and no two groups move together.
    """
    rng = np.random.default_rng(seed)
    free = coupling.free()
    strata = (np.arange(count) + 0.5) / count
    level = rng.permutation(strata)
    found: list[dict[str, int]] = []
    for index, overall in enumerate(level):
        mix: dict[str, int] = {}
        for i, (name, group) in enumerate(free.items()):
            own = np.random.default_rng((seed, i)).permutation(strata)[index]
            share = LOWEST + (1 - LOWEST) * (overall + own) / 2
            mix[name] = _aligned(share * group.size, grid, group.size)
        found.append(mix)
    return [{name: group.size for name, group in free.items()}, *found][:count]


def _aligned(size: float, grid: int, most: int) -> int:
    return int(min(most, max(grid, round(size / grid) * grid)))


@dataclass(frozen=True, slots=True)
class InContext:
    """One kernel's cost in its network: `b · alone + v · volume + c`, in ms.

    Attributes:
        alone: the kernel's own surface, or None where it was not measured alone.
        axes: how many of the charge's axes `alone` takes, the first ones.
        factors: which of the charge's axes make up the result's volume.
        b, v, c: what was fitted; `v` per unit of volume.
    """

    alone: CostFunction | None
    axes: int
    factors: tuple[int, ...]
    b: float
    v: float
    c: float

    def __call__(self, *widths: Any) -> NDArray[np.float64]:
        """Cost in ms: float64 of the widths' broadcast shape."""
        result: Any = np.full(np.broadcast_shapes(*(np.shape(w) for w in widths)), self.c)
        if self.alone is not None and self.b:
            result = result + self.b * self.alone(*widths[: self.axes])
        if self.v:
            volume: Any = 1.0
            for index in self.factors:
                volume = volume * np.asarray(widths[index], dtype=np.float64)
            result = result + self.v * volume
        return np.asarray(result, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Every kernel in context, and how they add up.

    Attributes:
        charges: one per kernel, the factor included.
        fixed: what no width changes, in ms.
        factor: of the sum of kernels, near one.
    """

    charges: tuple[Charge, ...]
    fixed: float
    factor: float

    def at(self, widths: Widths) -> float:
        """Predicted latency in ms."""
        return self.fixed + float(sum(float(charge.at(widths)) for charge in self.charges))


def calibrate(
    kernels: Sequence[Kernel], surfaces: Mapping[str, CostFunction], networks: Sequence[NetworkSample]
) -> Calibrated:
    """Fit kernels and their sum to networks measured in context.

    Args:
        kernels: all of the model's.
        surfaces: signature key → cost alone.
        networks: at least one; where they have no times of kernels, the sum alone is fitted.
    """
    alone = {k.name: _alone(k, surfaces, networks) for k in kernels}
    shared = _shared(kernels, alone, networks)
    costs = [_fit(k, surfaces.get(k.signature.key), alone[k.name], shared, networks) for k in kernels]
    still = sum(cost.c for cost in costs) + _unmoved(kernels, networks)
    charges = [
        Charge(k.name, _charged_axes(k) if c.v else k.axes, replace(c, c=0.0))
        for k, c in zip(kernels, costs, strict=True)
        if c.b or c.v
    ]
    sums = _over(networks, lambda widths: still + sum(charge.at(widths) for charge in charges))
    factor, rest = _line(sums, np.array([n.ms for n in networks]))
    scaled = tuple(Charge(c.name, c.axes, _Scaled(factor, c.cost)) for c in charges)
    return Calibrated(scaled, factor * still + rest, factor)


def _unmoved(kernels: Sequence[Kernel], networks: Sequence[NetworkSample]) -> float:
    """Time in ms of what no width changes: the median over the networks."""
    moved = {kernel.name for kernel in kernels}
    return float(np.median([sum(ms for name, ms in n.layers.items() if name not in moved) for n in networks]))


def _charged_axes(kernel: Kernel) -> tuple[Dim, ...]:
    """The axes of the kernel alone, then those of its result that are not among them."""
    return tuple(dict.fromkeys((*kernel.axes, *kernel.volume)))


@dataclass(frozen=True, slots=True)
class _Scaled:
    factor: float
    cost: CostFunction

    def __call__(self, *widths: Any) -> NDArray[np.float64]:
        return self.factor * self.cost(*widths)


def _over(networks: Sequence[NetworkSample], function: Callable[[Mapping[str, Any]], Any]) -> NDArray[np.float64]:
    """float64[networks]: a function of the groups' widths at every network's, in one call."""
    widths = {name: np.array([n.widths[name] for n in networks]) for name in networks[0].widths}
    return np.broadcast_to(np.asarray(function(widths), dtype=np.float64), (len(networks),))


def _alone(
    kernel: Kernel, surfaces: Mapping[str, CostFunction], networks: Sequence[NetworkSample]
) -> NDArray[np.float64]:
    """float64[networks]: what the kernel costs alone at each network's widths; zero where never measured alone."""
    cost = surfaces.get(kernel.signature.key)
    if cost is None:
        return np.zeros(len(networks))
    return _over(networks, lambda widths: cost(*(np.asarray(width(axis, widths)) for axis in kernel.axes)))


def _measured(kernel: Kernel, networks: Sequence[NetworkSample]) -> NDArray[np.float64]:
    """float64[networks]: what it took in context; NaN where a network was measured as a whole only."""
    return np.array([n.layers.get(kernel.name, 0.0) if n.layers else np.nan for n in networks])


def _shared(
    kernels: Sequence[Kernel], alone: Mapping[str, NDArray[np.float64]], networks: Sequence[NetworkSample]
) -> dict[str, float]:
    """Signature key → median of time in context over time alone, over all of its kernels; "" is over everything."""
    ratios: dict[str, list[float]] = {}
    for kernel in kernels:
        costs, times = alone[kernel.name], _measured(kernel, networks)
        good = (costs > 0) & (times > 0)
        for key in (kernel.signature.key, ""):
            ratios.setdefault(key, []).extend((times[good] / costs[good]).tolist())
    overall = float(np.median(ratios.get("") or [1.0]))
    return {key: float(np.median(found)) if found else overall for key, found in ratios.items()}


def _fit(
    kernel: Kernel,
    cost: CostFunction | None,
    alone: NDArray[np.float64],
    shared: Mapping[str, float],
    networks: Sequence[NetworkSample],
) -> InContext:
    """Least squares of relative errors, with the priors as further rows."""
    charged = _charged_axes(kernel)
    factors = tuple(charged.index(dim) for dim in kernel.volume)
    prior = shared.get(kernel.signature.key, shared[""])
    times = _measured(kernel, networks)
    good = np.isfinite(times) & (times > 0)
    if not good.any():
        return InContext(cost, len(kernel.axes), factors, prior if cost is not None else 0.0, 0.0, 0.0)
    volumes = _over(networks, lambda widths: math.prod((width(dim, widths) for dim in kernel.volume), start=1.0))
    scale = float(times[good].mean())
    typical = max(float(alone[good].mean()), 1e-9) if cost is not None else np.inf
    most = float(volumes.max())
    columns = np.column_stack([alone / typical, volumes / most, np.ones(len(networks))])[good]
    weight = 1 / np.maximum(times[good] / scale, _LEAST_WEIGHED)
    priors = np.diag([_PRIOR, _PRIOR_REST, _PRIOR_REST])
    drawn_to = [_PRIOR * prior * typical / scale if cost is not None else 0.0, 0.0, 0.0]
    rows, target = columns * weight[:, None], times[good] / scale * weight
    (b, v, c), _ = nnls(np.vstack([rows, priors]), np.concatenate([target, drawn_to]))
    return InContext(
        cost, len(kernel.axes), factors, float(b * scale / typical), float(v * scale / most), float(c * scale)
    )


def _line(sums: NDArray[np.float64], totals: NDArray[np.float64]) -> tuple[float, float]:
    """Factor and fixed part: totals ≈ factor · sums + fixed, by relative errors, robustly, the factor near one."""
    weight = 1 / totals
    trust = np.ones_like(totals)
    factor, fixed = 1.0, 0.0
    for _ in range(_REWEIGHTINGS):
        rows = np.column_stack([sums, np.full_like(sums, totals.mean())]) * (weight * trust)[:, None]
        prior = [[_FACTOR_PRIOR, 0.0]]
        solution, _ = nnls(np.vstack([rows, prior]), np.append(totals * weight * trust, _FACTOR_PRIOR))
        factor, fixed = float(solution[0]), float(solution[1] * totals.mean())
        errors = np.abs((factor * sums + fixed) / totals - 1)
        trust = np.sqrt(1 / np.maximum(1.0, errors / max(0.01, float(np.median(errors)))))
    return factor, fixed
