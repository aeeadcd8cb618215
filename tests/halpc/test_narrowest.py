"""Budgets that the latency model calls infeasible: what the narrowest widths really take decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from halpc import closed_loop, trials
from halpc.compile import PREPARE, run
from halpc.errors import InfeasibleError
from halpc.ir.cost import CostModel
from halpc.ir.table import LatencyTable
from halpc.job import Job
from halpc.options import Options
from halpc.units import parse_budget
from passes import count
from passes.memory import peak_memory
from tests.halpc.noisy_device import MACS_PER_MS, OVERHEAD_MS, NoisyDevice
from tests.halpc.test_convergence import chain
from tests.passes.test_vanishing import BRANCH, SHAPES
from tests.small import model, saved, weights


def prepared(folder: Path, widths: tuple[int, ...], fixed_ms: float, align: int | None = None) -> Job:
    """A job whose latency model has the true charges and a fixed part of its own."""
    return job_of(saved(folder, chain(widths)), fixed_ms, align)


def job_of(path: Path, fixed_ms: float, align: int | None = None) -> Job:
    job = Job(Options(path, (parse_budget("latency", "60%"),), align=align))
    run(job, tuple(stage for stage in PREPARE if stage[0] in ("open", "load", "couple", "score")))
    job.costs["macs"] = count.macs(job.model.twin, job.coupling)
    job.memory = peak_memory(job.model.twin, job.coupling)
    job.grid = job.learnt = align or closed_loop.GRID
    job.profiler = NoisyDevice(0.0, bias=0.0)
    job.table = LatencyTable(job.profiler.device)
    charges = tuple(replace(c, cost=lambda *w, own=c.cost: own(*w) / MACS_PER_MS) for c in job.costs["macs"].charges)
    job.costs["latency"] = CostModel("latency", "ms", fixed_ms, charges)
    return job


def finished(job: Job, budget: str) -> float:
    """The loop and the last word at a budget; the true share of the limit."""
    job.options = replace(job.options, budgets=(parse_budget("latency", budget),))
    closed_loop.select_and_measure(job)
    trials.judge(job)
    device = job.profiler
    return float(device.true_ms(job.small) / job.options.budgets[0].limit(device.true_ms(job.baseline)))


def test_a_budget_that_the_model_calls_infeasible_is_met_where_the_device_is_faster(tmp_path: Path) -> None:
    job = prepared(tmp_path, (64, 96, 64), fixed_ms=50 * OVERHEAD_MS)
    share = finished(job, "60%")
    assert trials.status(job) == "met"
    assert 0.9 <= share <= 1
    assert job.grid == closed_loop.GRID
    assert {np.isfinite(trial.selection.bound) for trial in job.trials.values()} == {False, True}  # not of the first


@pytest.mark.parametrize("fixed_ms", [6 * OVERHEAD_MS, 9 * OVERHEAD_MS, 12 * OVERHEAD_MS])
def test_a_model_that_is_far_off_is_made_to_agree_with_a_choice_and_with_the_whole(
    tmp_path: Path, fixed_ms: float
) -> None:
    job = prepared(tmp_path, (64, 96, 64), fixed_ms)
    share = finished(job, "60%")
    assert trials.status(job) == "met"
    assert 0.9 <= share <= 1


def test_the_floor_that_is_named_is_a_measured_one(tmp_path: Path) -> None:
    job = prepared(tmp_path, (64, 96, 64), fixed_ms=OVERHEAD_MS, align=8)
    with pytest.raises(
        InfeasibleError, match=r"latency: .* \(5%\); the floor is .*, measured .*halpc inspect"
    ) as caught:
        finished(job, "5%")
    assert caught.value.floor == pytest.approx(job.profiler.true_ms(job.small), rel=0.02)
    assert set(job.selection.widths.values()) == {8}


@pytest.fixture
def learnt(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The grids that the latency model was measured on; here it knows all of them."""
    grids: list[int | None] = []

    def learn(job: Job) -> None:
        job.learnt = job.grid
        grids.append(job.grid)

    monkeypatch.setattr(closed_loop, "_learn", learn)
    return grids


