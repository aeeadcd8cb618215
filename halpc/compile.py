"""The pipeline, stage by stage; the only place that knows their order.

    >>> from halpc import Options, compile_model, parse_budget               # doctest: +SKIP
    >>> compile_model(Options(Path("model.onnx"), (parse_budget("latency", "60%"),)))   # doctest: +SKIP
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeAlias

from halpc import closed_loop, summary
from halpc.errors import BackendError, OverBudgetError
from halpc.ir.plan import read_plan
from halpc.ir.report import Report
from halpc.job import Job, Progress, silent
from halpc.options import Options
from passes import count
from passes.calibration import load_calibration
from passes.couple import couple
from passes.evaluate import evaluate, load_labelled
from passes.load import load
from passes.members import produced_by
from passes.proto import proto_of, save_proto, static_proto
from passes.recover import recover
from passes.score import score_from_file, score_from_weights
from passes.vanish import vanishable
from passes.verify import verify
from passes.write import publish, staging, write_json

log = logging.getLogger(__name__)

Stages: TypeAlias = tuple[tuple[str, Callable[[Job], None]], ...]


def compile_model(options: Options, progress: Progress = silent) -> Report:
    """Everything from a file to an output folder.

    Raises:
        HalpcError: one of the classes in `halpc.errors`, each with its exit code.
    """
    job = Job(options, progress)
    with staging(options.out) as folder:
        run(job, PREPARE)
        run(job, FINISH)
        report = summary.report(job)
        if not options.dry_run:
            write(job, report, folder)
            publish(folder, options.out)
    return report


def run(job: Job, stages: Stages) -> None:
    """Stage after stage, each timed."""
    for name, stage in stages:
        started = time.perf_counter()
        job.progress(name, 0, 0)
        stage(job)
        job.seconds[name] = job.seconds.get(name, 0.0) + time.perf_counter() - started


def _load(job: Job) -> None:
    """The model, and every other input, so that a bad file fails before anything costs time."""
    options = job.options
    job.model = load(options.model, shapes=options.shapes, batch=options.batch)
    job.baseline = static_proto(job.model.graph, job.model.shapes, job.model.header)
    whole = proto_of(job.model.graph, job.model.header)
    if options.calibration is not None:
        job.calibration = load_calibration(
            options.calibration, whole, mean=options.mean, std=options.std, shape=job.model.shapes
        )
    if options.evaluate is not None:
        job.labelled = load_labelled(options.evaluate, whole)


def _couple(job: Job) -> None:
    frozen = produced_by(job.model.twin, job.options.freeze)
    job.coupling = couple(job.model.twin, renormalise=job.options.renormalise, freeze=frozen)
    if job.options.vanish:
        job.vanishing = vanishable(job.model.twin, job.coupling)
    if job.coupling.renormalised:
        job.note("approximate: channels under a mean or LayerNorm were allowed to go (--allow-renormalisation)")


def _score(job: Job) -> None:
    options, graph = job.options, job.model.twin
    if options.importance:
        parts = [score_from_file(path, graph, job.coupling) for path in options.importance]
        job.saliency = parts[0] if len(parts) == 1 else summary.added(parts)
    else:
        kind = "l2" if options.score == "auto" else options.score
        job.saliency = score_from_weights(kind, graph, job.coupling)
    if options.resume is not None:
        job.saliency, job.ceilings = summary.continued(job.saliency, read_plan(options.resume), job.coupling)


def _profile(job: Job) -> None:
    """Cost models of what is limited: counted ones at once, latency from measured tables."""
    job.costs["macs"] = count.macs(job.model.twin, job.coupling)
    job.costs["params"] = count.params(job.model.twin, job.coupling)
    if job.options.budget("latency") is not None:
        closed_loop.profile_latency(job)


def _recover(job: Job) -> None:
    """Refit the slim model's weights on the calibration inputs; its shapes and so its latency stay."""
    if job.calibration is None or not job.options.recover or not job.plan.keep:
        return
    original = proto_of(job.model.graph, job.model.header)

    def progress(*args: object) -> None:
        done, total = (int(a) for a in args[:2] if isinstance(a, int))
        job.progress("recover", done, total)

    job.recovery = recover(original, job.slim, job.plan.keep, job.calibration, progress=progress)


def _verify(job: Job) -> None:
    """slim = masked, before recovery touches a weight."""
    job.verification = verify(job.model, job.plan, job.slim, approximate=bool(job.coupling.renormalised))


def _evaluate(job: Job) -> None:
    if job.labelled is None:
        return
    final = job.recovery.model if job.recovery is not None else job.slim
    before = evaluate(proto_of(job.model.graph, job.model.header), job.labelled)
    job.accuracy = (before.top1, evaluate(final, job.labelled).top1)


def write(job: Job, report: Report, folder: Path) -> None:
    if report.status == "slower":
        raise OverBudgetError("the pruned model measured slower than its input; nothing was written")
    final = job.recovery.model if job.recovery is not None else job.slim
    save_proto(final, folder / "pruned.onnx")
    write_json(folder / "plan.json", job.plan.as_json())
    write_json(folder / "latency.json", closed_loop.table_json(job))
    if hasattr(job.profiler, "build"):
        job.engine = job.profiler.build(final, folder / "model.engine")
    elif job.options.profiler.startswith("tensorrt"):
        raise BackendError(f"--profiler {job.options.profiler}: it cannot build an engine here")
    (folder / "report.html").write_text(summary.html(report), encoding="utf-8")
    write_json(folder / "report.json", report.as_json())


# What depends on the model and the device only; a second budget starts behind it.
PREPARE: Stages = (
    ("load", _load),
    ("couple", _couple),
    ("score", _score),
    ("profile", _profile),
)
# What depends on the budget.
FINISH: Stages = (
    ("select", closed_loop.select_and_measure),  # select, slim and measure, in rounds
    ("verify", _verify),
    ("recover", _recover),
    ("evaluate", _evaluate),
    ("judge", closed_loop.judge),
)
