"""Recover: what can be had back without training, from calibration inputs alone.

Layer by layer, in the order of the graph, each layer whose input was changed by pruning is refitted: its
weights and bias become the ridge-regularised least-squares solution that maps the *pruned and already
recovered* network's inputs onto the *original's* outputs at the channels that stay. The solution is in closed form
from Gram matrices, which are accumulated over streamed batches; the strength of the ridge and whether to
keep the refit at all are decided per layer on inputs that the fit did not see.

Memory: two frontiers (`passes/recovery/segments.py`), each at most half of `memory_bytes` unless the inputs are larger,
and about five square matrices of the layer's unknowns in float64. Nothing is written to disk.

Half-precision models are recovered in float32 and written back in their own types, operators that compute in integers
as DequantizeLinear, the plain operator and QuantizeLinear; what is kept, and the errors that are reported, are of the
weights as they are stored.

Source: He, Zhang and Sun 2017 (arXiv 1707.06168, least-squares reconstruction); Luo et al. 2017 (ThiNet,
arXiv 1707.06342); Meng et al. 2024 (OSSCAR, arXiv 2403.12983).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from halpc.errors import CalibrationError
from passes.calibration import Calibration
from passes.recovery.censored import Rows, refine
from passes.recovery.constants import Constants
from passes.recovery.finite import culprits, refusal
from passes.recovery.gram import Moments, Normal
from passes.recovery.integers import closed, opened
from passes.recovery.layers import Keep, Layer
from passes.recovery.outputs import Outputs
from passes.recovery.plan import Task, plan_recovery
from passes.recovery.samples import Samples, row_limit
from passes.recovery.segments import Walk
from passes.recovery.targets import own_target
from passes.recovery.wide import is_half, narrowed, widened, widened_inputs

Mode: TypeAlias = Literal["refit", "bias", "off"]
Progress: TypeAlias = Callable[[int, int, str], None]
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LEAST_SAMPLES = 8
EXACT = 1e-11  # relative squared error below which there is nothing to recover but rounding


@dataclass(frozen=True, slots=True)
class Options:
    """How to recover.

    Attributes:
        mode: `refit` weights and biases, correct only the `bias`, or `off`.
        residual: let the last layer of a residual branch correct the sum rather than its own output.
        rounds: how often to refit with targets beyond the following activation's bounds censored, 0 for never.
        rows_bytes: most memory for the rows that this needs; layers that need more are fitted plainly.
        strengths: ridge strengths to choose from, in units of the mean diagonal of the Gram matrix.
        held_share: share of the samples held back to choose and to check.
        positions: most output positions sampled per layer.
        rows_per_unknown: sampled positions per unknown where that is fewer, where that is fewer.
        batch: samples per run.
        memory_bytes: most that the activations kept between layers may take.
        threads: of onnxruntime, 0 for its default.
        seed: of the sampled positions.
    """

    mode: Mode = "refit"
    residual: bool = True
    rounds: int = 6
    rows_bytes: int = 1 << 29
    strengths: tuple[float, ...] = STRENGTHS
    held_share: float = 0.2
    positions: int = 60_000
    rows_per_unknown: int = 25
    batch: int = 32
    memory_bytes: int = 3 << 30
    threads: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What was done to one layer.

    Attributes:
        name: its node.
        op: its operator.
        action: `refit`, `bias`, `kept` (refitting would not have helped) or `skipped`.
        reason: why it was kept or skipped, or what would make its refit better.
        unknowns: weights fitted per output channel.
        positions: rows that they were fitted on.
        strength: ridge strength chosen; inf where only the bias was fitted.
        before: mean squared error on held-back inputs over the target's variance (both behind the activation that
            follows, where the refit took it into account), as pruned.
        after: the same as recovered.
        seconds: wall time.
    """

    name: str
    op: str
    action: str
    reason: str = ""
    unknowns: int = 0
    positions: int = 0
    strength: float = 0.0
    before: float = 0.0
    after: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Recovery:
    """A recovered model and what recovery did.

    Attributes:
        model: the slim model with refitted weights; its names and shapes are unchanged (a bias may have been added).
        layers: per layer with changed inputs, in the order they were refitted.
        error_before: relative error of the slim model's outputs on held-back inputs, ‖y − ŷ‖² / ‖y − mean y‖².
        error_after: the same of the recovered model; never larger.
        seconds: wall time.
        alike: whether the original gives the same for all held-back inputs, so that errors are over ‖y‖².
    """

    model: onnx.ModelProto
    layers: tuple[LayerReport, ...]
    error_before: float
    error_after: float
    seconds: float
    alike: bool = False


