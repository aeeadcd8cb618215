"""Does exchanging channels after greedy elimination pay?

    python -m benchmarks.swaps models/resnet18.onnx --calibration models/calibration.npz --evaluate models/test.npz

Backward elimination is greedy: a channel that went early may be worth more, once others are gone, than one that
stayed. Here, at given widths, the best channels outside are taken in, the cheapest inside go, and the exchange is kept
where the loss falls (OSSCAR's local search, arXiv 2403.12983, on `unrecoverable`'s own Gram matrices). Prints one JSON
line per width with the loss and the top-1 after recovery of both choices.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from benchmarks.network import Network, add_arguments
from halpc.ir.dims import Mask
from passes.data_score import Block, DataScore, ScoreOptions, _observe, _unrecoverable
from passes.evaluate import evaluate
from passes.proto import proto_of
from passes.recover import recover
from passes.recovery.uses import uses_of
from passes.slim import plan_for, slim

Array = NDArray[np.float64]
SHARES = (0.5, 0.25)
TAKEN_IN = 1 / 8  # of a group's kept channels, at first; halved whenever an exchange does not help
LEAST_GAIN = 1e-4  # of the loss, below which an exchange does not count as help


@dataclass(slots=True)
class Fitted:
    """One reader's refit on some of its inputs, from second moments.

    Attributes:
        moments: float64[k, k], regularised.
        products: float64[k, outputs], of the inputs with what the whole layer gives.
        features: int64[channels, r], the inputs that go with each channel.
        scale: what one unit of squared error counts.
        whole: squared norm of what the layer gives.
        inverse, weights, inputs: of the refit at hand: inverse moments, its weights, and the inputs it has.
    """

    moments: Array
    products: Array
    features: NDArray[np.int64]
    scale: float
    whole: float
    inverse: Array
    weights: Array
    inputs: NDArray[np.int64]

    @classmethod
    def build(cls, block: Block, damping: float) -> Fitted:
        """The whole layer."""
        moments, size = block.xx.copy(), len(block.xx)
        moments.flat[:: size + 1] += max(damping * float(np.trace(moments)) / size, 1e-30)
        products = moments @ block.weights
        whole = float(np.einsum("km,km->", block.weights, products))
        none = np.zeros((0, 0))
        return cls(
            moments, products, block.features, 1 / max(block.variance, 1e-30), whole, none, none, np.arange(size)
        )

    def fit(self, kept: NDArray[np.bool_]) -> float:
        """Refits on the kept channels, and on the inputs of no channel; gives the loss."""
        inside = np.ones(len(self.moments), dtype=np.bool_)
        inside[self.features[~kept].reshape(-1)] = False
        self.inputs = np.flatnonzero(inside)
        factor = linalg.cho_factor(self.moments[np.ix_(self.inputs, self.inputs)], lower=True, check_finite=False)
        self.inverse = linalg.cho_solve(factor, np.eye(len(self.inputs)), check_finite=False)
        self.weights = self.inverse @ self.products[self.inputs]
        explained = float(np.einsum("km,km->", self.weights, self.products[self.inputs]))
        return max(self.whole - explained, 0.0) * self.scale

    def costs(self, channels: NDArray[np.int64]) -> Array:
        """What each kept channel's removal alone would cost."""
        places = np.searchsorted(self.inputs, self.features[channels])
        blocks = self.inverse[places[:, :, np.newaxis], places[:, np.newaxis]]
        return _quadratic(blocks, self.weights[places]) * self.scale

    def gains(self, channels: NDArray[np.int64]) -> Array:
        """What each missing channel's return alone would win."""
        outside = self.features[channels].reshape(-1)
        across = self.moments[np.ix_(self.inputs, outside)]
        predicted = self.inverse @ across
        rest = self.products[outside] - across.T @ self.weights
        shape = (len(channels), self.features.shape[1], -1)
        own = self.moments[self.features[channels][:, :, np.newaxis], self.features[channels][:, np.newaxis]]
        explained = np.einsum(
            "scr,sct->crt", across.reshape(len(across), *shape[:2]), predicted.reshape(len(across), *shape[:2])
        )
        return _quadratic(own - explained, rest.reshape(shape)) * self.scale


