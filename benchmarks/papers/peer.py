"""onnxsim's structured pruning, brought to a budget by its sparsity; and what it removed, for recovery."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from halpc.errors import BackendError, PlanError

Keep = dict[str, dict[int, NDArray[np.int64]]]

SPARSITIES = tuple(k / 32 for k in range(1, 32))


def prune(model: onnx.ModelProto, sparsity: float) -> onnx.ModelProto:
    """`model` with that share of the channels gone from every chain that onnxsim can cut (by their L2 norm).

    Raises:
        BackendError: onnxsim is not installed, or too old.
    """
    try:
        from onnxsim import apply_structured_pruning
    except ImportError as error:
        raise BackendError("the comparison with onnxsim needs its structured pruning: pip install onnxsim") from error
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return apply_structured_pruning(copy, sparsity=sparsity)


def kept(before: onnx.ModelProto, after: onnx.ModelProto) -> Keep:
    """Which slices of every initializer are left, found by comparing numbers; names and order must have stayed.

    Raises:
        PlanError: what is left cannot be found in what there was.
    """
    old, new = _arrays(before), _arrays(after)
    keep: Keep = {}
    for node in before.graph.node:
        names = [name for name in node.input if name in old and name in new and old[name].shape != new[name].shape]
        for name in sorted(names, key=lambda n: old[n].ndim):
            keep[name] = _axes(name, old[name], new[name])
    return keep


def _arrays(model: onnx.ModelProto) -> Mapping[str, NDArray[np.float32]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _axes(name: str, old: NDArray[np.float32], new: NDArray[np.float32]) -> dict[int, NDArray[np.int64]]:
    """Kept indices of every axis that is shorter."""
    shorter = [axis for axis in range(old.ndim) if old.shape[axis] != new.shape[axis]]
    found: dict[int, NDArray[np.int64]] = {}
    if len(shorter) == 1:
        found = {shorter[0]: _matched(name, old, new, shorter[0])}
    elif shorter == [0, 1]:
        # a slice along one axis lacks what the other lost: match by the numbers that it still has
        rows = _rows(old, new)
        found = {0: rows, 1: _matched(name, old[rows], new, 1)}
    ends = old
    for axis, indices in found.items():
        ends = np.take(ends, indices, axis=axis)
    if ends.shape != new.shape or not np.array_equal(ends, new):
        raise PlanError(f"{name}: what is left of it is no selection of its slices")
    return found


def _rows(old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.int64]:
    """For every row of `new`, the row of `old` that holds most of its numbers."""
    order = np.argsort(old, axis=None)
    values, owners = old.ravel()[order], order // old[0].size
    found = [np.searchsorted(values, row.ravel()).clip(max=values.size - 1) for row in new]
    return np.array([np.bincount(owners[places]).argmax() for places in found], dtype=np.int64)


def _matched(name: str, old: NDArray[np.float32], new: NDArray[np.float32], axis: int) -> NDArray[np.int64]:
    """For every slice of `new`, the slice of `old` that equals it; each is taken once, in order."""
    before, after = np.moveaxis(old, axis, 0), np.moveaxis(new, axis, 0)
    found, start = [], 0
    for piece in after:
        start = next((i for i in range(start, len(before)) if np.array_equal(before[i], piece)), -1)
        if start < 0:
            raise PlanError(f"{name}: a slice along axis {axis} is in the result but not in the original")
        found.append(start)
        start += 1
    return np.array(found, dtype=np.int64)
