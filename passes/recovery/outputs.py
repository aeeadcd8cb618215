"""How far a model's outputs are off the original's, on held-back inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from passes.calibration import Calibration
from passes.recovery.finite import comparable, culprits, refusal
from passes.recovery.segments import open_session, run_session

CONSTANT = 1e-10  # variance over mean square below which an output does not vary


class Outputs:
    """The original's outputs, which other models' are compared with.

    Attributes:
        alike: whether they are the same for all inputs, but for rounding.
    """

    def __init__(self, original: onnx.ModelProto, held: Calibration, *, batch: int, threads: int) -> None:
        """Run the original.

        Args:
            held: inputs.
            batch: samples per run.
            threads: of onnxruntime, 0 for its default.

        Raises:
            CalibrationError: an output holds NaN, or nothing but infinities.
        """
        self._held, self._batch, self._threads = held, batch, threads
        self._reference = self._of(original)
        for output, values in zip(original.graph.output, self._reference, strict=True):
            if np.issubdtype(values.dtype, np.floating) and not comparable(values):
                places = culprits(original, output.name, held, comparable, threads=threads)
                raise refusal(held, places, f"the output {output.name!r}")
        floats = [values for values in self._reference if np.issubdtype(values.dtype, np.floating) and values.size]
        self.alike = bool(floats) and all(map(_alike, floats))

    def error(self, model: onnx.ModelProto) -> float:
        """Relative squared error of a model's floating-point outputs, summed over outputs."""
        pairs = zip(self._of(model), self._reference, strict=True)
        return sum(_output_error(ours, theirs) for ours, theirs in pairs)

    def _of(self, model: onnx.ModelProto) -> list[NDArray[Any]]:
        session = open_session(model, self._threads)
        parts = [list(run_session(session, batch).values()) for batch in self._held.batches(self._batch)]
        joined = (_joined([np.atleast_1d(part) for part in column]) for column in zip(*parts, strict=True))
        return [array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array for array in joined]


def _output_error(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Relative squared error of one output where it is floating-point; infinite where it is no longer a number.

    Entries that are infinite in both count nothing. Of an output that does not vary it is over ‖y‖² instead.
    """
    if not np.issubdtype(theirs.dtype, np.floating) or ours.shape != theirs.shape:
        return 0.0
    told = np.isfinite(theirs)
    if not (np.isfinite(ours) == told).all() or not (ours == theirs)[~told].all():
        return float("inf")
    spread = _power(theirs, told) if _alike(theirs) else _spread(theirs)
    return _power(np.subtract(ours, theirs, where=told, out=np.zeros_like(theirs)), told) / max(spread, 1e-30)


def _alike(values: NDArray[Any]) -> bool:
    """Whether an output is the same for all samples, but for rounding."""
    return _spread(values) <= CONSTANT * _power(values, np.isfinite(values))


def _spread(values: NDArray[Any]) -> float:
    """Squared distance from the mean over samples, ‖y − mean y‖², of what is finite."""
    told = np.isfinite(values)
    mean = values.sum(axis=0, where=told) / np.maximum(told.sum(axis=0), 1)
    return _power(values - mean, told)


def _power(values: NDArray[Any], where: NDArray[np.bool_]) -> float:
    """‖y‖² of some of the entries."""
    return float(np.square(values).sum(where=where))


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Results of several batches together, samples first; of a state they lie along another axis than the first."""
    differing = {i for part in parts for i, n in enumerate(part.shape) if n != parts[0].shape[i]}
    axis = differing.pop() if len(differing) == 1 else 0
    if differing:  # more than the number of samples differs
        return np.concatenate([part.reshape(-1) for part in parts])
    return np.concatenate([np.moveaxis(part, axis, 0) for part in parts])
