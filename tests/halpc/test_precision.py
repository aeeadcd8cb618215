"""--precision from the command line to the files: what is measured, evaluated and written has it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantFormat

from halpc.cli import main
from passes.cast import cast, precision_of
from tests.halpc.quantised import quantised
from tests.small import model, saved, weights

WIDE = {"w0": (32, 3, 3, 3), "b0": (32,), "w1": (48, 32, 3, 3), "b1": (48,), "w2": (32, 48, 3, 3), "b2": (32,),
        "w3": (5, 32), "b3": (5,)}  # fmt: skip


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HALPC_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    images = rng.standard_normal((64, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "calibration.npz", x=images)
    np.savez(tmp_path / "test.npz", x=images, labels=rng.integers(0, 5, 64))
    return saved(tmp_path, model(arrays=weights(WIDE)))


def compiled(network: Path, precision: str, *arguments: str) -> tuple[int, Path]:
    out = network.parent / f"out-{precision}"
    common = ["-o", str(out), "-q", "--profiler", "onnxruntime", "--precision", precision]
    return main(["compile", str(network), *common, *arguments]), out


def data(network: Path) -> list[str]:
    return ["--calibration", str(network.parent / "calibration.npz"), "--evaluate", str(network.parent / "test.npz")]


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
def test_the_deployed_model_has_the_precision_and_top1_is_its_own(network: Path, precision: str) -> None:
    code, out = compiled(network, precision, "--macs", "60%", *data(network))
    report = json.loads((out / "report.json").read_text())
    assert code == 0
    assert precision_of(onnx.load(out / "pruned.onnx")) == "fp32"
    assert precision_of(onnx.load(out / f"pruned.{precision}.onnx")) == precision
    assert 0 <= report["result"]["accuracy"] <= 1
    cannot_run = any("cannot run here" in note for note in report["notes"])
    assert cannot_run == (precision in ("bf16", "fp8"))


def test_int8_without_inputs_for_its_ranges_is_refused_before_anything_is_measured(
    network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = compiled(network, "int8", "--latency", "60%")
    assert code == 2
    assert "needs --calibration" in capsys.readouterr().err
    assert not out.exists()
    assert not (network.parent / "cache").exists()


def test_a_precision_that_the_runtime_lacks_is_refused_before_anything_is_profiled(
    network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = compiled(network, "bf16", "--latency", "60%")
    assert code == 6
    assert "at --precision bf16: onnxruntime cannot load the model" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_a_model_that_is_quantised_already_passes_through(network: Path, form: QuantFormat) -> None:
    source = quantised(network, form)
    code, out = compiled(source, "int8", "--macs", "70%")
    assert code == 0
    pruned = onnx.load(out / "pruned.onnx")
    assert precision_of(pruned) == "int8"
    assert pruned.SerializeToString() == cast(pruned, "int8").SerializeToString()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_latency_budget_is_met_at_the_precision(network: Path, precision: str) -> None:
    code, out = compiled(network, precision, "--latency", "75%", *data(network))
    report = json.loads((out / "report.json").read_text())
    assert code == (0 if report["status"] == "met" else 7)
    assert report["device"]["precision"] == precision
    assert report["result"]["latency_ms"] < report["baseline"]["latency_ms"]
