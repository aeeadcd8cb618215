"""calibrate: whole networks, slimmed to a designed set of width mixes, measured in context.

A kernel alone runs with other caches, other neighbours and other fusions than in its network, and nobody charges
it for what the runtime puts in between. So each kernel's cost in context is fitted as

    b · (cost alone) + v · (size of its result) + w · (product of its axes, the size of its weights) + c

over the networks, all of them at least zero, `b` being drawn to what kernels of the same signature have, the others to
zero. Without channels a kernel takes nothing. The whole network's latency is the sum over its kernels and what no width
changes, plus a share of what is beyond a knee: a network that does not fit the caches any more finds less of itself
there from one run to the next.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from halpc.ir.cost import CostModel
from halpc.ir.dims import Dim, leaves, width
from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from halpc.ir.problem import Charge, CostFunction
from halpc.ir.table import NetworkSample
from halpc.units import UNITS
from passes.latency.kernels import Kernel
from passes.widths import grids

log = logging.getLogger(__name__)

LOWEST: Final = 0.2
_SPAN, _OWN = 1.2, 0.6  # how far the widths of mixes follow the network's level, and the group's own
_JITTER: Final = 0.15
_PRIOR: Final = 1.0  # weight of "as its kind" beside one network's
_PRIOR_REST: Final = 0.3
_LEAST_FACTOR: Final = 0.05  # kernels count, also where the networks' times do not follow their sum
_KNEES: Final = np.linspace(0, 60, 12)  # percentiles of the networks' sums, so that many are beyond
_PRIOR_LINE: Final = (1e-3, 0.02, 0.1)  # against a factor, a fixed part and a knee, in errors of one network
_LEAST_ERROR: Final = 0.01  # no network's error counts for more than the others' where all are this small
_OUTLIER: Final = 3.0  # times the median error
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


def mixes(coupling: Coupling, count: int, align: int, seed: int, levels: int = 0) -> list[dict[str, int]]:
    """`count` width mixes: the whole network, then random ones that cover small and large networks alike.

    A group's width follows the network's own level, from next to the narrowest to next to the whole, and a level of
    its own from a Latin hypercube, so that every group is seen at every level and no two groups move together.

    Args:
        levels: into how many parts widths are cut, 0: as finely as `align` allows.
    """
    rng = np.random.default_rng(seed)
    free, grid = coupling.free(), grids(coupling, align)
    strata = (np.arange(count) + 0.5) / count
    level = rng.permutation(strata)
    found: list[dict[str, int]] = []
    for index, overall in enumerate(level):
        mix: dict[str, int] = {}
        for i, (name, group) in enumerate(free.items()):
            own = np.random.default_rng((seed, i)).permutation(strata)[index]
            share = min(1.0, max(0.0, _SPAN * (overall - 0.5) + _OWN * (own - 0.5) + 0.5))
            mix[name] = _aligned((LOWEST + (1 - LOWEST) * share) * group.size, grid[name], group.size, levels)
        found.append(mix)
    return [{name: group.size for name, group in free.items()}, *found][:count]


def ramps(coupling: Coupling, count: int, align: int, seed: int, levels: int = 0) -> list[dict[str, int]]:
    """`count` width mixes that are narrow where an entry has many positions and full where it has few.

    So are the plans that budgets lead to: an early channel takes long and carries little, a late one the reverse. The
    first mix is narrow in the third with the most positions only (of three), the last everywhere but at the other end.
    """
    rng = np.random.default_rng(seed)
    free, grid, positions = coupling.free(), grids(coupling, align), _positions(coupling)
    found = []
    for reach in (np.arange(count) + 1) / count:
        order = sorted(free, key=lambda name: (-positions[name], rng.random()))
        places = (np.arange(len(order)) + 0.5) / len(order)
        shares = LOWEST + (1 - LOWEST) * places / reach + rng.uniform(-_JITTER, _JITTER, len(order))
        found.append({
            name: _aligned(max(share, LOWEST) * free[name].size, grid[name], free[name].size, levels)
            for name, share in zip(order, shares, strict=True)
        })  # fmt: skip
    return found


def without(
    coupling: Coupling, vanishing: Collection[str], count: int, align: int, seed: int, levels: int = 0
) -> list[dict[str, int]]:
    """`count` width mixes that lack branches: some of those that may vanish, then more, at last all of them."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(sorted(vanishing)).tolist()
    drawn = mixes(coupling, count + 1, align, seed + 1, levels)[1:]
    return [mix | dict.fromkeys(order[: math.ceil(len(order) * (i + 1) / count)], 0) for i, mix in enumerate(drawn)]