def _quadratic(blocks: Array, values: Array) -> Array:
    """tr(V' B⁻¹ V) per channel."""
    return np.asarray(np.maximum(np.einsum("crm,crm->c", values, np.linalg.solve(blocks, values)), 0.0))


def exchange(readers: Sequence[Fitted], mask: Mask) -> tuple[Mask, float, float]:
    """A mask with as many channels, and the losses before and after."""
    kept = mask.copy()
    first = loss = sum(reader.fit(kept) for reader in readers)
    count = max(1, int(TAKEN_IN * kept.sum()))
    while count and 0 < kept.sum() < len(kept):
        outside = np.flatnonzero(~kept)
        gains = np.sum([reader.gains(outside) for reader in readers], axis=0)
        tried = kept.copy()
        tried[outside[np.argsort(-gains)[:count]]] = True
        for part in np.array_split(np.arange(tried.sum() - kept.sum()), min(4, count)):
            sum(reader.fit(tried) for reader in readers)
            inside = np.flatnonzero(tried)
            costs = np.sum([reader.costs(inside) for reader in readers], axis=0)
            tried[inside[np.argsort(costs)[: len(part)]]] = False
        now = sum(reader.fit(tried) for reader in readers)
        if now < loss * (1 - LEAST_GAIN):
            kept, loss = tried, now
        else:
            sum(reader.fit(kept) for reader in readers)
            count //= 2
    return kept, first, loss


@dataclass(frozen=True, slots=True)
class Bench:
    """A network, scored."""

    network: Network
    blocks: Mapping[str, Sequence[Block]]
    scores: Mapping[str, DataScore]

    def greedy(self, share: float) -> dict[str, Mask]:
        """The best channels of every group by elimination."""
        masks = {}
        for name, group in self.network.coupling.free().items():
            mask = np.ones(group.size, dtype=np.bool_)
            if name in self.scores:
                mask[:] = False
                mask[np.argsort(-self.scores[name].scores)[: max(1, round(share * group.size))]] = True
            masks[name] = mask
        return masks

    def judge(self, masks: Mapping[str, Mask]) -> tuple[float, float]:
        """Top-1 and error of the outputs after recovery."""
        plan = plan_for(self.network.model, self.network.coupling, masks)
        small = proto_of(slim(self.network.model, self.network.coupling, plan), self.network.model.header)
        result = recover(self.network.proto, small, plan.keep, self.network.calibration)
        return evaluate(result.model, self.network.labelled).top1, result.error_after


def prepared(args: argparse.Namespace) -> Bench:
    """Everything that does not depend on the widths."""
    network = Network.of(args)
    sizes = {name: group.size for name, group in network.coupling.free().items()}
    uses = uses_of(network.proto, network.coupling.axes, sizes)
    blocks: dict[str, list[Block]] = {}
    for name, block in _observe(network.proto, uses, network.calibration, ScoreOptions(), None):
        blocks.setdefault(name, []).append(block)
    scores = {name: _unrecoverable(found, ScoreOptions().damping) for name, found in blocks.items()}
    return Bench(network, blocks, scores)


def main() -> None:
    """Both choices at every width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    args = parser.parse_args()
    bench = prepared(args)
    for share in args.shares:
        masks, started = bench.greedy(share), time.process_time()
        swapped, before, after = dict(masks), 0.0, 0.0
        for name, blocks in bench.blocks.items():
            readers = [Fitted.build(block, ScoreOptions().damping) for block in blocks]
            swapped[name], first, last = exchange(readers, masks[name])
            before, after = before + first, after + last
        seconds = time.process_time() - started
        moved = sum(int((masks[name] & ~swapped[name]).sum()) for name in masks)
        kept = sum(int(mask.sum()) for mask in masks.values())
        row = {"model": args.model.name, "share": share, "exchanged": moved, "of": kept,
               "loss": [before, after], "exchange_cpu_seconds": round(seconds, 1)}  # fmt: skip
        (top1, error), (top1_swapped, error_swapped) = bench.judge(masks), bench.judge(swapped)
        print(json.dumps(row | {"top1": [top1, top1_swapped], "output_error": [error, error_swapped]}), flush=True)


if __name__ == "__main__":
    main()
