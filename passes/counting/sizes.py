"""Axes of tensors as a formula reads them: dims where couple solved them, plain sizes inside closed bodies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from halpc.ir.dims import Dim, Leaf
from passes.loading.fold import Known


class UnknownSizeError(Exception):
    """A formula needs the shape of a tensor that nobody could tell."""


@dataclass(frozen=True, slots=True)
class Volume:
    """The product of some axes, as one node's cost: `coefficient` × Π widths."""

    name: str
    coefficient: float
    axes: tuple[Dim, ...]

    @property
    def whole(self) -> float:
        """At full width."""
        return self.coefficient * math.prod(dim.size for dim in self.axes)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is known of tensors' axes.

    Attributes:
        axes: as couple solved them; a tensor without any has plain sizes.
        inside: of the tensors of a closed body, by name.
    """

    axes: Mapping[tuple[str, int], Dim]
    inside: Mapping[str, Known] | None = None

    def shape(self, tensor: gs.Tensor) -> tuple[int, ...]:
        """The static shape.

        Raises:
            UnknownSizeError: there is none.
        """
        shape = tensor.shape
        if self.inside is not None and not isinstance(tensor, gs.Constant):
            shape = self.inside[tensor.name].shape if tensor.name in self.inside else None
        if tensor.is_empty() or shape is None or not all(isinstance(n, int | np.integer) for n in shape):
            raise UnknownSizeError(tensor.name)
        return tuple(int(n) for n in shape)

    def axis(self, tensor: gs.Tensor, index: int) -> Dim:
        """One axis; negative indices count from the last. Of another size it is of another tensor, in a body."""
        shape = self.shape(tensor)
        place = range(len(shape))[index]
        dim = self.axes.get((tensor.name, place))
        return Leaf("", shape[place]) if dim is None or dim.size != shape[place] else dim

    def volume(self, name: str, factor: float, tensor: gs.Tensor, axes: Iterable[int] | None = None) -> Volume:
        """factor × Π of a tensor's axes, all or some."""
        chosen = range(len(self.shape(tensor))) if axes is None else axes
        return Volume(name, factor, tuple(self.axis(tensor, i) for i in chosen))