def recover(
    original: onnx.ModelProto,
    slim: onnx.ModelProto,
    keep: Keep,
    calibration: Calibration,
    *,
    mode: Mode = "refit",
    progress: Progress | None = None,
    options: Options | None = None,
) -> Recovery:
    """Refits the layers of `slim` so that it computes what `original` computes.

    Args:
        original: the model before pruning.
        slim: the same nodes and names with initializers sliced; nodes may be missing. It is not changed.
        keep: per initializer and axis, the indices that stayed; an absent axis stayed whole.
        calibration: inputs, of which `held_share` are held back to choose and to check on.
        mode: `refit`, `bias` or `off`; overrides the options'.
        progress: called with (layers done, layers in all, name of the next).

    Raises:
        CalibrationError: too few samples, or what the original makes of some of them is no number.
        BackendError: onnxruntime refuses a model.
    """
    started = time.perf_counter()
    chosen = replace(options or Options(), mode=mode)
    if chosen.mode != "off":
        check_count(calibration)
    half = is_half(slim)
    whole, real = opened(original), opened(slim)
    before_it = real
    if half:
        whole, before_it, calibration = widened(whole), widened(real), widened_inputs(calibration)
    model = onnx.ModelProto()
    model.CopyFrom(before_it)
    samples = Samples.split(calibration, held_share=chosen.held_share, batch=chosen.batch, seed=chosen.seed)
    reports: list[LayerReport] = []
    if chosen.mode != "off":
        reports = list(_sweep(whole, model, keep, samples, calibration, chosen, progress))
    model = narrowed(model, real) if half else model
    after_it = widened(model) if half else model
    model = model if real is slim else closed(model, slim)
    outputs = Outputs(whole, samples.held, batch=chosen.batch, threads=chosen.threads)
    before, after = outputs.error(before_it), outputs.error(after_it)
    if not after <= before:
        model, after = slim, before
        why = "the recovered model's outputs were further from the original's"
        reports = [replace(report, action="kept", reason=why) for report in reports]
    return Recovery(model, tuple(reports), before, after, time.perf_counter() - started, outputs.alike)


def check_count(calibration: Calibration) -> None:
    """Whether there are enough samples to fit on and to check on.

    Raises:
        CalibrationError: there are not; says how many are needed.
    """
    count, distinct = len(calibration), calibration.distinct()
    if distinct < LEAST_SAMPLES:
        which = f"{count} samples" if distinct == count else f"{distinct} different samples ({count} in all)"
        raise CalibrationError(
            f"{calibration.source}: {which} are too few for least squares; at least {LEAST_SAMPLES} "
            "are needed, a few hundred are better (or --recover off)."
        )


