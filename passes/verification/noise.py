"""How far apart two runs of a model are, and the nudges that show how far apart its own rounding may bring them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from halpc.errors import HalpcError, ModelError, shortened
from passes.bare import Bare, entries, is_stub

# linear operators: elsewhere a constant may be a size, a threshold or an exponent, which no rounding moves
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "FusedGemm")


@contextlib.contextmanager
def running_again(path: Path) -> Iterator[None]:
    """Around what runs a model of the file `path` that ran before, on numbers that have moved.

    Raises:
        ModelError: onnxruntime does not run it then.
    """
    try:
        yield
    except HalpcError:
        raise
    except Exception as error:  # onnxruntime raises its own untyped family
        raise ModelError(
            f"{path}: onnxruntime runs it, but not once its inputs and weights have moved by their last place:"
            f" {shortened(str(error).splitlines()[0])}"
        ) from error


def nudged(feeds: Mapping[str, NDArray[Any]], seed: int, nudge: float) -> dict[str, NDArray[Any]]:
    """Inputs, floats among them moved by a share `nudge` at random."""
    rng = np.random.default_rng(seed + 1000)
    return {
        name: np.asarray(x * (1 + nudge * rng.standard_normal(x.shape)), dtype=x.dtype)
        if np.issubdtype(x.dtype, np.floating)
        else x
        for name, x in feeds.items()
    }


def nudge_weights(model: Bare) -> None:
    """Move the float weights of linear operators by up to a unit in the last place at random, in place; zeros stay."""
    rng, graph = np.random.default_rng(0), model.proto.graph
    weights = {name for node in graph.node if node.op_type in WEIGHTED for name in node.input}
    for tensor in graph.initializer:
        if tensor.name not in weights:
            continue
        values = entries(tensor, model)
        if not np.issubdtype(values.dtype, np.floating):
            continue
        moved = _moved(values, rng)
        if is_stub(tensor):
            model.weights[tensor.name] = moved
        else:
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))


def _moved(values: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """values · (1 + eps · (2r − 1)), with as few arrays of their size as there may be."""
    step = np.asarray(rng.random(values.shape, dtype=np.float32))
    step *= 2
    step -= 1
    factor = np.multiply(step, np.finfo(values.dtype).eps, out=step if values.dtype != np.float64 else None)
    factor += 1
    return np.asarray(values * factor, dtype=values.dtype)


def differences(a: Sequence[NDArray[Any]], b: Sequence[NDArray[Any]]) -> list[float]:
    """Per output: the largest difference over the largest magnitude of `a`; integers by the share that differs."""
    return [_difference(x, y) for x, y in zip(a, b, strict=True)]


def _difference(x: NDArray[Any], y: NDArray[Any]) -> float:
    if not isinstance(x, np.ndarray) or x.size == 0:
        return 0.0
    if x.shape != y.shape:
        return float("inf")
    if np.issubdtype(x.dtype, np.floating):
        return _relative(x.astype(np.float64), y.astype(np.float64))
    return float(np.mean(x != y)) * 0.01 if x.dtype != object else 0.0


def _relative(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    if same.all():
        return 0.0
    if not (np.isfinite(x[~same]).all() and np.isfinite(y[~same]).all()):
        return float("inf")
    scale = float(np.max(np.abs(x[np.isfinite(x)]), initial=0.0))
    return float(np.max(np.abs(x[~same] - y[~same]))) / max(scale, 1e-12)
