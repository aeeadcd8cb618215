"""Top-1: counted right, and clear about data that does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from halpc.errors import CalibrationError, VerificationError
from passes.evaluate import Accuracy, evaluate, load_labelled


def _model(body: str = "y = Identity(x)", batch: str = "N") -> onnx.ModelProto:
    text = f"""<ir_version: 9, opset_import: ["" : 17]> g (float[{batch},4] x) => (float[M,4] y) {{ {body} }}"""
    return onnx.parser.parse_model(text)


def _save(path: Path, **arrays: Any) -> Path:
    np.savez(path / "t.npz", **arrays)
    return path / "t.npz"


SCORES = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
CLASSES = SCORES.argmax(axis=1)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_right_answers_are_counted(tmp_path: Path, batch: int) -> None:
    labels = np.where(np.arange(10) < 7, CLASSES, (CLASSES + 1) % 4)
    data = load_labelled(_save(tmp_path, x=SCORES, labels=labels), _model())
    found = evaluate(_model(), data, batch=batch)
    assert found == Accuracy(7, 10)
    assert found.top1 == 0.7


def test_a_fixed_batch_size_counts_the_rest_once(tmp_path: Path) -> None:
    data = load_labelled(_save(tmp_path, x=SCORES, labels=CLASSES), _model(batch="4"))
    assert evaluate(_model(batch="4"), data) == Accuracy(10, 10)


WRONG = {
    "missing": ({"x": SCORES}, "no array 'labels'"),
    "one-hot": ({"x": SCORES, "labels": np.eye(10, dtype=np.int64)}, "expected one integer class"),
    "floats": ({"x": SCORES, "labels": CLASSES.astype(np.float32)}, "expected one integer class"),
    "length": ({"x": SCORES, "labels": CLASSES[:9]}, "9 labels for 10 samples"),
    "negative": ({"x": SCORES, "labels": CLASSES - 5}, r"t\.npz: 'labels' holds -5, .* classes count from 0"),
    "too large": ({"x": SCORES, "labels": CLASSES.astype(np.uint64) + np.uint64(2**63)}, "holds 92233720368547758"),
    "input": ({"z": SCORES, "labels": CLASSES}, "did you mean 'x'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_say_what_is_wrong(tmp_path: Path, case: str) -> None:
    arrays, message = WRONG[case]
    with pytest.raises(CalibrationError, match=message):
        load_labelled(_save(tmp_path, **arrays), _model())


def test_a_folder_needs_labels(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(CalibrationError, match=r"no labels\.npy with the class of each sample"):
        load_labelled(tmp_path, _model())
    np.save(tmp_path / "x.npy", SCORES)
    np.save(tmp_path / "labels.npy", CLASSES)
    assert evaluate(_model(), load_labelled(tmp_path, _model())) == Accuracy(10, 10)


def test_labels_beyond_the_models_classes_are_an_error(tmp_path: Path) -> None:
    data = load_labelled(_save(tmp_path, x=SCORES, labels=CLASSES + 4), _model())
    with pytest.raises(CalibrationError, match="the model has 4 classes"):
        evaluate(_model(), data)


def test_a_model_without_scores_is_an_error(tmp_path: Path) -> None:
    model = _model("y = ReduceSum<keepdims=0>(x)")
    model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
    data = load_labelled(_save(tmp_path, x=SCORES, labels=CLASSES), model)
    with pytest.raises(CalibrationError, match="no output of the model is a class score"):
        evaluate(model, data)


def test_nan_scores_are_an_error(tmp_path: Path) -> None:
    data = load_labelled(_save(tmp_path, x=SCORES, labels=CLASSES), _model())
    with pytest.raises(VerificationError, match="NaN"):
        evaluate(_model("u = Sqrt(x)\n y = Identity(u)"), data)