def _sweep(
    original: onnx.ModelProto,
    model: onnx.ModelProto,
    keep: Keep,
    samples: Samples,
    calibration: Calibration,
    options: Options,
    progress: Progress | None,
) -> Iterator[LayerReport]:
    """Refits every layer with changed inputs, in order, in place."""
    constants = Constants(model, original)
    tasks, skipped = plan_recovery(
        original, model, keep, constants, residual=options.residual, activation=options.rounds > 0
    )
    yield from (LayerReport(skip.name, skip.op, "skipped", skip.reason) for skip in skipped)
    half = options.memory_bytes // 2
    sites = [[target.site for _, target in task.uses] for task in tasks]
    theirs = Walk(original, samples.batches, sites, half, options.threads)
    wanted = [[name for layer, target in task.uses for name in (layer.data, *target.others)] for task in tasks]
    ours = Walk(model, samples.batches, wanted, half, options.threads)
    for number, task in enumerate(tasks):
        if progress is not None:
            progress(number, len(tasks), task.layer.name)
        started = time.perf_counter()
        report = _recover_layer(task, number, theirs, ours, samples, constants, options)
        if report is None:
            report = _recover_alone(task, number, original, model, samples, calibration, constants, options)
        yield replace(report, seconds=_since(started))
    if progress is not None:
        progress(len(tasks), len(tasks), "")


def _since(started: float) -> float:
    return time.perf_counter() - started


