"""The pipeline, stage by stage; the only place that knows their order.

>>> from halpc import Options, compile_model, parse_budget               # doctest: +SKIP
>>> compile_model(Options(Path("model.onnx"), (parse_budget("latency", "60%"),)))   # doctest: +SKIP
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from halpc import closed_loop, summary, trials
from halpc.apart import doing
from halpc.casting import (
    NATIVE,
    as_timed,
    backend_of,
    deployed,
    runs_here,
    say_what_came,
    say_what_moved,
    say_what_runs,
)
from halpc.engine_shapes import engine_shapes
from halpc.errors import BackendError, InfeasibleError, OutputError, OverBudgetError, UsageError
from halpc.idle import check_asked, idle_device
from halpc.ir.plan import read_plan
from halpc.ir.report import Report
from halpc.job import Job, Progress, silent
from halpc.limits import advised, unspent
from halpc.options import PRECISIONS, Options
from halpc.room import make_room
from halpc.scoring import score
from halpc.units import spell_count
from passes import count
from passes.calibration import check_source, load_calibration
from passes.cast import precision_of
from passes.couple import couple
from passes.coupling.members import produced_by
from passes.evaluate import evaluate, load_labelled
from passes.load import load
from passes.loading.whole import check_layers, check_numbers
from passes.memory import peak_memory
from passes.proto import bare_of, proto_of, save_proto, static_proto
from passes.recover import Recovery, check_count, recover
from passes.replay import in_the_files_words
from passes.score import (
    DATA_SCORES,
    read_importance,
)
from passes.unfold import unfolded
from passes.vanish import vanishable
from passes.verification.conversion import conversion_error
from passes.verify import verify, verify_reading
from passes.write import check_names, publish, staging, write_json

log = logging.getLogger(__name__)

WRITTEN = (
    "pruned.onnx", "plan.json", "latency.json", "report.json", "report.html", "model.engine", "model.layers.json",
    *(f"pruned.{precision}.onnx" for precision in PRECISIONS if precision not in NATIVE),
)  # fmt: skip
AGAIN = 2  # times that everything behind the budget is done over
BUILDS = 2  # of an engine that is not the one that was measured, where the first is over the budget
CONVERT_BATCH = 4  # that the model is compared on before and after its conversion to a precision
UNLIKE = 0.5  # error of the outputs, over their variance, from which on a note warns
FAR = 10  # the same, from which on no percentage is given
GROWN = 0.01  # of the parameters: more than that, where load computes weights in advance, is said
VERIFY_BATCH = 16  # calibration inputs that slim and masked are compared on, besides random ones

Stages: TypeAlias = tuple[tuple[str, Callable[[Job], None]], ...]


def compile_model(options: Options, progress: Progress = silent) -> Report:
    """Everything from a file to an output folder.

    Raises:
        HalpcError: one of the classes in `halpc.errors`, each with its exit code.
    """
    check_asked(options)
    check_output(options)
    job = Job(options, progress)
    with scratch(options) as folder:
        run(job, PREPARE)
        report = finish(job)
        if folder is not None:
            report = write(job, report, folder)
            publish(folder, options.out, WRITTEN)
    return report


def scratch(options: Options) -> AbstractContextManager[Path | None]:
    """The folder that the result is made in; a dry run makes none, and needs no place that can be written."""
    return nullcontext() if options.dry_run else staging(options.out)


def check_output(options: Options) -> None:
    """That the result takes the place of nothing that it is made from, and of no folder.

    Raises:
        OutputError: it would.
    """
    if options.dry_run:
        return
    check_names(options.out, WRITTEN)
    written = {(options.out / name).resolve() for name in WRITTEN}
    if options.model.resolve() in written:
        raise OutputError(f"{options.model}: would give way to its own result; give -o another folder")
    for path in (options.table, options.calibration, options.evaluate, *options.importance):
        if path is not None and path.resolve() in written:
            raise OutputError(f"{path}: would give way to a file of the result; give -o another folder")


def run(job: Job, stages: Stages) -> None:
    """Stage after stage, each timed."""
    for name, stage in stages:
        started = time.perf_counter()
        doing(f"the stage {name}")
        job.progress(name, 0, 0)
        stage(job)
        job.seconds[name] = job.seconds.get(name, 0.0) + time.perf_counter() - started


def finish(job: Job) -> Report:
    """The stages that depend on the budget; again where only the last measurement missed it.

    Raises:
        InfeasibleError: no choice of widths fits; the message names the floor, and what to look at.
    """
    try:
        run(job, FINISH)
    except InfeasibleError as refused:
        raise advised(job, refused) from refused
    for _ in range(AGAIN):
        if trials.status(job) in ("over budget", "slower"):
            job.note("the last measurement missed the budget by noise: selected once more")
            run(job, FINISH)
    say_what_runs(job)
    for sentence in unspent(job):
        job.note(sentence)
    return summary.report(job)


def _open(job: Job) -> None:
    """What measures, and the files that are cheap to look at: what is missing is refused before anything costs time.

    Raises:
        BackendError: the runtime that was asked for is missing.
        InputError: a file cannot be read, or is of no kind that halpc reads.
        UsageError: a score that needs inputs that nobody gave, or an engine that nothing here builds.
    """
    options = job.options
    for path in options.importance:
        read_importance(path)
    if options.resume is not None:
        job.earlier = read_plan(options.resume)
    for source in (options.calibration, options.evaluate):
        if source is not None:
            check_source(source)
    if options.score in DATA_SCORES and options.calibration is None:
        raise UsageError(f"--score {options.score} looks at activations: give --calibration")
    if options.budget("latency") is not None:
        closed_loop.open_table(job)
    if options.profiler.startswith("tensorrt") and not hasattr(backend_of(job), "build"):
        raise UsageError(
            f"--profiler {options.profiler} builds an engine where it measures, and nothing is measured here: give a"
            " budget on --latency and no --accept-table-from-other-device, or leave --profiler out"
        )
    if (options.profiles.get("min") or options.profiles.get("max")) and not hasattr(backend_of(job), "build"):
        job.note("--min-shapes and --max-shapes are of the engine that TensorRT builds, and none is built here")
    if job.profiler is None and (idle := idle_device(options)):
        job.note(f"nothing is measured here, and so nothing was done with {idle}")


def _load(job: Job) -> None:
    """The model, and every other input, so that a bad file fails before anything costs time."""
    options = job.options
    job.model = load(options.model, shapes=options.shapes, batch=options.batch, values=options.values)
    inside = check_layers(options.model, job.model.twin)
    if inside:
        layer, reason = next(iter(inside.items()))
        others = f" and {len(inside) - 1} more layer(s)" if len(inside) > 1 else ""
        job.note(f"{layer}{others}: whole, since {reason}")
    check_numbers(options.model, job.model.graph)
    job.engine_shapes = engine_shapes(job.model, options.profiles)
    if job.profiler is not None:
        job.baseline = static_proto(job.model.graph, job.model.shapes, job.model.header)
        runs_here(job.profiler, options.model, job.baseline)  # what the runtime cannot run is refused here
    bare = bare_of(job.model.graph, job.model.header).proto
    if options.calibration is not None:
        job.calibration = load_calibration(
            options.calibration, bare, mean=options.mean, std=options.std, shape=job.model.shapes
        )
        if options.recover != "off":
            check_count(job.calibration)
    if options.evaluate is not None:
        job.labelled = load_labelled(options.evaluate, bare)
    say_what_came(job, bare)
    if options.precision not in NATIVE:  # what cannot be converted is refused here, once more as its device wants it
        deployed(job, proto_of(job.model.graph, job.model.header))


def _couple(job: Job) -> None:
    options = job.options
    frozen = produced_by(job.model.twin, options.freeze)
    job.coupling = couple(job.model.twin, renormalise=options.renormalise, freeze=frozen)
    if options.vanish:
        job.vanishing = vanishable(job.model, job.coupling)
    if job.earlier is not None and options.resume is not None:
        job.earlier.check_groups({name: g.size for name, g in job.coupling.free().items()}, options.resume)
        job.earlier.check_vanished(job.vanishing, options.resume)
        if job.earlier.model_sha256 != job.model.sha256:
            job.note(f"--resume {options.resume}: the plan was made for this network with other weights")
    if job.coupling.renormalised:
        job.note("approximate: channels under a mean or LayerNorm were allowed to go (--allow-renormalisation)")


def _profile(job: Job) -> None:
    """Cost models of what is limited: counted ones at once, latency from measured tables."""
    job.costs["macs"] = count.macs(job.model.twin, job.coupling)
    for remark in count.remarks(job.model.twin, job.coupling):
        job.note(remark)
    job.costs["params"] = count.params(job.model.twin, job.coupling, job.model.recipes)
    whole, stored = job.costs["params"].at({}), job.model.stored
    if whole > (1 + GROWN) * stored:
        job.note(
            f"the file computes weights of others: computed in advance, they are {spell_count(whole)} parameters, where"
            f" the file stores {spell_count(stored)}; shares and budgets are of what it stores"
        )
    job.memory = peak_memory(job.model.twin, job.coupling)
    if job.options.budget("latency") is not None:
        closed_loop.profile_latency(job)


def _recover(job: Job) -> None:
    """Refit the slim model's weights on the calibration inputs; its shapes and so its latency stay."""
    if job.calibration is None or job.options.recover == "off" or not job.plan.keep:
        return
    original = proto_of(job.model.graph, job.model.header)

    def progress(*args: object) -> None:
        done, total = (int(a) for a in args[:2] if isinstance(a, int))
        job.progress("recover", done, total)

    mode = job.options.recover
    job.recovery = recover(original, job.slim, job.plan.keep, job.calibration, mode=mode, progress=progress)
    layers = job.recovery.layers
    if layers and all(layer.action == "skipped" for layer in layers):
        why = Counter(layer.reason for layer in layers).most_common(1)[0][0]
        job.note(f"nothing was recovered, and accuracy may be lost: {why}")
    elif job.recovery.error_after > UNLIKE:
        job.note(
            f"the outputs are {_spell_error(job.recovery)} on held-back inputs: the network"
            " hardly does what it did, whatever importance says; prune less, or --freeze what comes first"
        )
    if job.recovery.alike:
        job.note(
            f"{job.calibration.source}: the network gives the same for all held-back inputs, which so tell little of"
            " what is lost; give inputs as it will see them"
        )


