"""Reasons: for every group, what its next width would have bought and cost, against the prices paid."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from halpc import show, summary
from halpc.cli import main
from halpc.compile import PREPARE, finish, run
from halpc.ir.dims import Leaf
from halpc.ir.problem import Charge, Choice, Problem, Resource
from halpc.ir.report import Report
from halpc.job import Job
from halpc.options import Options
from halpc.units import parse_budget
from passes.select.outcome import marginal_steps
from tests.small import saved


def finished(tmp_path: Path, solver: str = "joint", **budgets: str) -> tuple[Job, Report]:
    asked = tuple(parse_budget(resource, text) for resource, text in budgets.items())
    job = Job(Options(saved(tmp_path), asked, out=tmp_path / "out", solver=solver))
    run(job, PREPARE)
    return job, finish(job)


@pytest.mark.parametrize("solver", ["joint", "halp", "sp-lamp"])
def test_the_next_width_buys_and_costs_what_the_model_with_it_keeps_and_costs_more(tmp_path: Path, solver: str) -> None:
    job, report = finished(tmp_path, solver, macs="50%")
    narrowed = [line for line in report.groups if line.width < line.size]
    assert narrowed
    for line in narrowed:
        assert line.next_width is not None
        assert line.width < line.next_width <= line.size
        curve = job.saliency.curve(line.name)
        assert line.next_gain == pytest.approx(curve[line.next_width] - curve[line.width])
        macs = [job.costs["macs"].at({**job.selection.widths, line.name: w}) for w in (line.width, line.next_width)]
        assert line.next_cost["macs"] == pytest.approx(macs[1] - macs[0])
        assert line.next_price["macs"] == pytest.approx(line.next_gain / (macs[1] - macs[0]))


@pytest.mark.parametrize(("width", "expected"), [(16, 32), (17, 32), (8, 16), (48, 50), (50, None)])
def test_the_next_width_ends_the_next_latency_step(width: int, expected: int | None) -> None:
    widths = np.arange(1, 51)
    choice = Choice("g", widths, np.sqrt(widths), step=16)
    tiles = Charge("k", (Leaf("g", 50),), lambda w: np.ceil(w / 16))
    (step,) = marginal_steps(Problem((choice,), (Resource("latency", "ms", 2.0, 0.0, (tiles,)),)), {"g": width})
    assert step.next_width == expected
    if expected is not None:
        assert step.gain == pytest.approx(expected**0.5 - width**0.5)
        assert step.cost["latency"] == np.ceil(expected / 16) - np.ceil(width / 16)


def test_a_group_at_full_width_has_no_next(tmp_path: Path) -> None:
    _, report = finished(tmp_path, macs="100%")
    assert all(line.width == line.size for line in report.groups)
    assert all(line.next_width is None and line.next_gain is None for line in report.groups)


def test_every_budget_has_a_price_and_no_step_is_worth_more_than_they_ask_plus_the_gap(tmp_path: Path) -> None:
    job, report = finished(tmp_path, macs="60%", params="40%")
    assert set(report.prices) == {"macs", "params"}
    assert all(price >= 0 for price in report.prices.values())
    assert any(price > 0 for price in report.prices.values())
    for line in report.groups:
        if line.next_gain is None:
            continue
        asked = sum(report.prices[name] * cost for name, cost in line.next_cost.items())
        assert line.next_asked == pytest.approx(asked)
        assert line.next_gain - asked <= job.selection.bound - job.selection.value + 1e-9


@pytest.mark.parametrize("solver", ["halp", "sp-lamp"])
def test_a_solver_without_prices_gives_the_marginal_price_alone(tmp_path: Path, solver: str) -> None:
    _, report = finished(tmp_path, solver, macs="50%")
    assert report.prices == {}
    assert any(line.next_price for line in report.groups)
    assert all(line.next_asked is None and line.of_price is None for line in report.groups)


def test_text_json_and_page_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["compile", str(saved(tmp_path)), "--macs", "50%", "-o", str(out)]) == 0
    text, page = capsys.readouterr().out, (out / "report.html").read_text(encoding="utf-8")
    data = json.loads((out / "report.json").read_text())
    said = f"{data['prices']['macs'] * 1e6:.3g} per M MACs"
    assert f"λ = {said}" in text
    assert said in page
    line = next(g for g in data["groups"] if g["next_width"] is not None)
    row = next(row for row in text.splitlines() if row.startswith(line["name"]))
    assert [int(word) for word in row.split()[1:5]] == [line[k] for k in ("size", "width", "step", "next_width")]
    share = f"{line['next_gain'] / line['next_asked']:.0%}"
    assert share in row
    assert f"<td class=n>{share}" in page


def test_the_terminal_lists_no_more_groups_than_fit_and_says_where_all_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, report = finished(tmp_path, macs="50%")
    assert len(report.groups) > 1
    monkeypatch.setattr(show, "SHOWN", 1)
    show.show_report(report, None)
    text = capsys.readouterr().out
    assert report.groups[0].name in text
    assert f"and {len(report.groups) - 1} more" in text
    assert report.groups[1].name not in text


def test_the_page_says_that_a_whole_group_has_no_wider_width(tmp_path: Path) -> None:
    assert "as wide as it may be" in summary.html(finished(tmp_path, macs="100%")[1])


def test_peak_memory_has_one_price_per_node_that_limits_it(tmp_path: Path) -> None:
    _, report = finished(tmp_path, **{"peak-memory": "60%"})
    assert report.prices
    assert all(name.startswith("peak-memory at ") for name in report.prices)
    assert np.isfinite(list(report.prices.values())).all()


@pytest.mark.parametrize("share", ["20%", "35%", "50%", "80%"])
@pytest.mark.parametrize("solver", ["joint", "halp", "sp-lamp"])
def test_a_heuristic_that_leaves_much_of_the_budget_is_said_to(tmp_path: Path, solver: str, share: str) -> None:
    job, report = finished(tmp_path, solver, macs=share)
    used = job.cost("macs").at(job.selection.widths) / job.limits["macs"]
    said = [note for note in report.notes if f"--solver {solver} leaves" in note]
    assert bool(said) == (solver != "joint" and used < 0.9)
    assert all(f"{1 - used:.0%} of the budget" in note for note in said)
