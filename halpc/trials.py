"""Choices as they were measured: one more measurement, the best of them, and the last word on what is written.

A choice is measured interleaved with the baseline and with an earlier choice, until the interval of its latency is
narrow beside the distance to the budget (`halpc/evidence.py`). Every measurement says something of all choices in it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import onnx

from halpc.casting import as_measured, backend_of
from halpc.evidence import Call, Evidence, Key, Trial, pooled, weigh
from halpc.job import Job, Widths
from halpc.limits import remarks
from halpc.units import Budget, spell_ms

log = logging.getLogger(__name__)

SECONDS = 0.125  # of interleaved measuring per model and call of the profiler
LEAST_CALLS, MOST_CALLS, PATIENCE_S = 4, 40, 15.0  # per measurement of a choice
LONGER = 3.0  # times as long where a choice is then expected to be surely within the budget
ENGINE_SECONDS = 1.0  # of measuring what is written
SAME = 0.01  # how far two engines of one network are apart by chance
BESIDE = 0.1  # the first choice this close to the budget is measured beside all later ones


def try_out(job: Job, predicted: float) -> Evidence:
    """Measure the choice at hand; its trial is kept.

    Args:
        predicted: latency over the limit.
    """
    key = widths_of(job)
    known = _measure(job, key, job.companion)
    found = known[key]
    _keep(job, Trial(job.selection, key, found, predicted), known)
    off = min((abs(math.log(known[other].share)) for other in job.companion), default=math.inf)
    if off > max(BESIDE, abs(math.log(found.share))):
        job.companion = {key: job.small}
    return found


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
    known = _measure(job, key, beside)
    found = job.evidence = known[key]
    _keep(job, replace(trial, key=key, evidence=found), known)
    job.limits["latency"] = found.limit_ms
    predicted_ms = trial.predicted * found.limit_ms
    job.costs["latency"] = job.costs["latency"].corrected(job.selection.widths, predicted_ms)
    if found.met and whole(job):
        job.note("the model as it is meets the budget: nothing was pruned")
    elif found.met:
        for sentence in remarks(job, found):
            job.note(sentence)


def time_engine(job: Job, path: Path) -> float | None:
    """Latency in ms of the engine that is written, by its ratio to what was measured of the model.

    It was built once more, perhaps with dynamic axes. None where it is made for other shapes than were measured.

    Raises:
        BackendError: it does not load or run.
    """
    if job.evidence is None or any(job.model.shapes[name] != p.opt for name, p in job.engine_shapes.items()):
        return None
    known, own = backend_of(job).compare([as_measured(job, job.deployed), path], seconds=ENGINE_SECONDS)
    percent = job.options.percentile
    return float(job.evidence.measured_ms * own.percentile_ms(percent) / known.percentile_ms(percent))


def engine_remarks(job: Job) -> Iterator[str]:
    """That the engine itself is over the budget, by more than noise, where the model as measured is not."""
    if job.engine_ms is None or job.evidence is None or not job.evidence.met:
        return
    found = job.evidence
    if job.engine_ms > max(found.limit_ms, found.measured_ms * (1 + max(SAME, found.noise))):
        yield (
            f"model.engine takes {spell_ms(job.engine_ms)}, over the budget of {spell_ms(found.limit_ms)}: of the"
            f" model, built for fixed shapes, {spell_ms(found.measured_ms)} was measured"
        )


def status(job: Job) -> str:
    """`met`, `over budget`, `slower`, or `predicted` where latency was limited and could not be measured."""
    if job.profiler is None or job.evidence is None:
        return "predicted" if "latency" in job.limits else "met"
    if job.evidence.measured_ms > job.evidence.baseline_ms and not whole(job):
        return "slower"
    return "met" if job.evidence.met else "over budget"


def best(job: Job) -> Trial:
    """The best choice so far: of most value among those surely within the budget, else the likeliest to be."""
    trials = list(job.trials.values())
    sure = [trial for trial in trials if trial.evidence.sure]
    if sure:
        return max(sure, key=lambda t: t.selection.value)
    return min(trials, key=lambda t: (not t.evidence.met, t.evidence.high))


def widths_of(job: Job) -> Widths:
    """What the choice at hand is known by."""
    return tuple(sorted(job.selection.widths.items()))


def whole(job: Job) -> bool:
    """Whether the choice at hand is the model as it is."""
    free = job.coupling.free()
    return all(job.selection.widths[name] == group.size for name, group in free.items())


def _measure(job: Job, key: Key, companion: Mapping[Key, onnx.ModelProto]) -> dict[Key, Evidence]:
    """Baseline, the model at hand and a companion interleaved, until the noise no longer matters; all known then.

    Args:
        key: what the model is known by; where it is known already to meet the budget, a few calls that agree do.
        companion: an earlier choice, if there is one.
    """
    budget = job.options.budget("latency")
    assert budget is not None
    beside = {name: model for name, model in companion.items() if name != key}
    known = any(key in call.models for call in job.calls)
    calls, started = 0, time.monotonic()
    while True:
        models = [job.baseline, job.small, *beside.values()]
        first, *others = job.profiler.compare(models, seconds=SECONDS * len(models))
        job.calls.append(Call(first, dict(zip([key, *beside], others, strict=True))))
        calls += 1
        found = _weighed(job, budget)
        if calls < LEAST_CALLS:
            continue
        if found[key].decided or (found[key].sure and known):
            return found
        # One more choice would cost as much time as to make sure of a nearly sure one, and be as noisy.
        spent = max(calls / MOST_CALLS, (time.monotonic() - started) / PATIENCE_S)
        if spent >= 1 and spent * max(found[key].factor_to_sure, 1.0) > LONGER:
            return found


def _weighed(job: Job, budget: Budget) -> dict[Key, Evidence]:
    """What all measurements say of all models; that the model as it is takes what it takes needs none."""
    found = weigh(job.calls, budget, job.options.percentile)
    as_it_is = tuple(sorted((name, group.size) for name, group in job.coupling.free().items()))
    if budget.share is not None and as_it_is in found:
        share, same = 1 / budget.share, found[as_it_is]
        found[as_it_is] = replace(same, measured_ms=same.baseline_ms, share=share, low=share, high=share)
    return found


def _keep(job: Job, trial: Trial, known: Mapping[Key, Evidence]) -> None:
    """Keep one more trial; what was measured with it says something of the others as well."""
    found = trial.evidence
    job.trials[widths_of(job)] = trial
    job.trials = {widths: replace(t, evidence=known[t.key]) for widths, t in job.trials.items()}
    own = [call.models[trial.key] for call in job.calls if trial.key in call.models]
    job.timings = pooled([call.baseline for call in job.calls]), pooled(own)
    job.rounds.append({"predicted_ms": trial.predicted * found.limit_ms, **found.as_json()})
    log.info(
        "measurement %d: predicted %s, measured %s of %s, noise %.2f %%", len(job.rounds),
        *map(spell_ms, (trial.predicted * found.limit_ms, found.measured_ms, found.limit_ms)), 100 * found.noise,
    )  # fmt: skip
