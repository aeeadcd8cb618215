"""Recover: what can be had back without training, from calibration inputs alone.

Layer by layer, in the order of the graph, each layer whose input was changed by pruning is refitted: its
weights and bias become the ridge-regularised least-squares solution that maps the *pruned and already
recovered* network's inputs onto the *original's* outputs at the channels that stay. The solution is in closed form
from Gram matrices, which are accumulated over streamed batches; the strength of the ridge and whether to
keep the refit at all are decided per layer on inputs that the fit did not see.

Memory: two frontiers (`passes/segments.py`), each at most half of `memory_bytes` unless a single batch's are larger, and
about five square matrices of the layer's unknowns in float64. Nothing is written to disk.

Source: He, Zhang and Sun 2017 (arXiv 1707.06168, eq. 5, asymmetric targets); Luo et al. 2017 (ThiNet, arXiv 1707.06342);
Meng et al. 2024 (OSSCAR, arXiv 2403.12983).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from halpc.errors import CalibrationError
from passes.calibration import Arrays, Calibration
from passes.constants import Constants
from passes.gram import Moments, Normal
from passes.layers import Keep, Layer, Scaled, make_layer
from passes.segments import Walk, open_session, reads
from passes.targets import Target, changed_tensors, own_target, sum_target, tensor_shapes

Mode: TypeAlias = Literal["refit", "bias", "off"]
Progress: TypeAlias = Callable[[int, int, str], None]
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LEAST_SAMPLES = 8
LEAST_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Options:
    """How to recover.

    Attributes:
        mode: `refit` weights and biases, correct only the `bias`, or `off`.
        residual: let the last layer of a residual branch correct the sum rather than its own output.
        strengths: ridge strengths to choose from, in units of the mean diagonal of the Gram matrix.
        held_share: share of the samples held back to choose and to check.
        positions: most output positions sampled per layer.
        rows_per_unknown: sampled positions per unknown where that is fewer, yet at least `LEAST_ROWS`.
        batch: samples per run.
        memory_bytes: most that the activations kept between layers may take.
        threads: of onnxruntime, 0 for its default.
        seed: of the sampled positions.
    """

    mode: Mode = "refit"
    residual: bool = True
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
        before: mean squared error on held-back inputs over the target's variance, as pruned.
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
    """

    model: onnx.ModelProto
    layers: tuple[LayerReport, ...]
    error_before: float
    error_after: float
    seconds: float


@dataclass(slots=True)
class _Task:
    layer: Layer
    target: Target
    kept: NDArray[np.int64] | None