def _recover_layer(
    task: Task, number: int, theirs: Walk, ours: Walk, samples: Samples, constants: Constants, options: Options
) -> LayerReport | None:
    """Gathers a layer's moments (and rows, where an activation follows) and refits it; None where any is no number."""
    groups, unknowns, outputs = task.layer.weights(constants).shape
    wanted = unknowns if options.mode == "refit" else 1
    limit = row_limit(wanted, most=options.positions, per_unknown=options.rows_per_unknown)
    clips = task.target.clip is not None and options.mode == "refit" and task.layer.bias is not None
    clips = clips and 4 * limit * groups * (unknowns + 3 * outputs) <= options.rows_bytes
    rows = Rows() if clips else None
    seen = _seen(task, theirs, ours, constants, bounds=clips)
    most = max(limit // len(task.uses), 1)
    with np.errstate(invalid="ignore", over="ignore"):
        found = samples.moments(seen, number, most, rows.add if rows is not None else None)
    return None if found is None else _refit(task, *found, rows, constants, options)


def _recover_alone(
    task: Task,
    number: int,
    original: onnx.ModelProto,
    model: onnx.ModelProto,
    samples: Samples,
    calibration: Calibration,
    constants: Constants,
    options: Options,
) -> LayerReport:
    """A layer where something is no number: towards its own output (a sum may be with a mask of −inf), if that helps.

    Raises:
        CalibrationError: the original's own activations are no numbers there.
    """
    layer, half = task.layer, options.memory_bytes // 2
    own = replace(task, target=own_target(layer))
    if own != task:
        theirs = Walk(original, samples.batches, [[target.site for _, target in own.uses]], half, options.threads)
        ours = Walk(model, samples.batches, [[each.data for each, _ in own.uses]], half, options.threads)
        report = _recover_layer(own, number, theirs, ours, samples, constants, options)
        if report is not None:
            return report
    for each, target in own.uses:
        places = culprits(original, target.site, calibration, threads=options.threads)
        if places:
            raise refusal(calibration, places, f"{target.site!r} (layer {each.name})")
    reason = "what it reads in the pruned network is NaN or infinite on some inputs"
    return LayerReport(layer.name, layer.op, "skipped", reason)


def _seen(
    task: Task, theirs: Walk, ours: Walk, constants: Constants, *, bounds: bool
) -> Iterator[tuple[int, Layer, NDArray[Any], NDArray[Any], tuple[NDArray[Any], ...]]]:
    """Per batch, a layer's input in the slim model, what its output should be, and the bounds it may exceed."""
    for number, (original, slim) in enumerate(zip(theirs.step(), ours.step(), strict=True)):
        for layer, target in task.uses:
            wanted = target.value(original[target.site], task.kept, layer.channel_axis, slim, constants)
            between = target.bounds(wanted, slim, constants) if bounds else ()
            yield number, layer, slim[layer.data], wanted, between


@dataclass(frozen=True, slots=True)
class _Fit:
    """Weights and bias (None: those that were there), and their held-back error over the target's variance."""

    error: float
    strength: float = 0.0
    weights: NDArray[np.float64] | None = None
    bias: NDArray[np.float64] | None = None


def _refit(
    task: Task, fit: Moments, held: Moments, rows: Rows | None, constants: Constants, options: Options
) -> LayerReport:
    """Chooses among what was, a new bias and ridge solutions by the held-back error, and writes the winner."""
    layer = task.layer
    prior = layer.weights(constants)
    before, best, normal = _least_squares(fit, held, layer, constants, options)
    if rows is not None and best.weights is not None and np.isfinite(best.strength):
        before, best = _with_activation(rows, normal, layer, constants, best, options)
    why = "nothing was lost" if before <= EXACT else "no refit lowered the held-back error"
    report = LayerReport(
        layer.name, layer.op, "kept", why, prior.shape[1], fit.count, best.strength, before, best.error
    )
    if best.weights is None or best.bias is None:
        return report
    if np.isfinite(best.strength):
        layer.store(constants, best.weights)
    for reader, _ in task.uses:
        reader.store_bias(constants, best.bias)
    action = "refit" if np.isfinite(best.strength) else "bias"
    together = f"one fit for the {len(task.uses)} readers of its weight" if task.others else ""
    reason = "; ".join(filter(None, (together, _advice(prior.shape[1], fit.count))))
    return replace(report, action=action, reason=reason)


def _least_squares(
    fit: Moments, held: Moments, layer: Layer, constants: Constants, options: Options
) -> tuple[float, _Fit, Normal]:
    """The error as it was, the best of all candidates on what was held back, and the normal equations."""
    prior, bias, has_bias = layer.weights(constants), layer.biases(constants), layer.bias is not None
    normal, check = fit.about(mean=has_bias), held.about(mean=has_bias)
    variance = max(float(held.about(mean=True).yy.sum()), 1e-30)
    before = float(check.error(prior, bias).sum()) / variance
    best = _Fit(before)
    for strength, found in _candidates(normal, prior, options) if before > EXACT else ():
        weights, fitted = layer.stored(constants, found, normal.bias if has_bias else lambda _: bias)
        error = float(check.error(weights, fitted).sum()) / variance
        if error < best.error:
            best = _Fit(error, strength, weights, fitted)
    return before, best, normal


def _with_activation(
    rows: Rows, normal: Normal, layer: Layer, constants: Constants, plain: _Fit, options: Options
) -> tuple[float, _Fit]:
    """The same choice, judged behind the activation and with the censored refits among the candidates."""
    prior, bias = layer.weights(constants), layer.biases(constants)
    assert plain.weights is not None
    assert plain.bias is not None
    variance = max(rows.variance(), 1e-30)
    before = rows.error(prior, bias) / variance
    best = _Fit(before)
    rounds = refine(rows, normal, prior, plain.strength, plain.weights, plain.bias, options.rounds)
    for candidate, shift in ((plain.weights, plain.bias), *rounds):
        weights, fitted = layer.stored(constants, candidate, partial(_recentred, normal, candidate, shift))
        error = rows.error(weights, fitted) / variance
        if error < best.error:
            best = _Fit(error, plain.strength, weights, fitted)
    return before, best


def _recentred(
    normal: Normal, weights: NDArray[np.float64], bias: NDArray[np.float64], stored: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The bias that gives the same mean with the weights as they can be stored."""
    return bias if stored is weights else bias + np.einsum("gk,gkm->gm", normal.x, weights - stored)


def _candidates(
    normal: Normal, prior: NDArray[np.float64], options: Options
) -> Iterator[tuple[float, NDArray[np.float64]]]:
    yield np.inf, prior
    if options.mode == "refit":
        for strength in options.strengths:
            yield strength, normal.ridge(prior, strength)


def _advice(unknowns: int, rows: int) -> str:
    if rows >= 2 * unknowns:
        return ""
    return f"{rows} rows for {unknowns} unknowns; {2 * unknowns / max(rows, 1):.1f}× the samples would determine them"
