"""select → slim → measure, until what was measured is within the budget and close to it.

A budget given as a share is a share of the baseline as measured beside all choices (`halpc/trials.py`). After a miss,
on either side, the latency model is trusted for differences only: the choice that came closest is changed a little, to
what all measurements together let expect (`halpc/expectation.py`), as close to the limit as expectations and noise have
shown to pay. What counts in the end is one more measurement of what is written.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from halpc.casting import NATIVE, AtPrecision, accepted_table
from halpc.errors import InfeasibleError
from halpc.evidence import Trial
from halpc.expectation import best_aims, expected
from halpc.ir.problem import Problem, Selection
from halpc.ir.table import LatencyTable, cache_path
from halpc.job import Job, Widths
from halpc.limits import infeasible
from halpc.trials import MOST_CALLS, SECONDS, Candidate, best, known_by, try_out, whole, widths_of
from passes.latency.networks import at_once
from passes.profile import Profiled, profile
from passes.proto import proto_of, static_proto
from passes.select import select
from passes.select.sp_lamp import top_filter_kept
from passes.slim import plan_for, slim
from passes.widths import choices
from profilers import profiler_for

GRID = 8  # widths are multiples of this where latency counts and --align says nothing
FINER = (2, 1)  # and of these, one after the other, where none of those meet the budget
CLOSE = 0.975  # a result that surely met the limit and uses this share of it is not improved any further
AIMS = (0.98, 0.955, 0.93)  # shares of the limit that are selected for first: what looks cheap takes longer
HIGHEST_AIM = 0.99  # and later, at most
TOLERANCE = 0.005  # how far from the aim the expected latency may be, as a share of the limit
STARTS, TRIES = 2, 6  # measured choices to start from, and selections from each, until one is expected to fit
THOUGHT_S = 5.0  # after which no more choices are compared
NEAR = 0.1  # a choice this close to the budget is changed, not chosen anew
FAR, LESS = 0.25, 0.95  # what counts as far off (of a logarithm), and as less than the whole (as a share)
AGAIN_ROUNDS = 2  # where only the last measurement missed the budget


def profile_latency(job: Job) -> None:
    """The latency model, from the table on disk and from what is still missing in it."""
    job.grid = job.options.align or GRID
    _learn(job)


def _learn(job: Job) -> None:
    """The latency model of widths on the job's grid."""
    assert job.table is not None
    job.learnt = job.grid
    profiled = profile(
        job.model, job.coupling, job.table, job.profiler,
        grid=job.grid or GRID, vanishing=job.vanishing, progress=job.progress,
    )  # fmt: skip
    job.profile_stats = profile_stats(job.table, profiled)
    job.costs["latency"] = profiled.cost
    if job.profiler is not None:
        baseline = job.profiler.compare([job.baseline], seconds=4 * SECONDS)[0]
        job.costs["latency"] = profiled.cost.corrected({}, baseline.percentile_ms(job.options.percentile))
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


def choose(job: Job) -> None:
    """Widths for every budget by the cost models alone.

    Raises:
        InfeasibleError: no choice of widths fits; the message names the floor.
    """
    _choose(job, {})
    _slim(job)


def select_and_measure(job: Job) -> None:
    """Choose widths for every budget; where latency is one of them, measure and correct in rounds.

    The best choice that met the budget, surely where there is one, is what the job is left with.

    Raises:
        InfeasibleError: no choice of widths fits; the message names the floor.
    """
    if job.profiler is None:
        choose(job)
        return
    if any(trial.evidence.sure for trial in job.trials.values()):  # selected before, and missed by noise at the end
        _go_back(job)
        return
    before = max((trial.round for trial in job.trials.values()), default=0)
    rounds, number = AGAIN_ROUNDS if before else job.options.rounds, 0
    while number < rounds + job.spare_rounds:
        number += 1
        job.progress("select", number, rounds + job.spare_rounds)
        guesses = _proposed(job)
        if not guesses:
            break
        first = not job.trials
        try_out(job, [_candidate(job, guess) for guess in guesses], before + number)
        if first:
            _doubt(job)
        good = best(job)
        if good.evidence.sure and (good.evidence.share >= CLOSE or whole(job, good.selection)):
            break
    _go_back(job)


def _candidate(job: Job, guess: _Guess) -> Candidate:
    job.selection = guess.selection
    _slim(job)
    return Candidate(guess.selection, guess.share, job.small)


def _doubt(job: Job) -> None:
    """Where the first choices were all far off, they calibrated, and hardly chose: one more round, from the widest."""
    trials = list(job.trials.values())
    if min(abs(math.log(trial.evidence.share / trial.predicted)) for trial in trials) > FAR:
        job.anchor = known_by(trials[0].selection)
        job.spare_rounds += 1


