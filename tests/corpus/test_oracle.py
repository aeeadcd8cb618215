"""The independent judge: right models pass, also where they choose between near ties; wrong ones do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.corpus.oracle import judge
from tests.passes.test_verify import change, detector, pruned


def files(folder: Path, *wrong: str) -> tuple[Path, Path, Path]:
    loaded, _, plan, proto = pruned(detector(), folder)
    for name in wrong:
        change(proto, name, lambda w: np.roll(w, 1, 0 if w.shape[0] > 1 else 1))
    (folder / "plan.json").write_text(json.dumps(plan.as_json()))
    onnx.save(proto, folder / "pruned.onnx")
    return loaded.path, folder / "plan.json", folder / "pruned.onnx"


def test_near_ties_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = files(tmp_path)
    found = judge(*paths)
    assert found.choices == 1
    assert found.sound
    assert found.error < 1e-5
    monkeypatch.setattr("tests.corpus.oracle.places", lambda whole, small: [])
    assert judge(*paths).error > 0.1


@pytest.mark.parametrize("name", ["near_w", "score_w", "encoder_w", "decoder_w", "box_w"])
def test_a_wrong_slice_is_seen(name: str, tmp_path: Path) -> None:
    assert not judge(*files(tmp_path, name)).sound
