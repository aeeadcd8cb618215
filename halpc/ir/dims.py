"""Dims: what the axis of a tensor is made of.

    Leaf      n channels that stay or go one by one
    Sum       consecutive pieces            Concat, Split, Slice
    Product   a row-major fold, outer first  Reshape, Flatten, grouped convolution, heads

A 512-channel axis that was concatenated from 256 and 256 is `Sum((a, b))`; 12 heads of 64 are
`Product((heads, dims))`. Both shrink by shrinking their leaves:

    >>> a, b = Leaf("a", 4), Leaf("b", 2)
    >>> Sum((a, b)).size, Product((a, b)).size
    (6, 8)
    >>> int(width(Sum((a, b)), {"a": 3, "b": 2})), int(width(Product((a, b)), {"a": 3, "b": 1}))
    (5, 3)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Leaf:
    """`size` channels that stay or go one by one; equal names are the same leaf."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Sum:
    """Consecutive pieces of an axis, in order."""

    parts: tuple[Dim, ...]

    @property
    def size(self) -> int:
        """Number of channels before pruning."""
        return sum(part.size for part in self.parts)


@dataclass(frozen=True, slots=True)
class Product:
    """Axes folded into one, row-major: the last factor changes fastest."""

    factors: tuple[Dim, ...]

    @property
    def size(self) -> int:
        """Number of channels before pruning."""
        return math.prod(factor.size for factor in self.factors)


Dim: TypeAlias = Leaf | Sum | Product


def leaves(dim: Dim) -> Iterator[Leaf]:
    """Every leaf of `dim`, in order, repeated where it occurs repeatedly."""
    match dim:
        case Leaf():
            yield dim
        case Sum(parts):
            for part in parts:
                yield from leaves(part)
        case Product(factors):
            for factor in factors:
                yield from leaves(factor)


def width(dim: Dim, widths: Mapping[str, Any]) -> Any:
    """Size of `dim` when its leaves have `widths` (leaves that are not named keep their size).

    Widths may be integers or int64 arrays that broadcast against each other; the result has their type.
    """
    match dim:
        case Leaf(name, size):
            return widths.get(name, size)
        case Sum(parts):
            return sum(width(part, widths) for part in parts)
        case Product(factors):
            return math.prod(width(factor, widths) for factor in factors)


def mask(dim: Dim, masks: Mapping[str, Mask]) -> Mask:
    """Which entries of an axis stay: `bool[dim.size]`, from each leaf's `bool[leaf.size]`.

    Leaves that are not named stay whole. A sum concatenates, a product is the outer AND.
    """
    match dim:
        case Leaf(name, size):
            kept = masks.get(name)
            return np.ones(size, dtype=np.bool_) if kept is None else kept
        case Sum(parts):
            return np.concatenate([mask(part, masks) for part in parts])
        case Product(factors):
            result = np.ones(1, dtype=np.bool_)
            for factor in factors:
                result = np.logical_and.outer(result, mask(factor, masks)).reshape(-1)
            return result


def spell(dim: Dim) -> str:
    """The dim as a person writes it: `conv1 + 12·head.dims`."""
    match dim:
        case Leaf(name, size):
            return f"{name}[{size}]"
        case Sum(parts):
            return " + ".join(spell(part) for part in parts)
        case Product(factors):
            return "·".join(f"({spell(f)})" if isinstance(f, Sum) else spell(f) for f in factors)
