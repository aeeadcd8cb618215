"""score: importance from every source that was asked for, and what a reader must know of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from halpc.errors import SaliencyError
from halpc.ir.saliency import Saliency
from halpc.job import Job
from passes.data_score import Kind, ScoreOptions, score_from_data
from passes.proto import proto_of
from passes.recovery.integers import opened, with_opened
from passes.recovery.uses import uses_of
from passes.score import (
    DATA_SCORES,
    combined,
    continued,
    from_channels,
    score_from_file,
    score_from_weights,
)

NAMED = 3  # groups that a note names
ALMOST_ALL = 0.999  # of all importance, that one group holds: more than that is said
AUTO, AUTO_WITH_DATA = (
    "l2",
    "unrecoverable",
)  # built-in scores when nothing is said, without and with calibration inputs


def score(job: Job) -> None:
    """Importance of every group's channels, unless the job has it already; an earlier plan goes on."""
    if job.saliency is None or not job.saliency.fits({name: g.size for name, g in job.coupling.free().items()}):
        job.saliency = _scored(job)
    if job.earlier is not None:
        job.saliency, job.ceilings = continued(job.saliency, job.earlier)


def _scored(job: Job) -> Saliency:
    """Importance from every source that was asked for."""
    options, graph = job.options, job.model.twin
    parts = [score_from_file(path, graph, job.coupling) for path in options.importance]
    kind = options.score
    if kind == "auto" and not parts:
        kind = AUTO_WITH_DATA if job.calibration is not None else AUTO
    if kind in DATA_SCORES:
        parts.append(_score_from_data(job, cast("Kind", kind)))
    elif kind != "auto":
        parts.append(score_from_weights(kind, graph, job.coupling))
    saliency = parts[0] if len(parts) == 1 else combined(parts)
    if options.importance:
        _say_what_counts(job, saliency)
    return saliency


def _say_what_counts(job: Job, saliency: Saliency) -> None:
    """Groups that importance files say nothing of, or that hardly count beside another one.

    Raises:
        SaliencyError: nothing counts.
    """
    files = ", ".join(map(str, job.options.importance))
    worth = {name: float(scores.sum()) for name, scores in saliency.scores.items()}
    total, count = sum(worth.values()), len(worth)
    if total == 0 and worth:
        raise SaliencyError(
            f"{files}: every score that reaches a group is 0, so no channel is worth more than another; expected some"
            " above 0 (were there gradients when they were taken?)"
        )
    if saliency.unscored:
        job.note(
            f"no importance reached {len(saliency.unscored)} of {count} groups, which go first"
            f" ({_named(saliency.unscored)}): give theirs, --freeze them, or add a built-in --score"
        )
    zero = [name for name, value in worth.items() if value == 0 and name not in saliency.unscored]
    if zero:
        job.note(f"the importance of {len(zero)} of {count} groups is 0 throughout, and they go first ({_named(zero)})")
    most = max(worth, key=lambda name: worth[name], default="")
    if count > 1 and worth[most] > ALMOST_ALL * total and not zero:
        job.note(
            f"{most} holds {worth[most] / total:.4%} of all importance, and the {count - 1} other groups count for next"
            " to nothing: are the scores of one scale?"
        )


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")


def _score_from_data(job: Job, kind: Kind) -> Saliency:
    """Importance from the activations on the calibration inputs."""
    model = opened(proto_of(job.model.graph, job.model.header))
    sizes = {name: group.size for name, group in job.coupling.free().items()}
    uses = uses_of(model, with_opened(job.coupling.axes, model), sizes)

    def progress(done: int, total: int, name: str) -> None:
        job.progress("score", done, total)

    scoring = ScoreOptions() if job.options.recover == "refit" else ScoreOptions(depth=0.0)
    found = score_from_data(model, uses, job.calibration, kind, progress=progress, options=scoring)
    spare = score_from_weights("l2", job.model.twin, job.coupling)
    return from_channels(found, spare, f"{kind} on {job.calibration.source}")