@dataclass(slots=True)
class _Samples:
    """Batches to run, those to fit on first, and where the held-back ones begin."""

    batches: list[Arrays]
    held_from: int
    count: int = field(default=0)


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
        CalibrationError: too few samples.
        BackendError: onnxruntime refuses a model.
    """
    started = time.perf_counter()
    chosen = _with_mode(options or Options(), mode)
    model = onnx.ModelProto()
    model.CopyFrom(slim)
    fit, held = _split(calibration, chosen)
    samples = _Samples([*fit.batches(chosen.batch), *held.batches(chosen.batch)], -(-len(fit) // (fit.batch or chosen.batch)))
    samples.count = len(fit) + len(held)
    reports: list[LayerReport] = []
    if chosen.mode != "off":
        reports = list(_sweep(original, model, keep, samples, chosen, progress))
    before, after = _output_errors(original, [slim, model], held, chosen)
    if not after <= before:
        model, after = slim, before
        reports = [_undone(report) for report in reports]
    return Recovery(model, tuple(reports), before, after, time.perf_counter() - started)


def _with_mode(options: Options, mode: Mode) -> Options:
    values = {name: getattr(options, name) for name in Options.__dataclass_fields__}
    return Options(**{**values, "mode": mode})


def _undone(report: LayerReport) -> LayerReport:
    values = {name: getattr(report, name) for name in LayerReport.__dataclass_fields__}
    why = "the outputs of the recovered model were further from the original's"
    return LayerReport(**{**values, "action": "kept", "reason": why})


def _split(calibration: Calibration, options: Options) -> tuple[Calibration, Calibration]:
    if len(calibration) < LEAST_SAMPLES and options.mode != "off":
        raise CalibrationError(
            f"{calibration.source}: {len(calibration)} samples are too few for least squares; at least {LEAST_SAMPLES} "
            "are needed, a few hundred are better (or --no-recover)."
        )
    return calibration.split(options.held_share)


def _sweep(
    original: onnx.ModelProto,
    model: onnx.ModelProto,
    keep: Keep,
    samples: _Samples,
    options: Options,
    progress: Progress | None,
) -> Iterator[LayerReport]:
    """Refits every layer with changed inputs, in order, in place."""
    constants = Constants(model, original)
    tasks, skipped = _plan(original, model, keep, constants, options)
    yield from skipped
    half = options.memory_bytes // 2
    walk_original = Walk(original, samples.batches, [[t.target.site] for t in tasks], half, options.threads)
    wanted = [[t.layer.data, *t.target.others] for t in tasks]
    walk_slim = Walk(model, samples.batches, wanted, half, options.threads)
    for number, task in enumerate(tasks):
        if progress is not None:
            progress(number, len(tasks), task.layer.name)
        started = time.perf_counter()
        fit, held = _moments(task, number, walk_original.step(), walk_slim.step(), samples, constants, options)
        yield _refit(task, fit, held, constants, options, started)
    if progress is not None:
        progress(len(tasks), len(tasks), "")


def _plan(
    original: onnx.ModelProto, model: onnx.ModelProto, keep: Keep, constants: Constants, options: Options
) -> tuple[list[_Task], list[LayerReport]]:
    """Layers to refit in an order that respects dependencies, and those that cannot be."""
    changed = changed_tensors(original, model, keep)
    known = {name for node in original.graph.node for name in node.output}
    layers, skipped = list[Layer](), list[LayerReport]()
    made = set[str]()
    for index, node in enumerate(model.graph.node):
        layer = make_layer(node, index, constants) if node.input and node.input[0] in changed else None
        if isinstance(layer, str):
            skipped.append(LayerReport(node.name or node.output[0], node.op_type, "skipped", layer))
        elif layer is not None and layer.output in known and not (isinstance(layer, Scaled) and layer.data in made):
            layers.append(layer)
            made.add(layer.output)
    ordered, early = _order(model, layers)
    shapes = tensor_shapes(model) if options.residual else {}
    tasks = []
    for number, layer in enumerate(ordered):
        safe = {name for name, rank in early.items() if rank < number}
        target = sum_target(layer, constants, shapes, safe) if options.residual else own_target(layer)
        target = target if target.site in known else own_target(layer)
        tasks.append(_Task(layer, target, layer.kept_outputs(keep, constants)))
    return tasks, skipped


def _order(model: onnx.ModelProto, layers: Sequence[Layer]) -> tuple[list[Layer], dict[str, int]]:
    """Layers by how many layers lie above them, so that of two branches the longer one is finished last.

    Also, per tensor, the place in this order of the last layer that influences it (−1 where none does).
    """
    by_node = {layer.index: layer for layer in layers}
    above: dict[str, int] = {}
    level: dict[int, int] = {}
    for index, node in enumerate(model.graph.node):
        depth = max((above.get(name, 0) for name in reads(node)), default=0)
        if index in by_node:
            level[index] = depth
            depth += 1
        above.update(dict.fromkeys(node.output, depth))
    ordered = sorted(layers, key=lambda layer: (level[layer.index], layer.index))
    place = {layer.index: number for number, layer in enumerate(ordered)}
    last: dict[str, int] = dict.fromkeys((value.name for value in model.graph.input), -1)
    for index, node in enumerate(model.graph.node):
        rank = max((last.get(name, -1) for name in reads(node)), default=-1)
        last.update(dict.fromkeys(node.output, max(rank, place.get(index, -1))))
    return ordered, last


def _moments(
    task: _Task,
    number: int,
    originals: Iterator[Mapping[str, NDArray[Any]]],
    slims: Iterator[Mapping[str, NDArray[Any]]],
    samples: _Samples,
    constants: Constants,
    options: Options,
) -> tuple[Moments, Moments]:
    """Second moments of a layer's inputs and targets, over the samples to fit on and over those held back."""
    layer = task.layer
    both: list[Moments] = []
    random = np.random.default_rng((options.seed, number))
    for index, (theirs, ours) in enumerate(zip(originals, slims, strict=True)):
        target = task.target.value(theirs[task.target.site], task.kept, layer.channel_axis, dict(ours), constants)
        if not both:
            scale = samples.count / len(next(iter(samples.batches[0].values())))
            most = max(1, round(_row_limit(layer, constants, options) / (scale * len(target))))
        picks = _picks(len(target), layer.flat(target).shape[1], most, random)
        rows, wants = layer.rows(ours[layer.data], layer.sizes(target), picks), layer.targets(target, picks)
        if not both:
            shifts = rows.mean(axis=1, dtype=np.float64), wants.mean(axis=1, dtype=np.float64)
            both = [Moments.empty(*shifts), Moments.empty(*shifts)]
        both[int(index >= samples.held_from)].add(rows, wants)
    return both[0], both[1]


