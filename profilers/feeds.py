"""Inputs to time a model with, where the user gives none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike, NDArray

from halpc.errors import ModelError
from halpc.ir.profiler import Feeds

_TYPES: dict[str, DTypeLike] = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "bool": np.bool_,
    **{name: np.dtype(name) for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}
_IMAGE_LEVELS = 256
_FEW = 2


def random_feeds(inputs: Iterable[Any], seed: int = 0) -> Feeds:
    """Arrays for a session's inputs (`name`, `shape`, `type` such as `tensor(float)`), equal for equal seeds.

    Floats are standard normal; uint8 covers its range, as an image does; other integers are 0 or 1, since
    they are mostly indices, masks or counts, and no table is shorter than two.

    Raises:
        ModelError: an input is symbolic or of a type without numbers.
    """
    return {value.name: random_array(value.name, value.shape, value.type, seed) for value in inputs}


def random_array(name: str, shape: Iterable[Any], kind: str, seed: int = 0) -> NDArray[np.generic]:
    """One input; see `random_feeds`."""
    sizes = tuple(shape)
    if not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise ModelError(f"input {name!r} has shape {list(sizes)}: timing needs numbers. Pass --shape {name}:1x…")
    element = kind.removeprefix("tensor(").removesuffix(")")
    if element not in _TYPES:
        raise ModelError(f"input {name!r} is {kind}: halpc can make random inputs of numbers only")
    return random_of(np.dtype(_TYPES[element]), sizes, seed)


def random_of(dtype: np.dtype[Any], sizes: tuple[int, ...], seed: int = 0) -> NDArray[np.generic]:
    """An array of a type; see `random_feeds`."""
    rng = np.random.default_rng(seed)
    if dtype == np.uint8:
        return rng.integers(0, _IMAGE_LEVELS, sizes).astype(dtype)
    if dtype.kind in "biu":
        return rng.integers(0, _FEW, sizes).astype(dtype)
    return rng.standard_normal(sizes, dtype=np.float32).astype(dtype)