def _proposed(job: Job) -> list[_Guess]:
    """New choices to measure side by side; none where none is worth measuring.

    Raises:
        InfeasibleError: no choice of widths fits, the narrowest as measured.
    """
    if job.grid != job.learnt and any(trial.evidence.met for trial in job.trials.values()):
        job.note(f"no widths that are multiples of {job.learnt} meet the budget: multiples of {job.grid} were tried")
        _learn(job)
    _anchored(job)
    try:
        return _later(job) if job.trials else _first(job)
    except InfeasibleError as refused:
        return [_narrowest(job, refused)]


def _first(job: Job) -> list[_Guess]:
    """Choices by the latency model alone.

    Raises:
        InfeasibleError: no choice of widths fits.
    """
    limit, whole_ms = _limits(job)["latency"], job.costs["latency"].at({})

    def optimum(aim: float, deadline: float) -> list[_Guess]:
        _choose(job, {"latency": aim * limit})
        return [_Guess(job.selection, job.costs["latency"].at(job.selection.widths) / limit)]

    return _gathered(AIMS[: _side_by_side(job)] if limit != whole_ms else (1.0,), optimum)  # 100%: the model as it is


def _later(job: Job) -> list[_Guess]:
    """Choices that are expected to fit, as far as is known: for every aim the best of those expected to come near it.

    Raises:
        InfeasibleError: no choice of widths fits, and none was measured that does.
    """
    aims = best_aims(list(job.trials.values()), HIGHEST_AIM, MOST_CALLS, _side_by_side(job))
    return _gathered(aims, lambda aim, deadline: list(_candidates(job, aim, deadline)))


def _gathered(aims: Sequence[float], propose: Callable[[float, float], list[_Guess]]) -> list[_Guess]:
    """One choice per aim, no two alike; fewer where that would take long.

    Args:
        propose: choices for an aim, not to be looked for beyond a moment of the monotonic clock.

    Raises:
        InfeasibleError: there is none for the first aim.
    """
    found: dict[Widths, _Guess] = {}
    deadline = time.monotonic() + THOUGHT_S
    for aim in aims:
        if found and time.monotonic() > deadline:
            break
        try:
            others = [guess for guess in propose(aim, deadline) if known_by(guess.selection) not in found]
        except InfeasibleError:
            if not found:
                raise
            break
        near = [guess for guess in others if guess.off(aim) <= TOLERANCE]
        if others:
            guess = max(near, key=lambda g: g.selection.value) if near else min(others, key=lambda g: g.off(aim))
            found[known_by(guess.selection)] = guess
    return list(found.values())


def _side_by_side(job: Job) -> int:
    """How many choices are measured at a time: as many as there are first aims, where memory bears them."""
    return max(1, min(len(AIMS), at_once(job.model) - 2))  # the baseline and an earlier choice are measured beside them


def _narrowest(job: Job, refused: InfeasibleError) -> _Guess:
    """As few channels as there may be, where the latency model says that nothing fits.

    First on the grid, then on finer ones unless `--align` rules them out. What they really take decides.

    Raises:
        InfeasibleError: they were measured, or another resource is what cannot be kept.
    """
    if refused.resource != "latency":
        raise refused
    for grid in (job.grid, *(FINER if job.options.align is None else ())):
        job.grid = grid
        _choose(job, {"latency": math.inf}, narrowest=True)
        if not whole(job, job.selection) and widths_of(job) not in job.trials:
            job.spare_rounds += 1
            job.anchor = widths_of(job)
            return _Guess(job.selection, job.costs["latency"].at(job.selection.widths) / _limits(job)["latency"])
    raise infeasible(job, refused)


def _anchored(job: Job) -> None:
    """Where the latency model was far off: let it agree with that choice and with the whole, which no factor does."""
    trial = job.trials.get(job.anchor)
    if trial is None or trial.evidence.share * trial.evidence.limit_ms > LESS * trial.evidence.baseline_ms:
        return
    found, widths = trial.evidence, trial.selection.widths
    job.costs["latency"] = job.costs["latency"].through({}, found.baseline_ms, widths, found.share * found.limit_ms)
    job.trials[job.anchor] = replace(trial, predicted=found.share)  # how far it was off says nothing of what follows


@dataclass(frozen=True, slots=True)
class _Guess:
    """A choice not measured yet, and its expected latency over the limit."""

    selection: Selection
    share: float

    def off(self, aim: float) -> float:
        return abs(math.log(self.share / aim))


