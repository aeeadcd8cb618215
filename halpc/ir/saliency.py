"""Importance per channel of a layer, and per channel of a group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from halpc.ir.dims import Dim, Leaf, Product, Sum

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Saliency:
    """What every channel of every free group is worth.

    Attributes:
        scores: group name → float64[size], not negative.
        source: where they come from, for the report (a file, or a built-in score).
        unscored: groups that no score reached; their channels are worth the least of all.
        curves: group name → float64[size + 1], value kept when the best k channels stay, where that is more than
            a sum of scores (refitted consumers); groups that are absent use the sum.
        gone: group name → bool[size], channels that an earlier plan removed: they come last, whatever they are worth.
    """

    scores: Mapping[str, Scores]
    source: str
    unscored: tuple[str, ...] = ()
    curves: Mapping[str, Scores] = field(default_factory=dict)
    gone: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def fits(self, sizes: Mapping[str, int]) -> bool:
        """Whether these are scores of exactly these groups, by size."""
        return {name: scores.size for name, scores in self.scores.items()} == dict(sizes) and all(
            curve.size == sizes.get(name, -1) + 1 for name, curve in self.curves.items()
        )

    def order(self, group: str) -> NDArray[np.int64]:
        """Channel indices, most important first; ties keep their order."""
        scores = self.scores[group]
        return np.lexsort((-scores, self.gone.get(group, np.zeros(scores.size, np.bool_)))).astype(np.int64)

    def curve(self, group: str) -> Scores:
        """float64[size + 1]: value kept by the best 0, 1, … channels."""
        if group in self.curves:
            return self.curves[group]
        ordered = self.scores[group][self.order(group)]
        return np.concatenate(([0.0], np.cumsum(ordered)))

    def mask(self, group: str, width: int) -> NDArray[np.bool_]:
        """bool[size]: the best `width` channels."""
        kept = np.zeros(self.scores[group].size, dtype=np.bool_)
        kept[self.order(group)[:width]] = True
        return kept


def project(dim: Dim, scores: Scores, onto: dict[str, Scores]) -> None:
    """Add the scores of an axis' channels to the leaves that the axis is made of.

    A channel of a product belongs to one channel of each factor, so each factor's channel gets the sum of the
    scores of all channels that it takes along.

    Args:
        scores: float64[dim.size].
        onto: leaf name → float64[leaf.size], changed in place.
    """
    match dim:
        case Leaf(name, size):
            onto[name] = onto.get(name, np.zeros(size)) + scores
        case Sum(parts):
            start = 0
            for part in parts:
                project(part, scores[start : start + part.size], onto)
                start += part.size
        case Product(factors):
            cube = scores.reshape([f.size for f in factors])
            for i, factor in enumerate(factors):
                others = tuple(j for j in range(len(factors)) if j != i)
                project(factor, cube.sum(axis=others), onto)