def _positions(coupling: Coupling) -> dict[str, int]:
    """Group name → how many entries a channel of it has in the largest tensor that it is an axis of, weights apart."""
    shapes: dict[str, dict[int, Dim]] = {}
    for (tensor, axis), dim in coupling.axes.items():
        shapes.setdefault(tensor, {})[axis] = dim
    for member in (member for group in coupling.groups.values() for member in group.members):
        shapes.pop(member.tensor, None)
    found = dict.fromkeys(coupling.groups, 1)
    for dims in shapes.values():
        size = math.prod(dim.size for dim in dims.values())
        for dim in dims.values():
            for leaf in leaves(dim):
                found[leaf.name] = max(found.get(leaf.name, 1), size // max(dim.size, 1))
    return found


def _aligned(size: float, grid: int, most: int, levels: int = 0) -> int:
    if levels:
        size = most * max(1, round(levels * size / most)) / levels
    return int(min(most, max(grid, round(size / grid) * grid)))


@dataclass(frozen=True, slots=True)
class InContext:
    """One kernel's cost in its network: `b · alone + v · volume + w · product of its axes + c` in ms; 0 at width 0.

    Attributes:
        alone: the kernel's own surface, or None where it was not measured alone.
        axes: how many of the charge's axes `alone` takes, the first ones.
        factors: which of the charge's axes make up the result's volume.
        b, v, w, c: what was fitted; `v` per unit of volume, `w` per unit of the product.
    """

    alone: CostFunction | None
    axes: int
    factors: tuple[int, ...]
    b: float
    v: float
    w: float
    c: float

    @property
    def moves(self) -> bool:
        """Whether it depends on how wide its axes are."""
        return bool(self.b or self.v or self.w)

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
        if self.w:
            product: Any = 1.0
            for size in widths[: self.axes]:
                product = product * np.asarray(size, dtype=np.float64)
            result = result + self.w * product
        for size in widths[: self.axes]:
            result = np.where(np.asarray(size) > 0, result, 0.0)
        return np.asarray(result, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Every kernel in context, and how they add up.

    Attributes:
        charges: one per kernel that widths change.
        fixed: what no width changes, in ms.
        scale, knee, more: of their sum (`halpc.ir.cost`).
    """

    charges: tuple[Charge, ...]
    fixed: float
    scale: float
    knee: float
    more: float

    def cost(self, steps: Mapping[str, int]) -> CostModel:
        """As a cost model in ms."""
        return CostModel("latency", UNITS["latency"], self.fixed, self.charges, steps, self.scale, self.knee, self.more)


def calibrate(
    kernels: Sequence[Kernel],
    surfaces: Mapping[str, CostFunction],
    networks: Sequence[NetworkSample],
    present: Callable[[CostModel], CostModel] = lambda cost: cost,
) -> Calibrated:
    """Fit kernels and their sum to networks measured in context.

    Args:
        kernels: all of the model's.
        surfaces: signature key → cost alone.
        networks: at least one; where they have no times of kernels, the sum alone is fitted.
        present: charges part of what is fixed to the presence of branches (`passes.latency.vanishing`).
    """
    networks = _levelled(networks)
    alone = {k.name: _alone(k, surfaces, networks) for k in kernels}
    shared = _shared(kernels, alone, networks)
    costs = [_fit(k, surfaces.get(k.signature.key), alone[k.name], shared, networks) for k in kernels]
    charges = tuple(
        Charge(k.name, _charged_axes(k) if cost.v else k.axes, cost)
        for k, cost in zip(kernels, costs, strict=True)
        if cost.moves
    )
    fixed = sum(cost.c for cost in costs if not cost.moves) + _unmoved(kernels, networks)
    cost = present(CostModel("latency", UNITS["latency"], fixed, charges))
    sums = _over(networks, lambda widths: cost.fixed + sum(charge.at(widths) for charge in cost.charges))
    totals = np.array([n.ms for n in networks])
    factor, rest, knee, more = _bent_line(sums, totals)
    moved = rest / factor
    return Calibrated(cost.charges, cost.fixed + moved, factor, knee + moved, more)


def _levelled(networks: Sequence[NetworkSample]) -> list[NetworkSample]:
    """Layer times scaled so that each network's add up to its end-to-end time, which was taken with more care.

    Layers are measured network by network, so that a machine that is slow for a second spoils one of them.
    """
    sums = np.array([sum(n.layers.values()) for n in networks])
    if not (sums > 0).all():
        return list(networks)
    totals = np.array([n.ms for n in networks])
    return [
        replace(n, layers={name: ms * level for name, ms in n.layers.items()})
        for n, level in zip(networks, totals / sums, strict=True)
    ]


def _unmoved(kernels: Sequence[Kernel], networks: Sequence[NetworkSample]) -> float:
    """Time in ms of what no width changes: the median over the networks."""
    moved = {kernel.name for kernel in kernels}
    return float(np.median([sum(ms for name, ms in n.layers.items() if name not in moved) for n in networks]))


def _charged_axes(kernel: Kernel) -> tuple[Dim, ...]:
    """The axes of the kernel alone, then those of its result that are not among them."""
    return tuple(dict.fromkeys((*kernel.axes, *kernel.volume)))


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
        return InContext(cost, len(kernel.axes), factors, prior if cost is not None else 0.0, 0.0, 0.0, 0.0)
    volumes, products = _product(kernel.volume, networks), _product(kernel.axes, networks)
    scale = float(times[good].mean())
    typical = max(float(alone[good].mean()), 1e-9) if cost is not None else np.inf
    most, largest = float(volumes.max()), float(products.max())
    columns = np.column_stack([alone / typical, volumes / most, products / largest, np.ones(len(networks))])[good]
    weight = 1 / np.maximum(times[good] / scale, _LEAST_WEIGHED)
    priors = np.diag([_PRIOR, _PRIOR_REST, _PRIOR_REST, _PRIOR_REST])
    drawn_to = [_PRIOR * prior * typical / scale if cost is not None else 0.0, 0.0, 0.0, 0.0]
    rows, target = np.vstack([columns * weight[:, None], priors]), np.append(times[good] / scale * weight, drawn_to)
    b, v, w, c = scale * lsq_linear(rows, target, (0.0, np.inf)).x
    return InContext(cost, len(kernel.axes), factors, float(b / typical), float(v / most), float(w / largest), float(c))


def _product(dims: Sequence[Dim], networks: Sequence[NetworkSample]) -> NDArray[np.float64]:
    """float64[networks]: product of the dims' widths."""
    return _over(networks, lambda widths: math.prod((width(dim, widths) for dim in dims), start=1.0))


def _bent_line(sums: NDArray[np.float64], totals: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Factor, fixed part, knee and more: totals ≈ factor · (sums + more · max(0, sums - knee)) + fixed."""
    fits = [_line(sums, totals, knee) for knee in np.percentile(sums, _KNEES).tolist()]
    _, factor, rest, knee, steeper = min(fits)
    return factor, rest, knee, steeper / factor


def _line(
    sums: NDArray[np.float64], totals: NDArray[np.float64], knee: float
) -> tuple[float, float, float, float, float]:
    """Error, factor, fixed part, `knee` and the slope it adds, by relative errors, robustly."""
    mean, most = float(totals.mean()), float(max(sums.max(), 1e-9))
    rest = max(most - knee, 1e-3 * most)
    columns = np.column_stack([sums / most, np.ones_like(sums), np.maximum(0.0, sums - knee) / rest])
    columns *= (mean / totals)[:, None]
    trust = np.ones_like(totals)
    least = (_LEAST_FACTOR, 0.0, 0.0)
    for _ in range(_REWEIGHTINGS):
        rows = np.vstack([columns * trust[:, None], np.diag(_PRIOR_LINE)])
        solution = lsq_linear(rows, np.append(trust, np.zeros(3)), (least, np.inf)).x
        errors = np.abs(columns @ solution - 1)
        usual = max(_LEAST_ERROR, float(np.median(errors)))
        trust = np.sqrt(1 / np.maximum(1.0, errors / usual))
    factor, fixed, steeper = solution * mean / np.array([most, 1.0, rest])
    error = float(np.square(np.minimum(errors, _OUTLIER * usual)).sum())
    return error, float(factor), float(fixed), knee, float(steeper)
