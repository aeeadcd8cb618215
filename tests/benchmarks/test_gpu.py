"""The GPU benchmark's records: what fails hides nothing that was measured, and what a compile notes is told."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import gpu, gpu_report

ROW = {"images_per_s": 2.0, "repeats_within": 0.01, "median_ms": 500.0, "p95_ms": 501.0, "runs": 8, "regime": "any; 8"}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, str]]:
    """Cases that fail, at first (1, "fp32")."""
    cases = {(1, "fp32")}

    def baselines(plan: gpu.Course) -> dict[str, Any]:
        case = (plan.batches[0], plan.precisions[0])
        if case in cases:
            raise RuntimeError("out of memory")
        return {"rows": [{"runtime": plan.runtimes[0], "batch": case[0], "precision": case[1], **ROW}]}

    monkeypatch.setitem(gpu.SECTIONS, "baselines", baselines)
    return cases


def run(folder: Path) -> tuple[Any, str]:
    assert gpu.main(["--cpu", "--here", "--only", "baselines", "--out", str(folder)]) == 0
    return json.loads((folder / "gpu.json").read_text())["baselines"], (folder / "gpu.md").read_text()


def test_a_case_that_fails_hides_no_other(tmp_path: Path, broken: set[tuple[int, str]]) -> None:
    found, page = run(tmp_path)
    assert [(r["batch"], r["precision"], "error" in r) for r in found["rows"]] == [
        (1, "fp32", True), (1, "fp16", False), (2, "fp32", False), (2, "fp16", False),
    ]  # fmt: skip
    assert "| onnxruntime | 1 | fp32 | RuntimeError: out of memory |" in page
    assert page.count("| 500.000 |") == 3


def test_a_case_that_is_measured_later_takes_its_errors_place(tmp_path: Path, broken: set[tuple[int, str]]) -> None:
    run(tmp_path)
    broken.clear()
    found, page = run(tmp_path)
    assert len(found["rows"]) == 4
    assert "RuntimeError" not in page


def test_what_a_compile_notes_is_told() -> None:
    row = {"runtime": "tensorrt", "batch": 1, "precision": "fp16", "speedup_asked": 1.6, "status": "met",
           "baseline_ms": 2.0, "predicted_ms": 1.2, "measured_ms": 1.2, "speedup": 1.67, "images_per_s_before": 1.0,
           "images_per_s_after": 2.0, "macs_kept": 0.5, "compile_seconds": 9.0, "notes": ["runs in fp32"]}  # fmt: skip
    assert "- tensorrt, batch 1, fp16, 1.6×: runs in fp32" in gpu_report.markdown({"compiled": {"rows": [row]}})


def apart(folder: Path, *arguments: str) -> dict[str, Any]:
    assert gpu.main(["--cpu", "--out", str(folder), *arguments]) == 0
    found: dict[str, Any] = json.loads((folder / "gpu.json").read_text())
    return found


def test_a_step_that_dies_is_a_row_and_the_next_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[list[str]] = []

    def process(command: list[str], **others: Any) -> Any:
        died.append(command)
        if len(died) == 2:
            raise gpu.subprocess.TimeoutExpired(command, others["timeout"])
        return SimpleNamespace(returncode=-11 if len(died) == 1 else 0)

    monkeypatch.setattr(gpu.subprocess, "run", process)
    found = apart(tmp_path, "--only", "compiled", "--batches", "1", "--precisions", "fp32", "fp16")
    assert len(died) == 4
    assert died[0][died[0].index("--speedups") :] == ["--speedups", "1.6", "--cpu"]
    rows = found["compiled"]["rows"]
    assert [(row["precision"], row["speedup_asked"]) for row in rows] == [("fp32", 1.6), ("fp32", 2.55)]
    assert "killed by signal 11" in rows[0]["error"]
    assert "ended after" in rows[1]["error"]
    assert "killed by signal 11" in (tmp_path / "gpu.md").read_text()


def test_what_there_is_no_time_for_is_said_and_hides_nothing_that_was_measured(
    tmp_path: Path, broken: set[tuple[int, str]]
) -> None:
    broken.clear()
    run(tmp_path)
    found = apart(tmp_path, "--only", "baselines", "staircases", "--minutes", "0")
    assert [row["median_ms"] for row in found["baselines"]["rows"]] == [500.0] * 4
    assert {row["error"] for row in found["staircases"]["rows"]} == {"not run: the time was over"}


def test_a_step_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    found = apart(tmp_path, "--only", "environment")
    assert found["environment"]["versions"]["onnx"]


def test_an_engines_page_tells_how_far_it_got() -> None:
    timing = {"median_ms": 1.5, "regime": "as a CUDA graph"}
    build = {"seconds": 2.0, "notes": ["the engine runs only on an H100"]}
    engines = [
        {"model": "resnet50", "precision": "fp16", "build": build, "timing": timing, "layers_ms": 1.75, "nodes": 120,
         "nodes_named": 118, "kernel_ms": [0.5, 0.25]},
        {"model": "resnet50", "precision": "fp32", "error": "BackendError: no | memory\nat all"},
    ]  # fmt: skip
    device = {"name": "an H100", "backend": "tensorrt", "version": "11.4"}
    page = gpu_report.markdown({"tensorrt": {"device": device, "engines": engines}})
    assert "an H100, tensorrt 11.4." in page
    assert "1.500 ms (as a CUDA graph); layers 1.750 ms, 118 of 120 nodes named in them" in page
    assert "- resnet50, fp32: not built; not run; BackendError: no / memory" in page


def test_a_cuda_graph_that_is_refused_leaves_the_time_without_one() -> None:
    page = gpu_report.markdown({"cuda_graph": {"without": 2.0, "refused": "RuntimeError: no capture"}})
    assert "2.000 ms without, refused (RuntimeError: no capture) with a CUDA graph" in page
