"""Is what was removed exactly zero, further down? Only then may it leave a sum.

In the masked original every removed slice of every weight is zero. Behind a convolution with its bias the
removed channels are therefore zero, behind a ReLU still, behind a sigmoid no longer. Where an operator sums
over an axis without multiplying it by a weight, this decides between "exact" and "pinned".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from passes.coupling.unify import PinReason, Unifier
from passes.rules.language import Axis


@dataclass(slots=True)
class Zeros:
    """Facts about zero-ness, in topological order, until `settle` turns them into pins."""

    _constant: set[Axis] = field(default_factory=set)
    _carried: list[tuple[Axis, tuple[Axis, ...], bool]] = field(default_factory=list)
    _needed: list[tuple[tuple[Axis, ...], PinReason]] = field(default_factory=list)

    def constant(self, axis: Axis) -> None:
        """A weight's axis: removed slices are zero by definition."""
        self._constant.add(axis)

    def carry(self, y: Axis, sources: tuple[Axis, ...], any_: bool) -> None:
        """What is removed from `y` is zero if it is in all (any) of `sources`."""
        self._carried.append((y, sources, any_))

    def need(self, axes: tuple[Axis, ...], why: PinReason) -> None:
        """At least one of `axes` must be zero where it is removed, else all are pinned."""
        self._needed.append((axes, why))

    def settle(self, unifier: Unifier, variable: Callable[[Axis], int]) -> None:
        """Pin every summed axis whose removed entries are not known to be zero, until nothing changes."""
        while True:
            whole = _Whole(unifier, variable)
            zero = self._propagate(whole)
            broken = [
                (axes, why) for axes, why in self._needed if not any(a in zero for a in axes) and not whole(axes[0])
            ]
            if not broken:
                return
            for axes, why in broken:
                unifier.pin(variable(axes[0]), why)

    def _propagate(self, whole: _Whole) -> set[Axis]:
        zero = set(self._constant)
        for y, sources, any_ in self._carried:
            moving = [a for a in sources if not whole(a)]
            if (any_ and any(a in zero for a in moving)) or (not any_ and moving and all(a in zero for a in moving)):
                zero.add(y)
        return zero


class _Whole:
    """Whether every channel of an axis stays anyway; remembers."""

    def __init__(self, unifier: Unifier, variable: Callable[[Axis], int]) -> None:
        self._unifier = unifier
        self._variable = variable
        self._known: dict[int, bool] = {}

    def __call__(self, axis: Axis) -> bool:
        if axis.size == 1:
            return True
        rep = self._unifier.find(self._variable(axis))
        if rep not in self._known:
            self._known[rep] = all(
                self._unifier.pinned(leaf) or self._unifier.size(leaf) == 1 for leaf in self._unifier.leaves(rep)
            )
        return self._known[rep]
