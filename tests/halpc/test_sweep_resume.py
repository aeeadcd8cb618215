"""A sweep that is started again: what is finished is kept where all that decides it is the same, and only there."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import halpc.compile
import halpc.scoring
import halpc.sweep
from halpc.cli import main
from tests.small import SHAPES, model, saved, weights


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return saved(tmp_path)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The budgets that were compiled, in order."""
    real, texts = halpc.sweep._point, []

    def counted(job: Any, budget: Any, out: Path) -> Any:
        texts.append(budget.text)
        return real(job, budget, out)

    monkeypatch.setattr(halpc.sweep, "_point", counted)
    return texts


def swept(network: Path, budgets: str = "80%,50%,0.01%", *more: str) -> int:
    out = network.parent / "sweep"
    return main(["sweep", str(network), "--macs", budgets, "-o", str(out), *more])


def written(network: Path) -> Any:
    return json.loads((network.parent / "sweep" / "sweep.json").read_text())


def test_an_interrupted_sweep_goes_on_where_it_was(
    network: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        real, written_to = halpc.sweep.write, []

        def interrupted(job: Any, report: Any, folder: Path) -> Any:
            written_to.append(folder)
            if len(written_to) == 2:
                raise KeyboardInterrupt
            return real(job, report, folder)

        patch.setattr(halpc.sweep, "write", interrupted)
        assert swept(network) == 130
    first = written(network)["points"]
    before = (network.parent / "sweep" / "80pct" / "report.json").stat().st_mtime_ns
    compiled.clear()
    assert swept(network) == 0
    assert compiled == ["50%", "0.01%"]
    assert "80% finished earlier" in caplog.text
    points = written(network)["points"]
    assert points[:1] == first
    assert [p["budget"] for p in points] == ["80%", "50%", "0.01%"]
    assert (network.parent / "sweep" / "80pct" / "report.json").stat().st_mtime_ns == before


def test_a_finished_sweep_says_the_same_again_and_learns_nothing(
    network: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert swept(network, "80%,0.01%", "--json") == 0
    said, file = capsys.readouterr().out, written(network)
    monkeypatch.setattr("halpc.compile.couple", lambda *a, **k: pytest.fail("went on"))
    assert swept(network, "80%,0.01%", "--json") == 0
    assert compiled == ["80%", "0.01%"]
    assert (capsys.readouterr().out, written(network)) == (said, file)


def test_a_budget_more_costs_that_budget_alone(network: Path, compiled: list[str]) -> None:
    swept(network, "80%,50%")
    swept(network, "80%,60%,50%")
    assert compiled == ["80%", "50%", "60%"]
    assert [p["budget"] for p in written(network)["points"]] == ["80%", "60%", "50%"]


def test_a_budget_whose_folder_is_gone_is_compiled_again(network: Path, compiled: list[str]) -> None:
    swept(network, "80%,50%")
    (network.parent / "sweep" / "80pct" / "report.json").unlink()
    swept(network, "80%,50%")
    assert compiled == ["80%", "50%", "80%"]
    assert (network.parent / "sweep" / "80pct" / "report.json").is_file()


@pytest.mark.parametrize(
    "changed, word",
    [
        (("--score", "l1"), "score"),
        (("--min-width", "4"), "min_width"),
        (("--freeze", "net.c"), "freeze"),
        (("--params", "80%,50%"), "resource"),
    ],
)
def test_another_option_starts_anew_and_says_which(
    network: Path, compiled: list[str], caplog: pytest.LogCaptureFixture, changed: tuple[str, ...], word: str
) -> None:
    out = network.parent / "sweep"
    swept(network, "80%,50%")
    budgets = () if word == "resource" else ("--macs", "80%,50%")
    assert main(["sweep", str(network), *budgets, "-o", str(out), *changed]) == 0
    assert compiled == ["80%", "50%"] * 2
    assert f"is of another {word}: every budget is compiled anew" in caplog.text


def test_a_list_does_not_outlive_the_models_that_it_speaks_of(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the first folder of other options is written and before the list of them is."""
    swept(network, "80%,50%")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(halpc.sweep, "Frontier", killed)
        assert swept(network, "80%,50%", "--score", "l1") == 130
    assert not (network.parent / "sweep" / "sweep.json").exists()


def test_other_weights_start_anew(network: Path, compiled: list[str], caplog: pytest.LogCaptureFixture) -> None:
    swept(network, "80%")
    saved(network.parent, model(arrays=weights(SHAPES, seed=1)))
    swept(network, "80%")
    assert compiled == ["80%", "80%"]
    assert "of another model" in caplog.text


def test_other_contents_of_a_file_start_anew_and_another_name_does_not(
    network: Path, compiled: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = network.parent / "i.npz", network.parent / "j.npz"
    np.savez(first, **{"net.a": np.arange(16.0)})
    second.write_bytes(first.read_bytes())
    swept(network, "80%", "--importance", str(first))
    swept(network, "80%", "--importance", str(second))
    assert compiled == ["80%"]
    np.savez(first, **{"net.a": np.arange(16.0)[::-1]})
    swept(network, "80%", "--importance", str(first))
    assert compiled == ["80%", "80%"]
    assert "of another importance" in caplog.text


def test_another_version_starts_anew(network: Path, compiled: list[str], caplog: pytest.LogCaptureFixture) -> None:
    swept(network, "80%")
    path = network.parent / "sweep" / "sweep.json"
    path.write_text(path.read_text().replace('"version of halpc": "0.', '"version of halpc": "9.'))
    swept(network, "80%")
    assert compiled == ["80%", "80%"]
    assert "of another version of halpc" in caplog.text


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": "halpc.sweep", "version": 1, "points": 3}', "\x00"])
def test_a_list_that_is_no_sweep_is_no_obstacle(network: Path, caplog: pytest.LogCaptureFixture, content: str) -> None:
    (network.parent / "sweep").mkdir()
    (network.parent / "sweep" / "sweep.json").write_text(content)
    with caplog.at_level(logging.WARNING):
        assert swept(network, "80%") == 0
    assert "every budget is compiled anew" in caplog.text
    assert [p["budget"] for p in written(network)["points"]] == ["80%"]


@pytest.mark.parametrize("resource", ["latency", "macs", "params", "peak-memory"])
def test_every_resource_can_be_swept(network: Path, resource: str) -> None:
    out = network.parent / "sweep"
    assert main(["sweep", str(network), f"--{resource}", "90%", "-o", str(out), "--profiler", "onnxruntime"]) == 0
    assert [p["budget"] for p in written(network)["points"]] == ["90%"]


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sources that were scored from, in order."""
    real, sources = halpc.scoring._scored, []

    def counted(job: Any) -> Any:
        sources.append(job.calibration.source)
        return real(job)

    monkeypatch.setattr(halpc.scoring, "_scored", counted)
    return sources


def inputs(network: Path, seed: int = 0) -> str:
    images = np.random.default_rng(seed).standard_normal((32, 3, 8, 8)).astype(np.float32)
    np.savez(network.parent / "c.npz", x=images)
    return str(network.parent / "c.npz")


def test_scores_of_a_sweep_that_goes_on_are_not_computed_again(network: Path, scored: list[str]) -> None:
    swept(network, "80%,50%", "--calibration", inputs(network))
    other = network.parent / "other"
    main(["sweep", str(network), "--macs", "60%", "-o", str(other), "--calibration", inputs(network)])
    swept(network, "80%,60%,50%", "--calibration", inputs(network))
    assert len(scored) == 2
    kept, anew = (json.loads((f / "60pct" / "plan.json").read_text()) for f in (network.parent / "sweep", other))
    assert kept == anew


def test_scores_of_other_inputs_are_not_taken(network: Path, scored: list[str]) -> None:
    swept(network, "80%", "--calibration", inputs(network))
    swept(network, "80%", "--calibration", inputs(network, seed=1))
    assert len(scored) == 2


@pytest.mark.parametrize(
    "old, new",
    [("{", "["), ('"version": 1', '"version": 2'), ('"scores": {', '"scores": {"net.x": [1.0],'), ("0.", "-0.")],
)
def test_scores_that_are_damaged_are_computed_again(
    network: Path, scored: list[str], old: str, new: str, compiled: list[str]
) -> None:
    swept(network, "80%", "--calibration", inputs(network))
    path = network.parent / "sweep" / "scores.json"
    head, mark, scores = path.read_text().partition('"source"')
    path.write_text(
        head + mark + scores.replace(old, new) if new == "-0." else (head + mark + scores).replace(old, new)
    )
    swept(network, "80%,50%", "--calibration", inputs(network))
    assert compiled == ["80%", "50%"]
    assert len(scored) == 2
