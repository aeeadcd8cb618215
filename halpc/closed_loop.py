"""select → slim → measure, until what was measured is within the budget and close to it.

A budget given as a share is a share of the baseline as measured beside all choices (`halpc/trials.py`). After a miss,
on either side, choices near the measured ones are proposed (`halpc/proposals.py`). What counts in the end is one more
measurement of what is written.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from halpc import proposals
from halpc.casting import NATIVE, AtPrecision, accepted_table
from halpc.choosing import choose, limits_of, slim_choice
from halpc.errors import InfeasibleError
from halpc.evidence import Trial
from halpc.ir.table import LatencyTable, cache_path
from halpc.job import Job
from halpc.limits import MUCH, another_binds, infeasible
from halpc.proposals import Guess
from halpc.trials import LAST_WORD, Candidate, best, known_by, try_out, whole, widths_of
from passes.profile import Profiled, for_now, profile
from profilers import profiler_for

GRID = 8  # widths are multiples of this where latency counts and --align says nothing
HALF = 4  # and of this, where the best of those leaves much of the budget and nothing worth more is expected to fit
FINER = (2, 1)  # and of these, one after the other, where none of those meet the budget
LITTLE = 0.025  # of the limit, as a share, is not worth another round
CLOSE = 1 - LITTLE  # a result that surely met the limit and uses this share of it is not improved any further
ENOUGH_S = 120.0  # of measuring, after which a choice that surely met the limit and nearly used it is left as it is
LONGER = 3.0  # times as long, at most, where more is left of the limit
WILD = 1.0  # error of a table about its own networks, from which on a note warns
FAR, LESS = 0.25, 0.95  # what counts as far off (of a logarithm), and as less than the whole (as a share)
_TRIED = "no widths that are multiples of {} meet the budget: multiples of {} were tried"
AGAIN_ROUNDS = 2  # where only the last measurement missed the budget


Found = TypeVar("Found")


def profile_latency(job: Job) -> None:
    """The latency model, from the table on disk and from what is still missing in it."""
    job.grid = job.options.align or GRID
    _learn(job)


def _learn(job: Job) -> None:
    """The latency model of widths on the job's grid."""
    assert job.table is not None
    finer, job.learnt = job.learnt is not None, job.grid
    profiled = profile(
        job.model, job.coupling, job.table, job.profiler,
        grid=job.grid or GRID, vanishing=job.vanishing, finer=finer, progress=job.progress,
    )  # fmt: skip
    job.profile_stats = profile_stats(job.table, profiled)
    job.costs["latency"] = profiled.cost
    if profiled.fit.p90_error > WILD:
        job.note(
            f"{job.table.path} hardly predicts the networks in it, more than one in ten are off by over {WILD:.0%}:"
            " something is wrong with it; measure another one (--table NEW.jsonl)"
        )
    if job.profiler is not None:
        job.costs["latency"] = for_now(job.model, job.coupling, profiled, job.profiler, job.options.percentile)
        return
    if len(profiled.context) > 1:
        job.note(
            f"of {len(profiled.context)} whole networks in the table, each predicted from the others, nine in ten are"
            f" within {profiled.fit.p90_error:.1%}: what a budget leads to is off by as much, and more often slower"
        )
    if profiled.lacking:
        job.note(
            f"{job.table.path} lacks {profiled.lacking} whole networks that such a prediction rests on: `halpc profile`"
            " on the device adds them"
        )


def open_table(job: Job) -> None:
    """The table to use and to grow, and the profiler that grows it; a table of another device has none.

    Raises:
        BackendError: the runtime that was asked for is missing.
        TableError: the table is damaged, or of another device and that was not accepted.
    """
    options = job.options
    if options.table is not None and options.accept_foreign_table:
        job.table = accepted_table(options.table, options.precision)
        job.note(
            f"latency is predicted from {options.table}, taken on {job.table.device.spoken}; nothing was measured here:"
            " compare the result on that device with `halpc bench`"
        )
        return
    chosen = profiler_for(
        options.profiler, threads=options.threads, precision=options.precision, provider=options.provider
    )
    native = options.precision in NATIVE
    job.profiler = chosen.profiler if native else AtPrecision(chosen.profiler, options.precision)
    if options.profiler == "auto":
        why = "".join(f"; {reason}" for reason in chosen.passed_over)
        job.note(f"--profiler auto: {chosen.backend} was used{why}")
    path = options.table or cache_path(job.profiler.device, os.environ)
    job.table = LatencyTable.open(path, job.profiler.device)


def profile_stats(table: LatencyTable, profiled: Profiled) -> dict[str, Any]:
    """What the latency model rests on."""
    return {
        "table": str(table.path),
        "samples": profiled.samples,
        "networks": len(profiled.context),
        "measured_now": profiled.measured,
        "saved_by_table": profiled.samples + len(profiled.context) - profiled.measured,
        "fit": profiled.fit.as_json(),
        "steps": {about: list(steps) for about, steps in profiled.steps.items()},
    }


def choose_once(job: Job) -> None:
    """Widths for every budget by the cost models alone; as first measured, where latency will be.

    Raises:
        InfeasibleError: no choice of widths fits; the message names the floor.
    """
    limits = {} if job.profiler is None else {"latency": proposals.AIMS[0] * limits_of(job)["latency"]}
    try:
        choose(job, limits)
    except InfeasibleError as refused:
        if job.costs.get("latency") is None:
            raise
        _on_finer_grids(job, refused, lambda: choose(job, limits))
    slim_choice(job)


