"""Choices as they were measured: one more measurement, the best of them, and the last word on what is written.

A round's choices are measured interleaved with each other, with the baseline and with an earlier choice, until the
intervals of their latencies are narrow beside the distance to the budget (`halpc/evidence.py`), or one that is worth
more surely meets it. Every measurement says something of all choices in it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from halpc.casting import as_measured, backend_of
from halpc.evidence import Call, Evidence, Key, Trial, best_sure, pooled, weigh
from halpc.ir.problem import Selection
from halpc.job import Job, Widths
from halpc.limits import remarks
from halpc.units import Budget, spell_ms

log = logging.getLogger(__name__)

SECONDS = 0.125  # of interleaved measuring per model and call of the profiler
LEAST_CALLS, MOST_CALLS, PATIENCE_S = 4, 40, 15.0  # per measurement of a round's choices
LONGER = 3.0  # times as long where a choice is then expected to be surely within the budget
ENGINE_SECONDS = 1.0  # of measuring what is written
SAME = 0.01  # how far two engines of one network are apart by chance
USUAL_TURNS = 3  # models that are measured side by side where a round has one choice
LAST_WORD = 0  # stands for a round where what is written is measured again
BESIDE = 0.1  # the first choice this close to the budget is measured beside all later ones


@dataclass(frozen=True, slots=True)
class Candidate:
    """A choice of widths that has not been measured.

    Attributes:
        selection: the widths.
        predicted: latency over the limit.
        model: the slim model at fixed shapes.
    """

    selection: Selection
    predicted: float
    model: onnx.ModelProto

    @property
    def key(self) -> Key:
        """What it is known by."""
        return known_by(self.selection.widths)


def try_out(job: Job, candidates: Sequence[Candidate], number: int) -> None:
    """Measure a round's choices side by side; their trials are kept.

    Args:
        number: of the round.
    """
    models = {c.key: c.model for c in candidates}
    known = _measure(job, models, job.companion, {c.key: c.selection.value for c in candidates})
    trials = [Trial(c.selection, c.key, known[c.key], c.predicted, number) for c in candidates]
    for trial in trials:
        _keep(job, trial, known, number)
    nearest = min(trials, key=lambda trial: abs(math.log(trial.evidence.share)))
    off = min((abs(math.log(known[other].share)) for other in job.companion), default=math.inf)
    if off > max(BESIDE, abs(math.log(nearest.evidence.share))):
        job.companion = {nearest.key: models[nearest.key]}


def judge(job: Job) -> None:
    """The last word: the model that is written, measured again.

    Recovery gives weights new values and may add a bias, and ranges of int8 come from the calibration inputs; such a
    model is another than that of the rounds, and is measured beside it.
    """
    if job.profiler is None:
        return
    trial = job.trials[widths_of(job)]
    key, beside = trial.key, job.companion
    if job.deployed is not None and job.deployed is not job.slim:
        key, beside = ("written", len(job.calls)), {widths_of(job): job.small}
        job.small = as_measured(job, job.deployed)
    known = _measure(job, {key: job.small}, beside, {})
    found = job.evidence = known[key]
    _keep(job, replace(trial, key=key, evidence=found), known, LAST_WORD)
    job.limits["latency"] = found.limit_ms
    predicted_ms = trial.predicted * found.limit_ms
    job.costs["latency"] = job.costs["latency"].corrected(job.selection.widths, predicted_ms)
    if found.met and whole(job, job.selection):
        job.note("the model as it is meets the budget: nothing was pruned")
    elif found.met:
        for sentence in remarks(job, found):
            job.note(sentence)


def time_engine(job: Job, path: Path) -> float | None:
    """Latency in ms of the engine that is written, by its ratio to what was measured of the model.

    That is the ratio of another build, with dynamic axes. None where it is made for other shapes than were measured.

    Raises:
        BackendError: it does not load or run.
    """
    if job.evidence is None or any(job.model.shapes[name] != p.opt for name, p in job.engine_shapes.items()):
        return None
    if job.engine.measured:
        return job.evidence.measured_ms
    known, own = backend_of(job).compare([as_measured(job, job.deployed), path], seconds=ENGINE_SECONDS)
    percent = job.options.percentile
    return float(job.evidence.measured_ms * own.percentile_ms(percent) / known.percentile_ms(percent))


def engine_over(job: Job) -> bool:
    """Whether the engine itself is over the budget, by more than noise, where the model as measured is not."""
    if job.engine_ms is None or job.evidence is None or not job.evidence.met:
        return False
    found = job.evidence
    return job.engine_ms > max(found.limit_ms, found.measured_ms * (1 + max(SAME, found.noise)))


def engine_remarks(job: Job) -> Iterator[str]:
    """What to know of the engine: that its shapes are fixed where the model's are not, or it is over the budget."""
    if job.engine.measured and job.engine_shapes:
        shapes = ", ".join(f"{name}:{'x'.join(map(str, profile.opt))}" for name, profile in job.engine_shapes.items())
        yield (
            f"model.engine is the engine that was measured, and takes {shapes} only: --min-shapes and --max-shapes make"
            " one for a range"
        )
    if engine_over(job):
        assert job.evidence is not None
        assert job.engine_ms is not None
        found = job.evidence
        yield (
            f"model.engine takes {spell_ms(job.engine_ms)}, over the budget of {spell_ms(found.limit_ms)}: of the"
            f" model, built for fixed shapes, {spell_ms(found.measured_ms)} was measured"
        )


