"""The GPU benchmark's records: what fails hides nothing that was measured, and what a compile notes is told."""

from __future__ import annotations

import json
from pathlib import Path
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
        return {"rows": [{"batch": case[0], "precision": case[1], **ROW}]}

    monkeypatch.setitem(gpu.SECTIONS, "baselines", baselines)
    return cases


def run(folder: Path) -> tuple[Any, str]:
    assert gpu.main(["--cpu", "--only", "baselines", "--out", str(folder)]) == 0
    return json.loads((folder / "gpu.json").read_text())["baselines"], (folder / "gpu.md").read_text()


def test_a_case_that_fails_hides_no_other(tmp_path: Path, broken: set[tuple[int, str]]) -> None:
    found, page = run(tmp_path)
    assert [(r["batch"], r["precision"], "error" in r) for r in found["rows"]] == [
        (1, "fp32", True), (1, "fp16", False), (2, "fp32", False), (2, "fp16", False),
    ]  # fmt: skip
    assert "| 1 | fp32 | RuntimeError: out of memory |" in page
    assert page.count("| 500.000 |") == 3


def test_a_case_that_is_measured_later_takes_its_errors_place(tmp_path: Path, broken: set[tuple[int, str]]) -> None:
    run(tmp_path)
    broken.clear()
    found, page = run(tmp_path)
    assert len(found["rows"]) == 4
    assert "RuntimeError" not in page


def test_what_a_compile_notes_is_told() -> None:
    row = {"batch": 1, "precision": "fp16", "speedup_asked": 1.6, "status": "met", "baseline_ms": 2.0,
           "predicted_ms": 1.2, "measured_ms": 1.2, "speedup": 1.67, "images_per_s_before": 1.0,
           "images_per_s_after": 2.0, "macs_kept": 0.5, "compile_seconds": 9.0, "notes": ["runs in fp32"]}  # fmt: skip
    assert "- batch 1, fp16, 1.6×: runs in fp32" in gpu_report.markdown({"compiled": {"rows": [row]}})
