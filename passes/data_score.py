"""Data-aware importance: what a channel is worth to the layers that read it, judged on calibration inputs.

    energy          variance of the activation × squared norm of the weights that read it (Wanda, lifted to channels)
    unrecoverable   what its removal still costs after those layers are refitted (`passes/recovery/unrecoverable.py`)

Both count squared error at a layer's output in units of the variance of the tensor that it feeds (the residual sum,
where it feeds one), so that layers compare. A group's score is the sum over the layers that read it. An error counts
more the later it arises: the refits behind an early layer take part of its error back (`ScoreOptions.depth`).

Source: Sun et al. 2023 (Wanda, arXiv 2306.11695, eq. 1); Meng et al. 2024 (OSSCAR, arXiv 2403.12983).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from halpc.errors import CalibrationError
from passes.calibration import Calibration
from passes.recovery.constants import Constants
from passes.recovery.finite import culprits, refusal
from passes.recovery.layers import Layer, Windowed
from passes.recovery.samples import Samples, row_limit
from passes.recovery.segments import Tensors, Walk
from passes.recovery.targets import sum_target, tensor_shapes
from passes.recovery.unrecoverable import Reader, eliminate
from passes.recovery.uses import Use
from passes.recovery.windows import Window

Array = NDArray[np.float64]
Kind: TypeAlias = Literal["energy", "unrecoverable"]
Progress: TypeAlias = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class DataScore:
    """Importance of one group's channels.

    Attributes:
        scores: float64[size].
        curve: float64[size + 1], value kept by the best 0, 1, … channels.
    """

    scores: Array
    curve: Array


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """How activations are looked at.

    Attributes:
        positions: most rows per layer.
        rows_per_unknown: rows per unknown where that is fewer.
        unknowns: layers with more unknowns per output are judged channel by channel: as if a channel could only be
            replaced by others at the same position, which overstates the loss and needs far smaller matrices.
        damping: of the second moments, in units of their mean diagonal.
        depth: error at the last layer counts e^depth times what it counts at the first.
        batch: samples per run.
        memory_bytes: most that activations kept between layers may take.
        threads: of onnxruntime, 0 for its default.
    """

    positions: int = 60_000
    rows_per_unknown: int = 25
    unknowns: int = 2400
    damping: float = 1e-2
    depth: float = 1.0
    batch: int = 32
    memory_bytes: int = 2 << 30
    threads: int = 0


def score_from_data(
    model: onnx.ModelProto,
    uses: Mapping[str, Sequence[Use]],
    calibration: Calibration,
    kind: Kind = "unrecoverable",
    *,
    progress: Progress | None = None,
    options: ScoreOptions | None = None,
) -> dict[str, DataScore]:
    """Importance of every group that some layer reads, on the unpruned model.

    Args:
        uses: group → layers that read it (`uses_of`).
        progress: called with (layers done, layers in all, name of the next).

    Raises:
        CalibrationError: on some inputs what a layer reads or gives is no number.
        BackendError: onnxruntime refuses the model.
    """
    chosen = options or ScoreOptions()
    found: dict[str, list[Block]] = {name: [] for name in uses}
    for name, block in _observe(model, uses, calibration, chosen, progress):
        found[name].append(block)
    judge = _energy if kind == "energy" else _unrecoverable
    return {name: judge(blocks, chosen.damping) for name, blocks in found.items() if blocks}


@dataclass(frozen=True, slots=True)
class Block:
    """What one layer (one group of a grouped one) knows of the channels it reads.

    Attributes:
        xx: float64[k, k], second moments of its inputs about their mean.
        weights: float64[k, outputs].
        features: int64[size, r], the inputs that go with each channel.
        variance: of the tensor that the layer feeds, summed over its channels.
    """

    xx: Array
    weights: Array
    features: NDArray[np.int64]
    variance: float


def _energy(blocks: Sequence[Block], damping: float) -> DataScore:
    """Variance of each input times the squared norm of the weights that read it."""
    total = 0.0
    for block in blocks:
        cost = np.diag(block.xx) * np.square(block.weights).sum(axis=1)
        total = total + cost[block.features].sum(axis=1) / max(block.variance, 1e-30)
    scores = np.asarray(total)
    return DataScore(scores, np.concatenate([[0.0], np.cumsum(np.sort(scores)[::-1])]))


def _unrecoverable(blocks: Sequence[Block], damping: float) -> DataScore:
    readers = [Reader.build(b.xx, b.weights, b.features, b.variance, damping) for b in blocks]
    result = eliminate(readers, len(blocks[0].features))
    return DataScore(result.scores, result.curve)


def _observe(
    model: onnx.ModelProto,
    uses: Mapping[str, Sequence[Use]],
    calibration: Calibration,
    options: ScoreOptions,
    progress: Progress | None,
) -> Iterator[tuple[str, Block]]:
    """Runs the model once; per group and layer that reads it, what the layer knows of the group."""
    constants = Constants(model)
    views = _views(uses, constants, options)
    shapes, everything = tensor_shapes(model), {name for node in model.graph.node for name in node.output}
    sites = [sum_target(view.layer, constants, shapes, everything).site for view in views]
    samples = Samples.split(calibration, held_share=1e-9, batch=options.batch)
    schedule = [[view.layer.data, site] for view, site in zip(views, sites, strict=True)]
    walk = Walk(model, samples.batches, schedule, options.memory_bytes, options.threads)
    for number, (view, site) in enumerate(zip(views, sites, strict=True)):
        if progress is not None:
            progress(number, len(views), view.layer.name)
        own = view.layer.output
        found = _look(view, site, walk.step(), samples, number, options)
        if found is None and site != own:  # the sum may be with a mask of −inf
            alone = Walk(model, samples.batches, [[view.layer.data, own]], options.memory_bytes, options.threads)
            found = _look(view, own, alone.step(), samples, number, options)
        if found is None:
            raise _refusal(model, view.layer, calibration, options)
        xx, variance = found
        late = math.exp(options.depth * number / max(len(views) - 1, 1))
        yield from view.blocks(xx, variance / late)
    if progress is not None:
        progress(len(views), len(views), "")


def _look(
    view: View, site: str, batches: Iterator[Tensors], samples: Samples, number: int, options: ScoreOptions
) -> tuple[Array, float] | None:
    """Second moments of what a layer reads and the variance of what it feeds; None where these are no numbers."""
    spread = Spread()
    pairs = enumerate((t[view.layer.data], spread.see(t[site], view)) for t in batches)
    seen = ((at, view.layer, x, x if view.pointwise else y, ()) for at, (x, y) in pairs)
    limit = row_limit(view.weights.shape[1], most=options.positions, per_unknown=options.rows_per_unknown)
    with np.errstate(invalid="ignore", over="ignore"):
        found = samples.moments(seen, number, limit)
        variance = spread.total
    return (found[0].about(mean=True).xx, variance) if found is not None and math.isfinite(variance) else None


def _refusal(model: onnx.ModelProto, layer: Layer, calibration: Calibration, options: ScoreOptions) -> CalibrationError:
    """What to say where the activations at a layer are no numbers."""
    places = {name: culprits(model, name, calibration, threads=options.threads) for name in (layer.data, layer.output)}
    tensor = next((name for name, spoilt in places.items() if spoilt), layer.output)
    return refusal(calibration, places[tensor], f"{tensor!r} (layer {layer.name})")


@dataclass(slots=True)
class Spread:
    """Variance of a tensor over batches, summed over its channels, per position."""

    count: int = 0
    first: Any = 0.0
    second: float = 0.0

    def see(self, tensor: NDArray[Any], view: View) -> NDArray[Any]:
        """Takes in a batch and hands it on."""
        flat = view.layer.flat(tensor)
        rows = flat.reshape(-1, flat.shape[-1])
        self.count += len(rows)
        self.first = self.first + rows.sum(axis=0, dtype=np.float64)
        self.second += float(np.einsum("nc,nc->", rows, rows, dtype=np.float64))
        return tensor

    @property
    def total(self) -> float:
        """Variance summed over channels."""
        mean = self.first / max(self.count, 1)
        return max(self.second / max(self.count, 1) - float(mean @ mean), 0.0)


@dataclass(frozen=True, slots=True)
class View:
    """How one layer's inputs are looked at.

    Attributes:
        layer: what draws the rows; for `pointwise`, with a window of one position.
        weights: float64[groups, k, outputs], of what is drawn.
        taps: rows of `weights` per channel, taps first.
        pointwise: channels are compared position by position.
        uses: group → positions on the channel axis.
    """

    layer: Layer
    weights: Array
    taps: int
    pointwise: bool
    uses: Mapping[str, NDArray[np.int64]]

    def blocks(self, xx: Array, variance: float) -> Iterator[tuple[str, Block]]:
        """Per group that reads, and per group of a grouped layer: second moments and places."""
        groups, unknowns, _ = self.weights.shape
        width = unknowns // self.taps
        for name, positions in self.uses.items():
            for group in range(groups):
                inside = positions // width == group
                counts = inside.sum(axis=1)
                if counts[0] == 0 or counts.min() != counts.max():
                    continue
                local = positions[inside].reshape(len(positions), counts[0]) - group * width
                features = (local[:, :, np.newaxis] + width * np.arange(self.taps)).reshape(len(positions), -1)
                yield name, Block(xx[group], self.weights[group], features, variance)


def _views(uses: Mapping[str, Sequence[Use]], constants: Constants, options: ScoreOptions) -> list[View]:
    """One view per layer, in the order of the graph."""
    places: dict[int, dict[str, NDArray[np.int64]]] = {}
    layers: dict[int, Layer] = {}
    for name, group in uses.items():
        for use in group:
            layers[use.layer.index] = use.layer
            places.setdefault(use.layer.index, {})[name] = use.positions
    return [_view(layers[index], places[index], constants, options) for index in sorted(layers)]


def _view(layer: Layer, uses: Mapping[str, NDArray[np.int64]], constants: Constants, options: ScoreOptions) -> View:
    weights = layer.weights(constants)
    groups, unknowns, outputs = weights.shape
    taps = layer.window.taps if isinstance(layer, Windowed) else 1
    if unknowns <= options.unknowns:
        return View(layer, weights, taps, False, uses)
    if isinstance(layer, Windowed):
        one = (1,) * len(layer.window.kernel)
        window = Window(one, one, one, (0,) * len(one), lower=False, transposed=False, output_padding=one)
        split = weights.reshape(groups, taps, -1, outputs).transpose(0, 2, 1, 3).reshape(groups, unknowns // taps, -1)
        return View(replace(layer, window=window), split, 1, True, uses)
    return View(layer, weights, 1, False, uses)
