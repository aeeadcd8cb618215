"""`--max-drop`: the fastest model that loses no more than was allowed, judged by what onnxruntime says of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import halpc.sweep
from halpc.cli import main
from halpc.errors import InfeasibleError, OverBudgetError
from halpc.ir.report import Report
from halpc.job import Job
from halpc.options import Options
from halpc.sweep import fastest_within
from tests.small import saved

RANDOM = np.random.default_rng(0).standard_normal((400, 3, 8, 8)).astype(np.float32)


def answers(path: Path) -> np.ndarray:
    return np.asarray(ort.InferenceSession(path).run(None, {"x": RANDOM})[0]).argmax(1)


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[Path, Path]:
    """A network, and inputs labelled as it answers them: it has them all right."""
    path = saved(tmp_path)
    np.savez(tmp_path / "labelled.npz", x=RANDOM, labels=answers(path))
    return path, tmp_path / "labelled.npz"


@pytest.mark.parametrize("allowed", [0.1, 0.3])
def test_no_more_is_lost_than_was_allowed(labelled: tuple[Path, Path], tmp_path: Path, allowed: float) -> None:
    path, data = labelled
    report = fastest_within(Options(path, (), out=tmp_path / "out", evaluate=data), "macs", allowed)
    wrong = float((answers(tmp_path / "out" / "pruned.onnx") != answers(path)).mean())
    assert report.result.accuracy == pytest.approx(1 - wrong)
    assert 0 < wrong <= allowed
    assert report.result.macs < report.baseline.macs


def test_more_may_be_cut_where_more_may_be_lost(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    path, data = labelled
    macs = [
        fastest_within(Options(path, (), out=tmp_path / f"{a}", evaluate=data), "macs", a).result.macs
        for a in (0.05, 0.5)
    ]
    assert macs[1] < macs[0]


def test_a_network_that_loses_at_once_is_refused(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    path, data = labelled
    rng = np.random.default_rng(1)
    wrong = (answers(path) + rng.integers(1, 5, len(RANDOM))) % 5
    np.savez(data, x=RANDOM, labels=np.where(rng.random(len(RANDOM)) < 0.5, answers(path), wrong))
    with pytest.raises(InfeasibleError, match="max-drop"):
        fastest_within(Options(path, (), out=tmp_path / "out", evaluate=data), "macs", 0.0)


def test_only_what_is_accepted_is_measured(
    labelled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = labelled
    real, tried, measured = halpc.sweep._accepted, [], []
    finish = halpc.sweep.finish

    def accepted(job: Job, max_drop: float) -> bool:
        tried.append((job.options.budgets[0].share, real(job, max_drop)))
        return tried[-1][1]

    monkeypatch.setattr(halpc.sweep, "_accepted", accepted)
    monkeypatch.setattr(halpc.sweep, "finish", lambda job: measured.append(job.options.budgets[0].share) or finish(job))
    fastest_within(Options(path, (), out=tmp_path / "out", evaluate=data), "macs", 0.1)
    assert {accept for _, accept in tried} == {True, False}
    assert measured == [min(share for share, accept in tried if accept)]


def test_where_the_measured_choice_fails_larger_shares_follow(
    labelled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = labelled
    finish, measured = halpc.sweep.finish, []

    def missed(job: Job) -> Report:
        measured.append(job.options.budgets[0].share)
        if len(measured) < 3:
            raise OverBudgetError("missed")
        return finish(job)

    monkeypatch.setattr(halpc.sweep, "finish", missed)
    fastest_within(Options(path, (), out=tmp_path / "out", evaluate=data), "macs", 0.1)
    assert np.diff(measured)[:2] == pytest.approx([0.02, 0.04])


def test_where_no_choice_of_the_cost_models_is_accepted_the_largest_share_is_measured(
    labelled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = labelled
    monkeypatch.setattr(halpc.sweep, "_accepted", lambda job, max_drop: False)
    report = fastest_within(Options(path, (), out=tmp_path / "out", evaluate=data), "macs", 0.9)
    assert report.budget["macs"]["asked"] == "98%"


def test_shares_onwards_end_below_the_whole_model() -> None:
    assert list(halpc.sweep._onwards(1.0)) == [0.98]
    assert list(halpc.sweep._onwards(0.99)) == [0.99]
    assert list(halpc.sweep._onwards(0.9)) == pytest.approx([0.9, 0.92, 0.96, 0.98])


@pytest.mark.slow
def test_a_dry_run_writes_nothing(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    path, data = labelled
    given = ["--max-drop", "30%", "--evaluate", str(data), "--profiler", "onnxruntime", "--dry-run", "-q"]
    assert main(["compile", str(path), *given, "-o", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out").exists()


def test_it_stands_in_place_of_a_budget(labelled: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    path, data = labelled
    assert main(["compile", str(path), "--max-drop", "1%", "--evaluate", str(data), "--latency", "60%"]) == 2
    assert "--max-drop" in capsys.readouterr().err


def test_it_needs_labels(labelled: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["compile", str(labelled[0]), "--max-drop", "1%", "-o", str(tmp_path / "out")])
    assert code == 2
    assert "--evaluate" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