def _spell_error(found: Recovery) -> str:
    """How far the recovered outputs are off, in words where a percentage of the variance would tell nothing."""
    if not math.isfinite(found.error_after):
        return "NaN or infinite where they were numbers"
    measure = "their mean square" if found.alike else "their variance"
    if found.error_after > FAR:
        return f"off by more than {FAR} times {measure}"
    return f"off by {found.error_after:.0%} of {measure}"


def _check_reading(job: Job) -> None:
    """What was read is what is in the file."""
    unread = verify_reading(job.model, job.options.values)
    make_room(job.model.size_bytes)
    if unread is not None:
        job.note(
            f"onnxruntime does not run the file as it is, so what was read of it is not compared with it: {unread}"
        )


def _verify(job: Job) -> None:
    """slim = masked, before recovery touches a weight."""
    real = [] if job.calibration is None else list(islice(job.calibration.batches(VERIFY_BATCH), 1))
    approximate = bool(job.coupling.renormalised)
    job.verification = verify(job.model, job.coupling, job.plan, job.slim, inputs=real, approximate=approximate)


def _cast(job: Job) -> None:
    """The final model at the precision that it will be deployed at."""
    job.final = job.recovery.model if job.recovery is not None else job.slim
    if job.options.precision in NATIVE:  # converters see plain constants
        job.final = unfolded(job.final, job.model.recipes)
    job.deployed = deployed(job, job.final)
    if job.deployed is not job.final:
        real = [] if job.calibration is None else list(islice(job.calibration.batches(CONVERT_BATCH), 1))
        job.conversion = conversion_error(job.final, job.deployed, job.model.shapes, real)
        say_what_moved(job)


