"""What an engine's builder says reaches the report and the reader, with a builder that only writes a file."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

import halpc.compile
from halpc import trials
from halpc.cli import main
from halpc.evidence import Evidence
from profilers.trt import BuiltEngine
from tests.small import saved


class Builder:
    """`TensorRTProfiler`, as far as writing the output asks for it."""

    def build(self, model: onnx.ModelProto, path: Path, *, shapes: Any, precision: str) -> BuiltEngine:
        path.write_bytes(b"engine")
        layers = path.with_name("model.layers.json")
        layers.write_text("{}")
        notes = ("the engine's computing layers by precision: 3 fp16, 1 fp32", "the engine runs only on an H100")
        return BuiltEngine(
            path, layers, "tensorrt", "11.4", "an H100", {"fp16": 3, "fp32": 1}, notes, ("lazy loading is off",), 6, 0.5
        )


def test_an_engines_own_word_is_in_the_report_and_its_files_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(halpc.compile, "backend_of", lambda job: Builder())
    out = tmp_path / "out"
    assert main(["compile", str(saved(tmp_path)), "--macs", "60%", "-o", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["engine"]["precisions"] == {"fp16": 3, "fp32": 1}
    assert report["engine"]["warnings"] == ["lazy loading is off"]
    assert "the engine runs only on an H100" in report["notes"]
    assert "3 fp16, 1 fp32" in (out / "report.html").read_text()
    said = " ".join(capsys.readouterr().out.split())
    assert "the engine runs only on an H100" in said
    assert "model.engine, model.layers.json" in said
    assert (out / "model.engine").read_bytes() == b"engine"


def test_without_an_engine_the_report_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["compile", str(saved(tmp_path)), "--macs", "60%", "-o", str(out)]) == 0
    assert json.loads((out / "report.json").read_text())["engine"] is None
    assert "model.engine" not in capsys.readouterr().out


@pytest.mark.parametrize(("engine_ms", "said"), [(1.0, False), (1.005, False), (1.2, True), (None, False)])
def test_an_engine_over_the_budget_by_more_than_noise_is_told(engine_ms: float | None, said: bool) -> None:
    job: Any = SimpleNamespace(
        engine_ms=engine_ms, evidence=Evidence(2.0, 0.999, 1.0, 0.999, 0.99, 1.01, 9), profiler=object(),
        engine=SimpleNamespace(measured=False), engine_shapes={},
    )  # fmt: skip
    remarks = list(trials.engine_remarks(job))
    assert [("model.engine takes 1.2" in remark) for remark in remarks] == [True] * said
    assert trials.status(job) == ("over budget" if said else "met")