@pytest.mark.parametrize("finer, share", [(2, 0.3), (1, 0.074)])
def test_widths_of_a_finer_grid_are_taken_where_the_coarse_one_meets_nothing(
    tmp_path: Path, learnt: list[int | None], finer: int, share: float
) -> None:
    job = prepared(tmp_path, (12, 12, 12), fixed_ms=OVERHEAD_MS)
    whole = job.profiler.true_ms(job.baseline)
    assert finished(job, f"{OVERHEAD_MS + share * (whole - OVERHEAD_MS)}ms") <= 1
    assert job.grid == finer
    assert learnt == ([2] if finer == 2 else [])  # at 1 the narrowest widths use all of the budget: no more to learn
    assert bool(learnt) == any("multiples of 8" in n and f"multiples of {finer}" in n for n in job.notes)
    assert any(size % closed_loop.GRID for size in job.selection.widths.values())


@pytest.mark.parametrize("align, foreign", [(None, False), (8, False), (None, True)])
def test_widths_between_are_tried_where_the_grid_leaves_much_of_a_budget(
    tmp_path: Path, learnt: list[int | None], align: int | None, foreign: bool
) -> None:
    """Unless an alignment was asked for, or the table cannot take what would be measured."""
    job = prepared(tmp_path, (16, 16), fixed_ms=OVERHEAD_MS, align=align)
    job.table = LatencyTable(job.profiler.device, foreign=foreign)
    tried = align is None and not foreign
    whole = job.profiler.true_ms(job.baseline)
    share = finished(job, f"{OVERHEAD_MS + 0.85 * (whole - OVERHEAD_MS)}ms")
    coarse = [trial for trial in job.trials.values() if all(size % 8 == 0 for size in trial.selection.widths.values())]
    assert trials.status(job) == "met"
    assert learnt == ([4] if tried else [])
    assert any("multiples of 8 leave" in note for note in job.notes) == tried
    assert (job.selection.value > max(t.selection.value for t in coarse if t.evidence.met)) == tried
    assert share <= 1


def test_an_alignment_that_was_asked_for_is_kept(tmp_path: Path) -> None:
    job = prepared(tmp_path, (12, 12, 12), fixed_ms=OVERHEAD_MS, align=8)
    whole = job.profiler.true_ms(job.baseline)
    with pytest.raises(InfeasibleError):
        finished(job, f"{OVERHEAD_MS + 0.3 * (whole - OVERHEAD_MS)}ms")


def test_where_nothing_may_shrink_that_is_said(tmp_path: Path) -> None:
    job = prepared(tmp_path, (1, 1), fixed_ms=OVERHEAD_MS)
    with pytest.raises(InfeasibleError, match="no channels may go"):
        finished(job, "50%")


def test_why_much_of_a_budget_is_left_is_said(tmp_path: Path) -> None:
    job = prepared(tmp_path, (96, 96, 96), fixed_ms=OVERHEAD_MS, align=64)
    assert finished(job, "57%") < 0.9
    assert any("of the latency budget is left, after " in note for note in job.notes)
    assert any("other" in note and "was expected to fit" in note for note in job.notes)
    job = prepared(tmp_path, (64, 96, 64), fixed_ms=OVERHEAD_MS)
    assert finished(job, "60%") > 0.9
    assert not any("of the latency budget is left" in note for note in job.notes)


def test_sp_lamp_keeps_a_filter_of_every_group_where_nothing_else_would_fit(tmp_path: Path) -> None:
    path = saved(tmp_path, model(BRANCH, weights(SHAPES)))
    budget = f"{OVERHEAD_MS + 0.0015}ms"  # less than the branch takes at one channel
    found = {}
    for solver in ("joint", "sp-lamp"):
        job = job_of(path, fixed_ms=OVERHEAD_MS)
        assert job.vanishing
        job.options = replace(job.options, solver=solver)
        try:
            finished(job, budget)
        except InfeasibleError:
            found[solver] = "infeasible"
        else:
            found[solver] = trials.status(job)
    assert found == {"joint": "met", "sp-lamp": "infeasible"}