def select_and_measure(job: Job) -> None:
    """Choose widths for every budget; where latency is one of them, measure and correct in rounds.

    The best choice that met the budget, surely where there is one, is what the job is left with.

    Raises:
        InfeasibleError: no choice of widths fits; the message names the floor.
    """
    if job.profiler is None:
        choose_once(job)
        return
    missed = sum(measured["round"] == LAST_WORD for measured in job.rounds)  # selected before, and by noise in vain
    if missed and best(job).evidence.sure and (missed > 1 or _good_enough(job, best(job))):
        _go_back(job)
        return
    before = max((trial.round for trial in job.trials.values()), default=0)
    rounds, number = AGAIN_ROUNDS if missed else job.options.rounds, 0
    while number < rounds + job.spare_rounds:
        number += 1
        job.progress("select", number, rounds + job.spare_rounds)
        guesses = _proposed(job) or _between(job)
        job.exhausted = not guesses
        if job.exhausted:
            break
        first = not job.trials
        try_out(job, [_candidate(job, guess) for guess in guesses], before + number)
        if first:
            _doubt(job)
        if _good_enough(job, best(job)):
            break
    _go_back(job)


def _good_enough(job: Job, good: Trial) -> bool:
    """Whether another round could gain little: nothing is left of the limit, or noise has taken long already."""
    close = good.evidence.share >= CLOSE or whole(job, good.selection) or another_binds(good.selection)
    left = (1 - good.evidence.share) / LITTLE
    return good.evidence.sure and (close or job.measuring_s > ENOUGH_S * min(max(left, 1.0), LONGER))


def _candidate(job: Job, guess: Guess) -> Candidate:
    job.selection = guess.selection
    slim_choice(job)
    return Candidate(guess.selection, guess.share, job.small)


def _doubt(job: Job) -> None:
    """Where the first choices were all far off, they calibrated, and hardly chose: one more round, from the widest."""
    trials = list(job.trials.values())
    if min(abs(math.log(trial.evidence.share / trial.predicted)) for trial in trials) > FAR:
        job.anchor = known_by(trials[0].selection.widths)
        job.spare_rounds += 1


def _proposed(job: Job) -> list[Guess]:
    """New choices to measure side by side; none where none is worth measuring.

    Raises:
        InfeasibleError: no choice of widths fits, the narrowest as measured.
    """
    assert job.table is not None
    if job.grid != job.learnt and job.table.may_grow and any(trial.evidence.met for trial in job.trials.values()):
        job.note(_TRIED.format(job.learnt, job.grid))
        _learn(job)
    _anchored(job)

    def propose() -> list[Guess]:
        return proposals.later(job) if job.trials else proposals.first(job)

    try:
        return propose()
    except InfeasibleError as refused:
        return _on_finer_grids(job, refused, propose) if refused.resource != "latency" else [_narrowest(job, refused)]


def _on_finer_grids(job: Job, refused: InfeasibleError, propose: Callable[[], Found]) -> Found:
    """What is proposed where widths may be multiples of less, since no others keep a budget that is not on latency.

    Raises:
        InfeasibleError: there is nothing on the finest grid either, or `--align` rules that out.
    """
    coarse = job.grid or GRID
    for grid in (finer for finer in FINER if finer < coarse and job.options.align is None):
        if refused.resource == "latency":
            break
        job.grid = grid
        try:
            found = propose()
        except InfeasibleError as error:
            refused = error
        else:
            job.note(_TRIED.format(coarse, grid))
            return found
    raise refused


def _between(job: Job) -> list[Guess]:
    """Choices between the widths that were looked at, where much of the budget is left and none of those is worth more.

    A channel of a group may stand for several of a kernel's, as before a PixelShuffle: its steps are finer then.
    """
    assert job.table is not None
    good = best(job)
    much = 1 - good.evidence.share > MUCH and not whole(job, good.selection)
    coarse = job.options.align is None and job.grid == GRID
    if not (much and coarse and good.evidence.sure and job.table.may_grow):
        return []
    job.grid = HALF
    job.note(f"multiples of {GRID} leave {1 - good.evidence.share:.0%} of the budget: multiples of {HALF} were tried")
    _learn(job)
    return _proposed(job)


def _narrowest(job: Job, refused: InfeasibleError) -> Guess:
    """As few channels as there may be, where the latency model says that nothing fits.

    First on the grid, then on finer ones unless `--align` rules them out. What they really take decides.

    Raises:
        InfeasibleError: they were measured, or another resource is what cannot be kept.
    """
    if refused.resource != "latency":
        raise refused
    for grid in (job.grid, *(FINER if job.options.align is None else ())):
        job.grid = grid
        choose(job, {"latency": math.inf}, narrowest=True)
        if not whole(job, job.selection) and widths_of(job) not in job.trials:
            job.spare_rounds += 1
            job.anchor = widths_of(job)
            return Guess(job.selection, job.costs["latency"].at(job.selection.widths) / limits_of(job)["latency"])
    raise infeasible(job, refused)


def _anchored(job: Job) -> None:
    """Where the latency model was far off: let it agree with that choice and with the whole, which no factor does."""
    trial = job.trials.get(job.anchor)
    if trial is None or trial.evidence.share * trial.evidence.limit_ms > LESS * trial.evidence.baseline_ms:
        return
    found, widths = trial.evidence, trial.selection.widths
    job.costs["latency"] = job.costs["latency"].through({}, found.baseline_ms, widths, found.share * found.limit_ms)
    job.trials[job.anchor] = replace(trial, predicted=found.share)  # how far it was off says nothing of what follows


def _go_back(job: Job) -> None:
    """To the best choice so far."""
    job.selection = best(job).selection
    slim_choice(job)