def _evaluate_before(job: Job) -> None:
    """Top-1 of the model as it came."""
    if job.labelled is not None:
        job.accuracy_before = evaluate(proto_of(job.model.graph, job.model.header), job.labelled).top1


def _evaluate(job: Job) -> None:
    """Top-1 of what is deployed."""
    if job.labelled is None:
        return
    try:
        job.accuracy = evaluate(job.deployed, job.labelled).top1
    except BackendError as error:
        if job.deployed is job.final:
            raise
        job.note(
            f"top-1 is that of the model before --precision {job.options.precision}, which cannot run here: {error}"
        )
        job.accuracy = evaluate(job.final, job.labelled).top1


def write(job: Job, report: Report, folder: Path) -> Report:
    """Every file of the output, into the scratch folder; the report with what an engine says of itself.

    Raises:
        OverBudgetError: the result is slower than the input.
        BackendError: the engine cannot be built.
    """
    if report.status == "slower":
        raise OverBudgetError("the pruned model measured slower than its input; nothing was written")
    save_proto(job.final, folder / "pruned.onnx")
    write_json(folder / "plan.json", in_the_files_words(job.model, job.plan).as_json())
    write_json(folder / "latency.json", summary.table_json(job))
    if job.options.precision not in NATIVE:
        save_proto(job.deployed, folder / f"pruned.{job.options.precision}.onnx")
    _engine(job, folder)
    if job.engine is not None:
        notes = (*report.notes, *job.engine.notes, *trials.engine_remarks(job))
        report = replace(report, status=trials.status(job), engine=summary.engine(job), notes=notes)
    (folder / "report.html").write_text(summary.html(report), encoding="utf-8")
    write_json(folder / "report.json", report.as_json())
    return report


