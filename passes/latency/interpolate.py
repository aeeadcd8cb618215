"""interpolate: what a kernel costs at widths that were not measured, from samples on lines and a few points off them.

Along a line (one axis moves, the others stay at a centre) small widths are measured one by one. Beyond them a
staircase repeats itself: kernels work in tiles, so the cost is a smooth function of an *effective width*, the width
plus an offset that depends only on where it lies within a period, and the offsets of one period hold for all.
Nothing is assumed to be monotone.

Across lines, a cost that is linear in tiles of each axis, k0 + k1·a + k2·b + k3·a·b, is a combination of its lines:

    T(a, b) = κ·f(a)·g(b)/T0 + (1 − κ)·(f(a) + g(b) − T0)

exactly, with one κ that the points off the lines give. What is left there is spread by inverse distance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

PERIOD: Final = 64
DENSE: Final = 2 * PERIOD
_LEAST_MS: Final = 1e-4
_KAPPAS: Final = np.linspace(-0.5, 1.5, 81)
_NEAR: Final = 0.05
_FLAT: Final = 0.18
_LEAST_RISE: Final = 0.03
_PULL: Final = 0.15

Point = tuple[int, ...]


def line(samples: Mapping[int, float], size: int) -> NDArray[np.float64]:
    """Cost at every width: float64[size + 1] from a few samples, in ms; 0 channels cost nothing."""
    knots = np.array(sorted(samples))
    costs = np.array([samples[int(w)] for w in knots])
    widths = np.arange(size + 1, dtype=np.float64)
    if knots[-1] <= DENSE or not {PERIOD, DENSE} <= samples.keys():
        result = np.interp(widths, knots, costs)
    else:
        shift = offsets(samples)
        effective = widths + shift[np.arange(size + 1) % PERIOD]
        low, smooth = knots <= DENSE, (knots % PERIOD == 0) & (knots >= PERIOD)
        near, order = knots[low] + shift[knots[low] % PERIOD], np.argsort(knots[low] + shift[knots[low] % PERIOD])
        result = np.interp(effective, near[order], costs[low][order])
        far = widths > DENSE
        result[far] = _extended(effective[far], knots[smooth].astype(np.float64), costs[smooth])
        here = knots <= size  # a table that models share may know this kernel wider than this model has it
        result[knots[here]] = costs[here]
    result[0] = 0.0
    return np.asarray(np.maximum(result, _LEAST_MS * (widths > 0)), dtype=np.float64)


def _extended(x: NDArray[np.float64], knots: NDArray[np.float64], costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear interpolation, continued beyond the last knot."""
    inside = np.interp(x, knots, costs)
    slope = (costs[-1] - costs[-2]) / (knots[-1] - knots[-2])
    return np.where(x > knots[-1], costs[-1] + slope * (x - knots[-1]), inside)


def offsets(samples: Mapping[int, float]) -> NDArray[np.float64]:
    """float64[PERIOD]: effective width minus width, by the width's place in a period."""
    low, high = samples[PERIOD], samples[DENSE]
    known = {w - PERIOD: ms for w, ms in samples.items() if PERIOD <= w <= DENSE}
    places = np.array(sorted(known))
    if abs(high - low) < _LEAST_RISE * low:
        return np.zeros(PERIOD)
    effective = (np.array([known[int(p)] for p in places]) - low) / (high - low) * PERIOD
    shift = np.clip(effective - places, -PERIOD, PERIOD)
    return np.asarray(np.interp(np.arange(PERIOD), places, shift), dtype=np.float64)


