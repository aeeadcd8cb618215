"""sweep: one profile, many budgets; and its inverse, the fastest model that loses no more than so much."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from halpc import summary
from halpc.compile import INPUTS, LEARN, PREPARE, TRY, WRITTEN, check_output, finish, run, scratch, write
from halpc.draw import draw_sweep
from halpc.errors import InfeasibleError, InputError, OverBudgetError, UsageError
from halpc.idle import check_asked
from halpc.ir.frontier import Frontier, Outcome, Point, read_frontier
from halpc.ir.report import Report
from halpc.ir.scorefile import read_scores, scores_json
from halpc.job import Job, Progress, silent
from halpc.options import Options
from halpc.trials import status
from halpc.units import Budget, spell_shares
from passes.write import publish, staging, write_json

log = logging.getLogger(__name__)

SLOWEST, FASTEST = 0.95, 0.25  # shares between which --points places its budgets
LEAST, RESOLUTION = 0.02, 0.02  # share that --max-drop starts from, and how closely it is found
READ = ("importance", "calibration", "evaluate")  # options that name inputs: what is in them counts, not where they are
MET = ("met", "predicted")  # statuses of a budget that is kept
SCORES, PLOT = "scores.json", "sweep.svg"
ELSEWHERE = ("model", "budgets", "out", "dry_run", "resume")  # told otherwise, or no options of a sweep


def shares(points: int) -> list[str]:
    """`points` budgets, geometrically spaced, as people write them."""
    return spell_shares(np.geomspace(SLOWEST, FASTEST, points).tolist())


def sweep(options: Options, progress: Progress = silent) -> list[Point]:
    """Compile to every one of the budgets by itself with one profile.

    Each is written into a folder of its own, and `sweep.json` beside them before the next begins. Where that is there
    from an earlier sweep of the same, what it finished is kept.

    Args:
        options: with budgets on one resource.

    Raises:
        HalpcError: before the first budget, as `compile_model` does; a budget that cannot be met is a point.
    """
    first = replace(options, budgets=options.budgets[:1])
    check_asked(first)
    for budget in options.budgets:
        check_output(replace(options, out=_place(budget, options.out)))
    job = Job(first, progress)
    with staging(options.out) as folder:
        run(job, INPUTS)
        asked = _asked(job)
        done = _finished(options, asked)
        if any(budget.text not in done for budget in options.budgets):
            _learn(job, asked, folder)
        if not done:  # what it lists may be replaced from here on
            (options.out / "sweep.json").unlink(missing_ok=True)
        for budget in options.budgets:
            if budget.text not in done:
                done[budget.text] = _point(job, budget, options.out)
            points = [done[b.text] for b in options.budgets if b.text in done]
            write_json(folder / "sweep.json", Frontier(str(options.model), asked, points).as_json())
            publish(folder, options.out)
        if any(point.outcome is not None for point in points):
            draw_sweep(points, options.budgets[0].resource, folder / PLOT)
        publish(folder, options.out, (PLOT,))
    return points


def refuse_all_missed(points: Sequence[Point]) -> None:
    """Of a sweep that met no budget at all.

    Raises:
        InfeasibleError: no choice of widths meets any of them.
        OverBudgetError: models were found, and all of them measured over their budgets.
    """
    if any(point.status in MET for point in points):
        return
    measured = [point for point in points if point.status != "infeasible"]
    if measured:
        raise OverBudgetError(f"none of {len(points)} budget(s) was met: what was found measured over")
    reason = f"none of {len(points)} budget(s) can be met; of the first, {points[0].budget}: {points[0].reason}"
    raise InfeasibleError(reason, budget=0.0, floor=0.0)


def _learn(job: Job, asked: dict[str, Any], folder: Path) -> None:
    """All that every budget needs; scores that come from inputs are kept for a sweep that goes on."""
    if job.options.calibration is None:
        run(job, LEARN)
        return
    kept = None
    try:
        kept = read_scores(job.options.out / SCORES, asked)
    except InputError as error:
        log.warning("%s: scored anew", error)
    if kept is not None:
        job.saliency = kept
    run(job, LEARN)
    if job.saliency is not kept:
        write_json(folder / SCORES, scores_json(job.saliency, asked))
        publish(folder, job.options.out)


def _asked(job: Job) -> dict[str, Any]:
    """What decides the result of every budget: see `Frontier`."""
    options = {name: value for name, value in asdict(job.options).items() if name not in ELSEWHERE}
    for name in READ:
        paths = options[name] if isinstance(options[name], tuple) else (options[name],)
        options[name] = [_content(path) for path in paths if path is not None]
    asked = {
        "model": job.model.sha256,
        "resource": job.options.budgets[0].resource,
        "device": None if job.profiler is None else job.profiler.device.as_json(),
        **options,
        **{f"version of {name}": version for name, version in summary.versions().items()},
    }
    plain: dict[str, Any] = json.loads(json.dumps(asked, default=str))
    return plain


def _content(path: Path) -> str:
    """sha256 of a file, or of a folder's files in order of name."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(f"{file.relative_to(path)}\n".encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _finished(options: Options, asked: dict[str, Any]) -> dict[str, Point]:
    """Points of an earlier sweep of the same into the same folder, by budget; says what is kept, or why nothing is."""
    path = options.out / "sweep.json"
    if not path.exists():
        return {}
    try:
        earlier = read_frontier(path)
    except InputError as error:
        log.warning("%s: every budget is compiled anew", error)
        return {}
    if differences := earlier.differences(asked):
        log.warning("%s: is of another %s: every budget is compiled anew", path, ", ".join(differences))
        return {}
    wanted = {budget.text: _place(budget, options.out) for budget in options.budgets}
    known = {p.budget: p for p in earlier.points if p.budget in wanted and _whole(p, wanted[p.budget])}
    if known:
        log.warning("%s: %s finished earlier and kept; remove the file to compile anew", path, ", ".join(known))
    return known