def _row_limit(layer: Layer, constants: Constants, options: Options) -> int:
    """How many rows to sample: enough for the unknowns, few where only a bias is sought."""
    if options.mode == "bias":
        return LEAST_ROWS
    return min(options.positions, max(LEAST_ROWS, options.rows_per_unknown * layer.weights(constants).shape[1]))


def _picks(samples: int, positions: int, most: int, random: np.random.Generator) -> NDArray[np.int64]:
    """int64[samples, chosen]: one of every `positions / most` consecutive positions, drawn anew for each sample.

    Samples consume the random stream one after another, so that the batch size does not matter.
    """
    if positions <= most:
        return np.broadcast_to(np.arange(positions), (samples, positions))
    drawn = (np.arange(most) + random.random((samples, most))) * (positions / most)
    return np.minimum(drawn.astype(np.int64), positions - 1)


def _refit(
    task: _Task, fit: Moments, held: Moments, constants: Constants, options: Options, started: float
) -> LayerReport:
    """Chooses among what was, a new bias and ridge solutions by the held-back error, and writes the winner."""
    layer = task.layer
    has_bias = layer.bias is not None
    normal, check = fit.about(mean=has_bias), held.about(mean=has_bias)
    prior, bias = layer.weights(constants), layer.biases(constants)
    variance = max(float(held.about(mean=True).yy.sum()), 1e-30)
    before = float(check.error(prior, bias).sum())
    best: tuple[float, float, Any, Any] = (before, 0.0, None, None)
    for strength, weights in _candidates(normal, prior, options):
        fitted = normal.bias(weights) if has_bias else bias
        error = float(check.error(weights, fitted).sum())
        if error < best[0]:
            best = (error, strength, weights, fitted)
    error, strength, weights, fitted = best
    action, reason = "kept", "no refit lowered the held-back error"
    if weights is not None:
        action, reason = ("bias" if np.isinf(strength) else "refit"), _advice(prior.shape[1], fit.count)
        if not np.isinf(strength):
            layer.store(constants, weights)
        layer.store_bias(constants, fitted)
    return LayerReport(
        layer.name, layer.op, action, reason, prior.shape[1], fit.count, strength,
        before / variance, error / variance, time.perf_counter() - started,
    )  # fmt: skip


def _candidates(normal: Normal, prior: NDArray[np.float64], options: Options) -> Iterator[tuple[float, NDArray[np.float64]]]:
    yield np.inf, prior
    if options.mode == "refit":
        for strength in options.strengths:
            yield strength, normal.ridge(prior, strength)


def _advice(unknowns: int, rows: int) -> str:
    if rows >= 2 * unknowns:
        return ""
    return f"{rows} rows for {unknowns} unknowns; {2 * unknowns / max(rows, 1):.1f}× the samples would determine them"


def _output_errors(
    original: onnx.ModelProto, others: Sequence[onnx.ModelProto], held: Calibration, options: Options
) -> list[float]:
    """Relative squared error of each model's floating-point outputs on held-back inputs, summed over outputs."""
    reference = _outputs(original, held, options)
    result = []
    for model in others:
        error = 0.0
        for ours, theirs in zip(_outputs(model, held, options), reference, strict=True):
            if np.issubdtype(theirs.dtype, np.floating) and ours.shape == theirs.shape:
                spread = float(np.square(theirs - theirs.mean(axis=0)).sum())
                error += float(np.square(ours - theirs).sum()) / max(spread, 1e-30)
        result.append(error)
    return result


def _outputs(model: onnx.ModelProto, held: Calibration, options: Options) -> list[NDArray[Any]]:
    session = open_session(model, options.threads)
    parts = [session.run(None, dict(batch)) for batch in held.batches(options.batch)]
    joined = (np.concatenate([np.atleast_1d(np.asarray(p)) for p in column]) for column in zip(*parts, strict=True))
    return [array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array for array in joined]
