"""What is said where a latency budget is out of reach, or far from used."""

from __future__ import annotations

import math
from collections.abc import Iterator

from halpc.errors import InfeasibleError
from halpc.evidence import CONFIDENCE, Evidence
from halpc.ir.problem import Selection
from halpc.job import Job
from halpc.options import Options
from halpc.units import spell_ms, spell_over

UNSPENT = 0.1  # of a budget, left by a heuristic: more than that is said
MUCH = 0.03  # of a budget: what is left beyond that has its reason said


def infeasible(job: Job, refused: InfeasibleError) -> InfeasibleError:
    """The refusal in the words of who asked: the budget as written, the floor as measured, and what to do.

    Args:
        job: with its trials, those of the narrowest widths among them where anything may shrink.
        refused: what selection said, of the latency model.
    """
    budget = job.options.budget("latency")
    assert budget is not None
    tell = what_stays(job.options)
    if not job.trials:
        limit = budget.limit(job.costs["latency"].at({}))
        about = f"latency: no channels may go, so none of {spell_ms(job.costs['latency'].at({}))} can be saved"
        return InfeasibleError(
            f"{about}; the budget is {spell_ms(limit)}, the floor is the model as it is: {tell}",
            budget=limit, floor=job.costs["latency"].at({}), resource="latency",
        )  # fmt: skip
    least = min((trial.evidence for trial in job.trials.values()), key=lambda e: e.share)
    asked = f"{spell_ms(least.limit_ms)}" + (f" ({budget.text})" if budget.share is not None else "")
    return InfeasibleError(
        f"latency: no choice of widths fits {asked}; the floor is {spell_ms(least.measured_ms)}, measured"
        f" ({least.measured_ms / least.baseline_ms:.0%} of the model as it is): {tell}",
        budget=least.limit_ms, floor=least.measured_ms, resource="latency",
    )  # fmt: skip


def advised(job: Job, refused: InfeasibleError) -> InfeasibleError:
    """The refusal with what to do about it, where it does not say so itself."""
    tell = what_stays(job.options)
    if tell in str(refused):
        return refused
    predicted = refused.resource == "latency" and job.profiler is None
    how = f", predicted, at widths that are multiples of {job.grid} (--align)" if predicted else ""
    return InfeasibleError(
        f"{refused}{how}: {tell}", budget=refused.budget, floor=refused.floor, resource=refused.resource
    )  # fmt: skip


def what_stays(options: Options) -> str:
    """Where to look for what keeps a model from getting smaller."""
    given = {
        f"--align {options.align}": options.align is not None,
        f"--min-width {options.min_width}": options.min_width > 1,
        "--freeze": bool(options.freeze), "--no-vanish": not options.vanish, "--resume": options.resume is not None,
    }  # fmt: skip
    options_too = ", ".join(name for name, is_given in given.items() if is_given)
    tell = f"`halpc inspect {options.model}` lists what stays whole, and why"
    return f"{tell}; without {options_too} more may go" if options_too else tell


def remarks(job: Job, found: Evidence) -> Iterator[str]:
    """What to know of a latency budget that was met: that noise reaches it, or why much of it is left.

    Args:
        job: with its trials, the one that it is left with among them.
        found: of the model that is written.
    """
    if not found.sure:
        yield (
            f"the machine's noise (±{found.noise:.1%} at {CONFIDENCE:.0%} confidence) is larger than the distance to"
            f" the budget: on a quiet machine the latency may be up to {spell_over(found.high)} over it"
        )
    left = 1 - found.measured_ms / found.limit_ms
    if left > MUCH and not another_binds(job.selection):
        better = [t.evidence for t in job.trials.values() if t.selection.value > job.selection.value]
        nearest = min((e.measured_ms / e.limit_ms for e in better), default=None)
        why = (
            "no other choice of widths was expected to fit"
            if nearest is None
            else f"none of {len(better)} measured choices worth more surely fitted; the nearest took {nearest:.1%}"
            + (", and no other was expected to fit" if job.exhausted else "")
        )
        yield f"{left:.0%} of the latency budget is left, after {job.measuring_s:.0f} s of measuring: {why}"


def unspent(job: Job) -> Iterator[str]:
    """That a heuristic solver left much of every budget, where `joint` would not."""
    used = max((job.cost(name).at(job.selection.widths) / limit for name, limit in job.limits.items()), default=1.0)
    if job.options.solver == "joint" or job.selection.bound < math.inf or used > 1 - UNSPENT:
        return
    more = "more --steps, or " if job.options.solver == "halp" else ""
    yield f"--solver {job.options.solver} leaves {1 - used:.0%} of the budget: {more}--solver joint, may use it"


def another_binds(selection: Selection) -> bool:
    """Whether a budget that is not on latency is what has its price, and latency none."""
    return not selection.prices.get("latency") and any(selection.prices.values())