def step_of(samples: Mapping[int, float], noise: float) -> int:
    """The staircase's step in channels: the largest power of two on whose plateaus the cost does not move.

    A plateau (k·s − s, k·s] is flat where its samples lie at the height of its own end: on average, so that noise
    cancels. A straight line lies half a rise below, a staircase of half the step a quarter or more.
    """
    best = 1
    for step in (2, 4, 8, 16, 32, 64):
        inner = [(w - w % step, w, w - w % step + step) for w in samples if w % step and step < w < DENSE]
        known = [(samples[a], samples[w], samples[b]) for a, w, b in inner if a in samples and b in samples]
        rise = sum(b - a for a, _, b in known)
        if not known or rise < 2 * noise * sum(b for _, _, b in known):
            continue
        if abs(sum(b - w for _, w, b in known)) <= _FLAT * rise:
            best = step
    return best


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A kernel's cost over its axes.

    Attributes:
        lines: per axis, float64[size + 1] with the other axes at the centre, in ms.
        centre: width of each axis where the lines meet.
        centre_ms: cost there.
        kappa: how much the axes multiply (1) rather than add (0).
        places: float64[points, axes], logarithms of widths of points off the lines.
        residues: float64[points], log(measured / combined) at these points.
    """

    lines: tuple[NDArray[np.float64], ...]
    centre: Point
    centre_ms: float
    kappa: float
    places: NDArray[np.float64]
    residues: NDArray[np.float64]

    def __call__(self, *widths: Any) -> NDArray[np.float64]:
        """Cost in ms: float64 of the widths' broadcast shape."""
        arrays = [
            np.minimum(np.asarray(w, dtype=np.int64), len(f) - 1) for w, f in zip(widths, self.lines, strict=True)
        ]
        result = self._combined(arrays)
        if len(self.residues):
            result = result * np.exp(self._residue(arrays))
        alive = np.ones((), dtype=np.bool_)
        for array in arrays:
            alive = alive & (array > 0)
        return np.where(alive, np.maximum(result, _LEAST_MS), 0.0)

    def _combined(self, arrays: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        return combine([f[w] for f, w in zip(self.lines, arrays, strict=True)], self.centre_ms, self.kappa)

    def _residue(self, arrays: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        """Inverse-distance mean of the residues, with a pull to zero near the lines, where it is zero."""
        logs = [np.log(np.maximum(w, 1)) for w in arrays]
        middle = np.log(np.array(self.centre, dtype=np.float64))
        near = sorted((np.abs(x - m) for x, m in zip(logs, middle, strict=True)), key=np.size)
        total: Any = _PULL / (_NEAR + _second_largest(near) ** 2)
        pulled: Any = 0.0
        for place, residue in zip(self.places, self.residues, strict=True):
            distance = sum((x - p) ** 2 for x, p in zip(logs, place, strict=True))
            weight = 1 / (_NEAR + distance)
            total, pulled = total + weight, pulled + weight * residue
        return np.asarray(pulled / total)


def _second_largest(distances: Sequence[NDArray[np.float64]]) -> Any:
    """Distance from the nearest line: all axes but one are at the centre there."""
    return np.sort(np.stack(np.broadcast_arrays(*distances)), axis=0)[-2] if len(distances) > 1 else 0.0


def combine(parts: Sequence[NDArray[np.float64]], centre_ms: float, kappa: float) -> NDArray[np.float64]:
    """Costs along the lines as the cost at their crossing, one axis after the other."""
    result: Any = parts[0]
    for part in parts[1:]:
        together = result * part / max(centre_ms, _LEAST_MS)
        apart = result + part - centre_ms
        result = kappa * together + (1 - kappa) * apart
        result = np.maximum(result, 0.25 * np.minimum(together, np.maximum(apart, together)))
    return np.asarray(result, dtype=np.float64)


def surface(samples: Mapping[Point, float], sizes: Sequence[int], centre: Point) -> Surface:
    """A surface through samples, the lines through `centre` among them.

    Args:
        samples: widths → ms.
        sizes: widest width per axis.
        centre: where the lines meet; must be sampled.
    """
    samples = {w: max(ms, _LEAST_MS) for w, ms in samples.items()}
    lines = tuple(line(on_line(samples, centre, axis), size) for axis, size in enumerate(sizes))
    off = [w for w in samples if sum(a != b for a, b in zip(w, centre, strict=True)) > 1]
    measured = np.array([samples[w] for w in off])
    parts = [lines[axis][[w[axis] for w in off]] for axis in range(len(sizes))] if off else []
    middle = samples[centre]
    kappa = 1.0
    if off:
        errors = [np.abs(np.log(np.maximum(combine(parts, middle, k), _LEAST_MS) / measured)).mean() for k in _KAPPAS]
        kappa = float(_KAPPAS[int(np.argmin(errors))])
    residues = np.log(measured / np.maximum(combine(parts, middle, kappa), _LEAST_MS)) if off else np.zeros(0)
    places = np.log(np.maximum(np.array(off, dtype=np.float64).reshape(len(off), len(sizes)), 1))
    return Surface(lines, centre, middle, kappa, places, residues)


def on_line(samples: Mapping[Point, float], centre: Point, axis: int) -> dict[int, float]:
    """The samples on the line through `centre` along `axis`: width → ms."""
    return {
        w[axis]: ms
        for w, ms in samples.items()
        if all(a == b for i, (a, b) in enumerate(zip(w, centre, strict=True)) if i != axis)
    }
