"""Random inputs that a model can digest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from halpc.errors import ModelError
from passes.runtime import run_within

_TYPES = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(int64)": np.int64,
    "tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(bool)": np.bool_,
    "tensor(int16)": np.int16, "tensor(uint16)": np.uint16, "tensor(uint32)": np.uint32, "tensor(uint64)": np.uint64,
}  # fmt: skip
LAWS: Final = ("normal", "unit", "small")  # of floats, in the order in which they are worth a try
LARGEST = 2**32  # entries of an input; more are taken for a mistake, not for a model


def random_feeds(
    session: ort.InferenceSession, shapes: Mapping[str, tuple[int, ...]], *, seed: int = 0, law: str = LAWS[0]
) -> dict[str, NDArray[Any]]:
    """Normal floats, small non-negative integers (they may be indices), every byte value for uint8.

    Args:
        law: of floats: normal, between 0 and 1 (`unit`), or above 0 and at most 0.01 (`small`), for networks that
            take roots and logarithms of what they are fed.

    Raises:
        ModelError: an input is no tensor of numbers, or too large for any machine.
    """
    rng = np.random.default_rng(seed)
    feeds: dict[str, NDArray[Any]] = {}
    for value in session.get_inputs():
        shape = shapes[value.name]
        dtype = _TYPES.get(value.type)
        if dtype is None:
            raise ModelError(f"input {value.name} is a {value.type}; expected numbers or truth values")
        if math.prod(shape) > LARGEST:
            raise ModelError(f"input {value.name} has {math.prod(shape):.3g} entries; give --shape with smaller sizes")
        if np.issubdtype(dtype, np.floating):
            feeds[value.name] = np.asarray(_floats(rng, shape, law), dtype=dtype)
        elif dtype is np.uint8:
            feeds[value.name] = np.asarray(rng.integers(0, 256, shape), dtype=dtype)
        elif dtype is np.bool_:
            feeds[value.name] = np.ones(shape, dtype=np.bool_)
        else:
            feeds[value.name] = np.asarray(rng.integers(0, 2, shape), dtype=dtype)
    return feeds


def telling_feeds(
    session: ort.InferenceSession,
    shapes: Mapping[str, tuple[int, ...]],
    names: Sequence[str] | None = None,
    settings: Mapping[str, float] | None = None,
) -> tuple[dict[str, NDArray[Any]], list[Any]]:
    """Random inputs of the first law on which all named outputs tell something, else of the best; and these outputs.

    Args:
        settings: inputs that always have this value.

    Raises:
        ModelError: there are none, or a run does not end.
    """
    best: tuple[int, dict[str, NDArray[Any]], list[Any]] = -1, {}, []
    for law in LAWS:
        feeds = random_feeds(session, shapes, law=law)
        feeds |= {name: np.full_like(feeds[name], value) for name, value in (settings or {}).items()}
        values = run_within(session, names, feeds)
        best = max(best, (sum(map(tells, values)), feeds, values), key=lambda each: each[0])
        if best[0] == len(values):
            break
    return best[1:]


def tells(value: NDArray[Any]) -> bool:
    """Whether an output holds anything to compare."""
    unsaid = isinstance(value, np.ndarray) and value.size and np.issubdtype(value.dtype, np.floating)
    return not unsaid or bool(np.isfinite(value).any())


def _floats(rng: np.random.Generator, shape: tuple[int, ...], law: str) -> NDArray[np.float64]:
    if law == "normal":
        return rng.standard_normal(shape)
    return rng.random(shape) if law == "unit" else 0.01 * (1 - rng.random(shape))
