"""`sweep`: one profile, many budgets, a folder each; interrupted or not, whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import halpc.compile
import halpc.sweep
from halpc.cli import main
from halpc.errors import OverBudgetError
from halpc.ir.frontier import Point
from tests.small import saved


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return saved(tmp_path)


def test_a_sweep_writes_a_folder_per_budget(network: Path) -> None:
    out = network.parent / "sweep"
    assert main(["sweep", str(network), "--macs", "80%,50%,0.01%", "-o", str(out), "--json"]) == 0
    points = json.loads((out / "sweep.json").read_text())["points"]
    assert [p["status"] for p in points] == ["met", "met", "infeasible"]
    assert (out / "80pct" / "pruned.onnx").is_file()


def test_a_sweep_that_meets_no_budget_is_4_and_says_that_there_is_no_model(
    network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = network.parent / "sweep"
    (out / "0.01pct").mkdir(parents=True)
    (out / "0.01pct" / "pruned.onnx").write_text("of an earlier sweep")
    assert main(["sweep", str(network), "--macs", "0.01%,0.02%", "-o", str(out)]) == 4
    said = capsys.readouterr()
    assert f"written     {out}/sweep.json; no model" in said.out
    assert "none of 2 budget(s) can be met" in said.err
    assert "the floor is" in said.err
    assert not list(out.rglob("pruned.onnx"))


def test_a_sweep_that_only_found_models_over_their_budgets_is_7() -> None:
    with pytest.raises(OverBudgetError):
        halpc.sweep.refuse_all_missed([Point("9%", "infeasible", None), Point("50%", "slower", None)])
    halpc.sweep.refuse_all_missed([Point("50%", "over budget", None), Point("80%", "met", None)])


def test_less_is_kept_at_tighter_budgets_and_each_is_met(network: Path) -> None:
    out = network.parent / "sweep"
    assert main(["sweep", str(network), "--macs", "90%,70%,50%,30%", "-o", str(out), "--json"]) == 0
    points = json.loads((out / "sweep.json").read_text())["points"]
    shares = [p["result"]["macs"] / p["baseline"]["macs"] for p in points]
    assert all(share <= limit for share, limit in zip(shares, (0.9, 0.7, 0.5, 0.3), strict=True))
    kept = [p["importance_kept"] for p in points]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > kept[-1]
    prices = [p["prices"]["macs"] for p in points]
    assert prices == sorted(prices)


def test_the_model_as_it_came_is_evaluated_once(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labelled = network.parent / "l.npz"
    np.savez(labelled, x=rng.standard_normal((50, 3, 8, 8)).astype(np.float32), labels=rng.integers(0, 5, 50))
    real, calls = halpc.compile.evaluate, []
    monkeypatch.setattr(halpc.compile, "evaluate", lambda *a: calls.append(a) or real(*a))  # type: ignore[func-returns-value]
    out = network.parent / "sweep"
    assert main(["sweep", str(network), "--macs", "80%,50%", "--evaluate", str(labelled), "-o", str(out)]) == 0
    assert len(calls) == 3
    points = json.loads((out / "sweep.json").read_text())["points"]
    assert len({p["baseline"]["accuracy"] for p in points}) == 1
    assert all(p["result"]["accuracy"] is not None for p in points)


def test_an_interrupted_sweep_leaves_whole_folders_and_a_list_of_them(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = halpc.sweep.write, []

    def interrupted(job: object, report: object, folder: Path) -> object:
        found = real(job, report, folder)  # type: ignore[arg-type]
        written.append(folder)
        if len(written) == 2:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(halpc.sweep, "write", interrupted)
    out = network.parent / "sweep"
    assert main(["sweep", str(network), "--macs", "80%,50%", "-o", str(out)]) == 130
    assert {f.name for f in out.iterdir()} == {"80pct", "sweep.json"}
    assert (out / "80pct" / "report.json").is_file()
    assert [p["budget"] for p in json.loads((out / "sweep.json").read_text())["points"]] == ["80%"]
    assert not list(network.parent.glob(".*.tmp"))