def status(job: Job) -> str:
    """`met`, `over budget`, `slower`, or `predicted` where latency was limited and could not be measured."""
    if job.profiler is None or job.evidence is None:
        return "predicted" if "latency" in job.limits else "met"
    if job.evidence.measured_ms > job.evidence.baseline_ms and not whole(job, job.selection):
        return "slower"
    return "met" if job.evidence.met and not engine_over(job) else "over budget"


def best(job: Job) -> Trial:
    """The best choice so far: of most value among those surely within the budget, else the likeliest to be."""
    trials = job.trials.values()
    return best_sure(trials) or min(trials, key=lambda t: (not t.evidence.met, t.evidence.high))


def widths_of(job: Job) -> Widths:
    """What the choice at hand is known by."""
    return known_by(job.selection.widths)


def known_by(widths: Mapping[str, int]) -> Widths:
    """What a choice of widths is known by."""
    return tuple(sorted(widths.items()))


def whole(job: Job, selection: Selection) -> bool:
    """Whether a choice is the model as it is."""
    free = job.coupling.free()
    return all(selection.widths[name] == group.size for name, group in free.items())


def _measure(
    job: Job,
    models: Mapping[Key, onnx.ModelProto],
    companion: Mapping[Key, onnx.ModelProto],
    worth: Mapping[Key, float],
) -> dict[Key, Evidence]:
    """Baseline, models and a companion interleaved, until the noise no longer matters; all known then.

    Args:
        models: by what they are known; where one is known already to meet the budget, a few calls that agree do.
        companion: an earlier choice, if there is one.
        worth: importance of each model, where one that is worth less than one that surely meets the budget need not
            be measured any further.
    """
    budget = job.options.budget("latency")
    assert budget is not None
    beside = {name: model for name, model in companion.items() if name not in models}
    before = {key for call in job.calls for key in call.models}
    open_, calls, spent = dict(models), 0, 0.0
    while True:
        started, turns = time.monotonic(), [job.baseline, *open_.values(), *beside.values()]
        first, *others = job.profiler.compare(turns, seconds=SECONDS * len(turns))
        job.calls.append(Call(first, dict(zip([*open_, *beside], others, strict=True))))
        taken = SECONDS * len(turns)
        if calls:  # the first call may build engines, which is no measuring
            taken = max(taken, time.monotonic() - started)
        found = _weighed(job, budget)
        calls, spent = calls + 1, spent + taken / len(turns) * USUAL_TURNS
        job.measuring_s += taken
        if calls < LEAST_CALLS:
            continue
        patience = max(calls / MOST_CALLS, spent / PATIENCE_S)
        least = max((value for key, value in worth.items() if found[key].sure), default=-math.inf)
        for key in list(open_):
            known = found[key].decided or (found[key].sure and key in before)
            if known or worth.get(key, math.inf) < least or _hopeless(found[key], patience):
                del open_[key]
        if not open_:
            return found


def _hopeless(found: Evidence, patience: float) -> bool:
    """Whether more of the measuring, `patience` of what is usual having been spent, will not settle it.

    One more choice would cost as much time as to make sure of a nearly sure one, and be as noisy.
    """
    return patience >= 1 and patience * max(found.factor_to_sure, 1.0) > LONGER


def _weighed(job: Job, budget: Budget) -> dict[Key, Evidence]:
    """What all measurements say of all models; that the model as it is takes what it takes needs none."""
    found = weigh(job.calls, budget, job.options.percentile)
    as_it_is = known_by({name: group.size for name, group in job.coupling.free().items()})
    if budget.share is not None and as_it_is in found:
        share, same = 1 / budget.share, found[as_it_is]
        found[as_it_is] = replace(same, measured_ms=same.baseline_ms, share=share, low=share, high=share)
    return found


def _keep(job: Job, trial: Trial, known: Mapping[Key, Evidence], number: int) -> None:
    """Keep one more trial, of a round; what was measured with it says something of the others as well."""
    found = trial.evidence
    job.trials[known_by(trial.selection.widths)] = trial
    job.trials = {widths: replace(t, evidence=known[t.key]) for widths, t in job.trials.items()}
    own = [call.models[trial.key] for call in job.calls if trial.key in call.models]
    job.timings = pooled([call.baseline for call in job.calls]), pooled(own)
    predicted_ms = trial.predicted * found.limit_ms
    job.rounds.append({"round": number, "predicted_ms": predicted_ms, **found.as_json()})
    log.info(
        "measurement %d: predicted %s, measured %s of %s, noise %.2f %%", len(job.rounds),
        *map(spell_ms, (predicted_ms, found.measured_ms, found.limit_ms)), 100 * found.noise,
    )  # fmt: skip
