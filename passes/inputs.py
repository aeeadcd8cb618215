"""Arrays for a model's inputs, and what the model expects of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: its tensor name.
        dtype: its element type.
        shape: axis sizes, None where dynamic.
        place: the axis that counts samples: the first but for states of recurrences.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    place: int = 0

    def spell(self) -> str:
        """Type and shape as a person writes them: `float32[N, 3, 224, 224]`."""
        sizes = ["?" if size is None else str(size) for size in self.shape]
        sizes[self.place : self.place + 1] = ["N"] * bool(sizes)
        return f"{self.dtype}[{', '.join(sizes)}]"