def _whole(point: Point, place: Path) -> bool:
    """Whether what a point wrote is still there; `report.json` is what is moved there last."""
    return not point.written or (place / "report.json").is_file()


def _place(budget: Budget, out: Path) -> Path:
    return out / budget.text.replace("%", "pct").replace("/", "_")


def _point(job: Job, budget: Budget, out: Path) -> Point:
    """One budget, from the prepared job."""
    place = _place(budget, out)
    own = job.at(replace(job.options, budgets=(budget,), out=place))
    try:
        report = finish(own)
    except InfeasibleError as error:
        _clear(place)
        return Point(budget.text, "infeasible", None, str(error))
    try:
        with staging(place) as folder:
            report = write(own, report, folder)
            publish(folder, place, WRITTEN)
    except OverBudgetError as error:
        _clear(place)
        return Point(budget.text, "slower", Outcome.of(report), str(error))
    return Point(budget.text, report.status, Outcome.of(report))


def _clear(place: Path) -> None:
    """Let a budget that nothing is written for leave no model of an earlier sweep behind."""
    if place.is_dir():
        with staging(place) as folder:
            publish(folder, place, WRITTEN)


def fastest_within(options: Options, resource: str, max_drop: float, progress: Progress = silent) -> Report:
    """A model that loses no more top-1 than `max_drop`, at the smallest share of the baseline that was found.

    Shares are bisected by the accuracy of what the cost models choose; only the share that this ends with is measured.
    Measuring corrects the choice: where that one misses its budget or loses too much, the next larger shares follow.

    Raises:
        UsageError: nothing to evaluate with.
        InfeasibleError: whatever was tried loses more.
    """
    if options.evaluate is None:
        raise UsageError("--max-drop needs --evaluate with labelled inputs")
    whole = replace(options, budgets=(_share(resource, 1.0),))
    check_asked(whole)
    check_output(options)
    job = Job(whole, progress)

    def at(share: float) -> Job:
        return job.at(replace(options, budgets=(_share(resource, share),)))

    with scratch(options) as folder:
        run(job, PREPARE)
        smallest = _bisected(lambda share: _accepted(at(share), max_drop))
        for share in _onwards(smallest):
            own = at(share)
            report = _measured(own, max_drop)
            if report is None:
                continue
            if folder is not None:
                report = write(own, report, folder)
                publish(folder, options.out, WRITTEN)
            return report
    raise InfeasibleError(
        f"--max-drop {max_drop:.2%}: every pruned model loses more; allow more, or give --calibration inputs, which"
        " recover what is lost",
        budget=max_drop, floor=0.0,
    )  # fmt: skip


def _share(resource: str, share: float) -> Budget:
    return Budget(resource, share, None, f"{100 * share:.4g}%")


def _bisected(accepted: Callable[[float], bool]) -> float:
    """The smallest share found that is accepted, 1.0 being taken for it."""
    low, high = LEAST, 1.0
    while high - low > RESOLUTION:
        share = (low + high) / 2
        low, high = (low, share) if accepted(share) else (share, high)
    return high


def _onwards(share: float) -> Iterator[float]:
    """A share, larger ones at doubling distances, and the largest that is looked at; from 1.0 on that alone."""
    step, most = RESOLUTION, max(share, 1 - RESOLUTION) if share < 1 else 1 - RESOLUTION
    while share < most:
        yield share
        share, step = share + step, 2 * step
    yield most


def _accepted(job: Job, max_drop: float) -> bool:
    """Whether what the cost models choose loses no more than `max_drop`."""
    try:
        run(job, TRY)
    except InfeasibleError:
        return False
    return _lost(job) <= max_drop


def _measured(job: Job, max_drop: float) -> Report | None:
    """The job's report if its budget is met and no more than `max_drop` is lost."""
    try:
        report = finish(job)
    except (InfeasibleError, OverBudgetError):
        return None
    return report if status(job) in MET and _lost(job) <= max_drop else None


def _lost(job: Job) -> float:
    """Top-1 that is lost, as a share of all samples."""
    before, after = job.accuracy_before, job.accuracy
    assert before is not None
    assert after is not None
    log.info("%s: top-1 %.2f%% of %.2f%%", job.options.budgets[0].text, 100 * after, 100 * before)
    return before - after