def _engine(job: Job, folder: Path) -> None:
    """`model.engine`, where the runtime builds engines, and what it takes itself.

    The very engine that was measured, unless it is to take a range of shapes: another build may choose slower kernels.
    """
    backend, path = backend_of(job), folder / "model.engine"
    if not hasattr(backend, "build"):
        return
    fixed = all(profile.min == profile.max == job.model.shapes[name] for name, profile in job.engine_shapes.items())
    known = fixed and job.evidence is not None
    model, shapes = (as_timed(job), {}) if known else (job.deployed, job.engine_shapes)
    for _ in range(BUILDS):
        job.engine = backend.build(model, path, shapes=shapes, precision=precision_of(job.deployed))
        job.engine_ms = trials.time_engine(job, path)
        if not trials.engine_over(job):
            break


# What there is to work on; whatever cannot be used is refused here.
INPUTS: Stages = (("open", _open), ("load", _load))
# What depends on the model and the device only; a second budget starts behind it.
LEARN: Stages = (
    ("check", _check_reading),
    ("couple", _couple),
    ("score", score),
    ("profile", _profile),
    ("evaluate", _evaluate_before),
)
PREPARE: Stages = (*INPUTS, *LEARN)
# What a budget costs in accuracy, by a choice that nothing was measured for.
TRY: Stages = (("select", closed_loop.choose_once), ("recover", _recover), ("cast", _cast), ("evaluate", _evaluate))
# What depends on the budget.
FINISH: Stages = (
    ("select", closed_loop.select_and_measure),  # select, slim and measure, in rounds
    ("verify", _verify),
    ("recover", _recover),
    ("cast", _cast),
    ("evaluate", _evaluate),
    ("judge", trials.judge),
)