def _candidates(job: Job, aim: float, deadline: float) -> Iterator[_Guess]:
    """New choices near measured ones, worth more than what surely met the budget; from the deadline on a single one.

    The latency model is scaled to what the choice took that is started from; and the limit moved, where what was
    measured of all choices says that the new one would miss the aim.
    """
    trials, given, refused = list(job.trials.values()), False, None
    sure = [trial for trial in trials if trial.evidence.sure]
    least = max((trial.selection.value for trial in sure), default=-math.inf)
    for start in _starts(trials, aim):
        job.selection, limit = start.selection, start.evidence.limit_ms
        _correct(job, start.evidence.share * limit)
        near = start.selection.widths if abs(math.log(start.evidence.share)) < NEAR else None
        target, low, high = aim * limit, 0.0, math.inf
        for _ in range(TRIES):
            if given and time.monotonic() > deadline:
                return
            try:
                _choose(job, {"latency": target}, near)
            except InfeasibleError as error:
                refused = error
                break
            guess = _Guess(job.selection, expected(job.costs["latency"], trials, job.selection.widths))
            if not 0 < guess.share < math.inf:  # too far from all that was measured to expect anything
                break
            if widths_of(job) not in job.trials and guess.selection.value > least and (guess.share <= 1 or not sure):
                given = True
                yield guess
                if guess.off(aim) <= TOLERANCE:
                    break
            low, high = (target, high) if guess.share < aim else (low, target)
            target = math.sqrt(low * high) if low > 0 and high < math.inf else target * aim / guess.share
    if not given and not any(t.evidence.met for t in trials):
        raise refused or InfeasibleError("no other choice", budget=aim, floor=math.inf, resource="latency")


def _starts(trials: Sequence[Trial], aim: float) -> list[Trial]:
    """The measured choices that came closest to the aim, and the best that surely met the budget."""
    by_distance = sorted(trials, key=lambda t: abs(math.log(t.evidence.share / aim)))
    starts = by_distance[:STARTS]
    sure = max((t for t in trials if t.evidence.sure), key=lambda t: t.selection.value, default=None)
    return starts if sure is None or sure in starts else [*starts, sure]


def _correct(job: Job, ms: float) -> None:
    """Scale the latency model to what the choice took, or was expected to."""
    job.costs["latency"] = job.costs["latency"].corrected(job.selection.widths, ms)


def _go_back(job: Job) -> None:
    """To the best choice so far."""
    job.selection = best(job).selection
    _slim(job)


def _limits(job: Job) -> dict[str, float]:
    """Each budget's limit in its unit, from the cost models' own baselines."""
    return {b.resource: b.limit(job.cost(b.resource).at({})) for b in job.options.budgets}


def _choose(
    job: Job, overrides: Mapping[str, float], near: Mapping[str, int] | None = None, *, narrowest: bool = False
) -> None:
    """One selection, near given widths if any, or of the narrowest widths only."""
    options = job.options
    job.limits = _limits(job) | dict(overrides)
    costs = job.costs.get("latency", job.costs["macs"])
    admissible = choices(
        job.coupling, job.saliency, align=options.align or job.grid,
        min_width=options.min_width, steps=costs.steps, ceilings=job.ceilings, vanishing=job.vanishing,
    )  # fmt: skip
    if narrowest:
        admissible = tuple(map(top_filter_kept, admissible)) if options.solver == "sp-lamp" else admissible
        admissible = tuple(replace(c, widths=c.widths[:1], value=c.value[:1]) for c in admissible)
    met: list[Mapping[str, int]] = []  # choices that memory was over its limit at, each at a node not known before
    prove = job.memory.name not in job.limits
    while True:
        resources = tuple(r for name, limit in job.limits.items() for r in job.cost(name).resources(limit, met))
        job.selection = select(
            Problem(admissible, resources), solver=options.solver, steps=options.steps, near=near, prove=prove
        )
        over = _over(job, job.selection.widths)
        if prove and not over:
            break
        if over:
            met.append(job.selection.widths)
        prove = not over  # not before all nodes that matter are known
    if narrowest:
        means = "none: these are the narrowest widths, whatever they are worth"
        job.selection = replace(job.selection, bound=math.inf, bound_means=means, prices={})


def _over(job: Job, widths: Mapping[str, int]) -> bool:
    """Whether memory is over its limit at a node that the choice did not know of; it then knows one more."""
    limit = job.limits.get(job.memory.name)
    return limit is not None and job.memory.at(widths) > limit * (1 + 1e-9)


def _slim(job: Job) -> None:
    job.masks = {name: job.saliency.mask(name, width) for name, width in job.selection.widths.items()}
    job.plan = plan_for(job.model, job.coupling, job.masks)
    graph = slim(job.model, job.coupling, job.plan)
    left = {node.name for node in graph.nodes}
    gone = tuple(node.name for node in job.model.graph.nodes if node.name not in left)
    job.plan = replace(job.plan, removed_nodes=gone)
    job.slim = proto_of(graph, job.model.header)
    if job.profiler is not None:
        job.small = static_proto(graph, job.model.shapes, job.model.header)
