"""Evaluate: top-1 accuracy of a classifier on labelled inputs, through onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from halpc.errors import CalibrationError, VerificationError
from passes.calibration import LABELS, checked_arrays, fed, input_specs, load_arrays, unread_inputs
from passes.inputs import Arrays
from passes.recovery.segments import Tensors, open_session, run_session

MOST_CLASSES = 2**31  # of any model: more is a mistake, or does not fit into int64


@dataclass(frozen=True, slots=True)
class Labelled:
    """Inputs with the class each sample belongs to.

    Attributes:
        inputs: per input name, an array whose first axis counts samples.
        labels: int64[samples].
        source: where they came from, for messages.
    """

    inputs: Arrays
    labels: NDArray[np.int64]
    source: str


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How many of `samples` a model put into the right class."""

    correct: int
    samples: int

    @property
    def top1(self) -> float:
        """Share of samples in the right class, 0..1."""
        return self.correct / self.samples


def load_labelled(path: Path | str, model: onnx.ModelProto) -> Labelled:
    """Reads arrays named as the model's inputs and an integer array `labels`: a `.npz`, or a folder of `.npy`.

    Raises:
        CalibrationError: unreadable file, or wrong name, shape, type, length or values.
    """
    path = Path(path)
    specs = input_specs(model)
    if path.is_dir() and not (path / f"{LABELS}.npy").exists():
        raise CalibrationError(
            f"{path}: the folder has no {LABELS}.npy with the class of each sample, without which there is nothing to"
            f" evaluate; give a .npz with an array per input and {LABELS!r}, or a folder of .npy files of these names."
        )
    arrays = load_arrays(path, specs)
    if LABELS not in arrays:
        found = ", ".join(sorted(arrays))
        raise CalibrationError(f"{path}: no array {LABELS!r} with the class of each sample (found: {found}).")
    inputs = checked_arrays(arrays, specs, str(path))
    return Labelled(inputs, _checked_labels(arrays[LABELS], len(next(iter(inputs.values()))), str(path)), str(path))


def _checked_labels(labels: NDArray[Any], samples: int, source: str) -> NDArray[np.int64]:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise CalibrationError(
            f"{source}: {LABELS!r} is {labels.dtype}{list(labels.shape)}, expected one integer class per sample."
        )
    if len(labels) != samples:
        raise CalibrationError(f"{source}: {len(labels)} labels for {samples} samples.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > MOST_CLASSES:
        wrong = low if low < 0 else high
        raise CalibrationError(f"{source}: {LABELS!r} holds {wrong}, which is no class; classes count from 0.")
    return labels.astype(np.int64)


def evaluate(model: onnx.ModelProto, data: Labelled, *, batch: int = 64, threads: int = 0) -> Accuracy:
    """Top-1 accuracy of `model` on `data`: the largest entry of its first class-score output against the label.

    Args:
        batch: samples per run where the model leaves it free.
        threads: of onnxruntime, 0 for its default.

    Raises:
        CalibrationError: no output is a class score, or a label names a class that the model lacks.
        VerificationError: the model's scores are NaN.
        BackendError: onnxruntime cannot run the model.
    """
    specs, unread = input_specs(model), unread_inputs(model)
    places = {spec.name: spec.place for spec in specs if spec.place}
    step = next((spec.shape[0] for spec in specs if spec.shape and spec.shape[0] and not spec.place), None) or batch
    session = open_session(model, threads)
    correct, samples = 0, len(data.labels)
    for start in range(0, samples, step):
        rows = _padded_rows(start, step, samples)
        inputs = {name: array[rows] for name, array in data.inputs.items()}
        results = run_session(session, fed(inputs, places, unread))
        scores = _class_scores(results, len(rows), data)
        if np.isnan(scores).any():
            raise VerificationError(f"{data.source}: the model's scores are NaN from sample {start} on.")
        found = scores.argmax(axis=1)[: samples - start]
        correct += int((found == data.labels[start : start + step]).sum())
    return Accuracy(correct, samples)


def _padded_rows(start: int, step: int, samples: int) -> NDArray[np.int64]:
    """Rows of a batch; the last batch repeats its last sample, since a model's batch size may be fixed."""
    return np.minimum(np.arange(start, start + step), samples - 1)


def _class_scores(results: Tensors, rows: int, data: Labelled) -> NDArray[Any]:
    for array in results.values():
        if not _is_score(array, rows):
            continue
        classes, largest = array.shape[1], int(data.labels.max())
        if largest >= classes:
            raise CalibrationError(f"{data.source}: a label is {largest}, but the model has {classes} classes.")
        return array.reshape(rows, classes)
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in results.items())
    raise CalibrationError(
        f"{data.source}: no output of the model is a class score [{rows}, classes]; it gives {shapes}."
    )


def _is_score(array: NDArray[Any], rows: int) -> bool:
    """Whether an output is [rows, classes], trailing axes of one entry aside."""
    if array.ndim < 2 or array.shape[0] != rows or not np.issubdtype(array.dtype, np.floating):
        return False
    return bool(array.shape[1] > 1 and array.size == rows * array.shape[1])
