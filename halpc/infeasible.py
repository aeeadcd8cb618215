"""What is said where a latency budget is out of reach."""

from __future__ import annotations

from halpc.errors import InfeasibleError
from halpc.job import Job
from halpc.units import spell_ms


def infeasible(job: Job, refused: InfeasibleError) -> InfeasibleError:
    """The refusal in the words of who asked: the budget as written, the floor as measured, and what to do.

    Args:
        job: with its trials, those of the narrowest widths among them where anything may shrink.
        refused: what selection said, of the latency model.
    """
    budget = job.options.budget("latency")
    assert budget is not None
    tell = f"`halpc inspect {job.options.model}` lists what stays whole, and why"
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
