"""What is missing, or cannot be used, is refused before anything that costs time is begun."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from halpc.cli import main
from profilers.onnxrt import OnnxRuntimeProfiler
from tests.small import saved


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network, on a machine without an NVIDIA driver."""
    monkeypatch.setattr("profilers.cuda.DRIVER_LIBRARY", "libcuda-that-nobody-has.so")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "a.table").write_text("hello\n")
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "a.txt").write_text("hello\n")
    return saved(tmp_path)


BEFORE_THE_MODEL: dict[str, tuple[int, tuple[str, ...], str]] = {
    "no TensorRT": (6, ("--profiler", "tensorrt"), "tensorrt"),
    "TF32 without tensor cores": (6, ("--profiler", "onnxruntime", "--precision", "tf32"), "tf32"),
    "no table": (3, ("--table", "a.table"), "a.table"),
    "no foreign table": (3, ("--table", "none.table", "--accept-table-from-other-device"), "none.table"),
    "a table inside a file": (3, ("--table", "a.txt/b.table"), "a.txt"),
    "no importance": (3, ("--importance", "none.npz"), "none.npz"),
    "importance of another kind": (3, ("--importance", "a.txt"), ".safetensors"),
    "damaged importance": (3, ("--importance", "a.json"), "a.json"),
    "no plan": (3, ("--resume", "none.json"), "none.json"),
    "damaged plan": (3, ("--resume", "a.json"), "a.json"),
    "no calibration inputs": (3, ("--calibration", "none.npz"), "none.npz"),
    "calibration inputs of another kind": (3, ("--calibration", "a.txt"), "a.txt"),
    "no labelled inputs": (3, ("--evaluate", "none.npz"), "none.npz"),
    "an output that is a file": (3, ("-o", "a.txt"), "a.txt"),
    "an output inside a file": (3, ("-o", "a.txt/out"), "a.txt"),
    "a score without inputs": (2, ("--score", "energy"), "--calibration"),
    "an engine that nothing builds": (
        2, ("--profiler", "tensorrt", "--table", "TABLE", "--accept-table-from-other-device"), "builds an engine",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BEFORE_THE_MODEL)
def test_it_is_refused_before_the_model_is_read(
    what: str, network: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, arguments, word = BEFORE_THE_MODEL[what]
    monkeypatch.chdir(network.parent)
    if "TABLE" in arguments:
        assert main(["profile", str(network), "-o", "TABLE", "-q", "--profiler", "onnxruntime"]) == 0
    monkeypatch.setattr("halpc.compile.load", lambda *a, **k: pytest.fail("the model was read"))
    out = () if "-o" in arguments else ("-o", "out")
    assert main(["compile", str(network), *out, "-q", "--latency", "70%", *arguments]) == code
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert word in said
    assert not Path("out").exists()


def test_an_engine_of_counted_budgets_is_refused(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(network.parent / "out")
    assert main(["compile", str(network), "-o", out, "--macs", "70%", "--profiler", "tensorrt"]) == 2
    assert "--latency" in capsys.readouterr().err


def test_a_precision_without_kernels_is_refused_before_inputs_are_read(
    network: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(network.parent / "c.npz", x=np.zeros((1, 1)))
    monkeypatch.setattr("halpc.compile.load_calibration", lambda *a, **k: pytest.fail("inputs were read"))
    given = ("--profiler", "onnxruntime", "--precision", "bf16", "--calibration", str(network.parent / "c.npz"))
    assert main(["compile", str(network), "-o", str(network.parent / "o"), "-q", "--latency", "70%", *given]) == 6
    assert "--precision bf16" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["profile", "bench"])
def test_what_measures_alone_looks_for_its_backend_first(
    command: str, network: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("halpc.measuring.load", lambda *a, **k: pytest.fail("the model was read"))
    more = {"profile": ["-o", str(network.parent / "t")], "bench": [str(saved(network.parent, name="b.onnx"))]}[command]
    assert main([command, str(network), *more, "--profiler", "tensorrt"]) == 6
    assert "tensorrt" in capsys.readouterr().err


@pytest.mark.parametrize("name, code", [("g.png", 2), ("none/g.svg", 3), ("a.txt/g.svg", 3), (".", 2)])
def test_a_drawing_that_cannot_be_written_is_refused(
    name: str, code: int, network: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("halpc.inspection.load", lambda *a, **k: pytest.fail("the model was read"))
    assert main(["inspect", str(network), "--graph", str(network.parent / name)]) == code
    assert "--graph" in capsys.readouterr().err


def test_a_table_that_is_whole_may_be_read_only(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = network.parent / "t.jsonl"
    assert main(["profile", str(network), "-o", str(table), "-q", "--profiler", "onnxruntime"]) == 0
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setattr(OnnxRuntimeProfiler, "kernels", lambda *a, **k: pytest.fail("measured"))
    out = network.parent / "out"
    given = ("--latency", "70%", "--table", str(table), "--profiler", "onnxruntime", "--dry-run")
    assert main(["compile", str(network), "-o", str(out), "-q", *given]) in (0, 7)
    assert json.loads(table.read_text().splitlines()[0])["format"] == "halpc.latency"
