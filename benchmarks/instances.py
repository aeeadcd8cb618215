"""Instances of the selection problem in the shape of real networks, at any size.

Graphs of ResNet-50, DenseNet-121, MobileNet-V2 and a ViT, staircase costs (tiles of 8 to 64 channels, a launch
overhead, a plateau per tile) and log-normal channel importance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from halpc.ir.dims import Dim, Leaf, Product, Sum
from halpc.ir.problem import Charge, Choice, Problem, Resource


@dataclass
class Draft:
    """A problem being drawn: groups by size, then kernels, then widths for a wanted total."""

    sizes: dict[str, int] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    charges: list[Charge] = field(default_factory=list)
    seed: int = 0

    def group(self, name: str, size: int) -> Leaf:
        """A group of `size` channels."""
        self.sizes[name] = size
        return Leaf(name, size)

    def kernel(self, inner: Dim, outer: Dim, macs: float, tile: int) -> None:
        """A convolution of `macs` multiply-adds per channel pair."""
        self.charges.append(Charge(f"k{len(self.charges)}", (inner, outer), staircase(macs, tile)))
        if isinstance(outer, Leaf):
            self.steps[outer.name] = max(tile, self.steps.get(outer.name, 8))

    def pointwise(self, axis: Dim, work: float) -> None:
        """A depthwise, normalising or activating kernel."""
        name = f"k{len(self.charges)}"
        self.charges.append(Charge(name, (axis,), lambda c: 1e-3 + 1e-9 * work * np.ceil(c / 8) * 8))

    def problem(self, widths: int, share: float) -> Problem:
        """With about `widths` candidate widths, and a budget `share` of the way from narrowest to unpruned."""
        rng = np.random.default_rng(self.seed)
        per_channel = widths / sum(self.sizes.values())
        choices = tuple(
            _choice(rng, name, size, per_channel, self.steps.get(name, 8)) for name, size in self.sizes.items()
        )
        charges = tuple(self.charges)
        full = {c.name: int(c.widths[-1]) for c in choices}
        top = Resource("latency", "ms", np.inf, 0.5, charges).spent(full)
        least = Resource("latency", "ms", np.inf, 0.5, charges).spent({c.name: int(c.widths[0]) for c in choices})
        return Problem(choices, (Resource("latency", "ms", least + share * (top - least), 0.5, charges),))


def staircase(macs: float, tile: int) -> Callable[..., Any]:
    """Launch overhead, then whole tiles in both directions; a tail tile is slightly dearer."""

    def cost(inner: Any, outer: Any) -> Any:
        tiles = np.ceil(inner / 8) * 8 * np.ceil(outer / tile) * tile
        tail = 1.0 + 0.05 * (outer % tile != 0)
        return 4e-3 + 1e-9 * macs * tiles * tail

    return cost


def _choice(rng: np.random.Generator, name: str, size: int, per_channel: float, step: int) -> Choice:
    count = int(np.clip(round(size * per_channel), 1, size))
    widths = np.unique(np.round(np.linspace(size / count, size, count)).astype(np.int64))
    scores = np.sort(rng.lognormal(0.0, 1.0, size))[::-1].copy()
    return Choice(name, widths, np.concatenate([[0.0], np.cumsum(scores)])[widths], step, scores)


def resnet50(factor: int = 1) -> Draft:
    """37 groups: 16 bottlenecks in 4 stages that share their residual widths."""
    draft = Draft()
    before: Dim = draft.group("stem", 64 * factor)
    for stage, (blocks, inner) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        area = 56.0**2 / 4**stage
        residual = draft.group(f"residual{stage}", 4 * inner * factor)
        for block in range(blocks):
            first = draft.group(f"{stage}.{block}.1", inner * factor)
            second = draft.group(f"{stage}.{block}.2", inner * factor)
            draft.kernel(before, first, area, 32)
            draft.kernel(first, second, 9 * area, 32)
            draft.kernel(second, residual, area, 64)
            if block == 0:
                draft.kernel(before, residual, area, 64)
            before = residual
    draft.pointwise(before, 1000.0)
    return draft


def mobilenetv2(factor: int = 1) -> Draft:
    """Inverted residuals: expansions are depthwise, narrow residual widths are shared in a stage."""
    draft = Draft()
    before: Dim = draft.group("stem", 32 * factor)
    settings = [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]
    width, area = 32, 112.0**2
    for stage, (expand, out, blocks) in enumerate(settings):
        area /= 4 if stage in (1, 2, 3, 5) else 1
        residual = draft.group(f"residual{stage}", out * factor)
        for block in range(blocks):
            inner: Dim = before
            if expand > 1:
                inner = draft.group(f"{stage}.{block}", expand * width * factor)
                draft.kernel(before, inner, area, 16)
            draft.pointwise(inner, 9 * area * 8)
            draft.kernel(inner, residual, area, 16)
            before, width = residual, out
    last = draft.group("last", 1280 * factor)
    draft.kernel(before, last, area, 32)
    draft.pointwise(last, 1000.0)
    return draft


def densenet121(factor: int = 1) -> Draft:
    """Every layer reads the concat of all before it in its block."""
    draft = Draft()
    features: list[Dim] = [draft.group("stem", 64 * factor)]
    area = 56.0**2
    for stage, layers in enumerate((6, 12, 24, 16)):
        for layer in range(layers):
            read = Sum(tuple(features)) if len(features) > 1 else features[0]
            inner = draft.group(f"{stage}.{layer}.inner", 128 * factor)
            grown = draft.group(f"{stage}.{layer}.grown", 32 * factor)
            draft.pointwise(read, area)
            draft.kernel(read, inner, area, 32)
            draft.kernel(inner, grown, 9 * area, 32)
            features.append(grown)
        if stage < 3:
            moved = draft.group(f"transition{stage}", sum(f.size for f in features) // 2)
            draft.kernel(Sum(tuple(features)), moved, area, 32)
            features, area = [moved], area / 4
    return draft


def vit(factor: int = 1) -> Draft:
    """ViT-B: 12 layers of heads × dims and a hidden width; the embedding is one group for all."""
    draft = Draft()
    tokens = 197.0
    model = draft.group("embedding", 768 * factor)
    for layer in range(12):
        heads, dims = draft.group(f"{layer}.heads", 12), draft.group(f"{layer}.dims", 64 * factor)
        inner = Product((heads, dims))
        for _ in range(3):
            draft.kernel(model, inner, tokens, 64)
        draft.charges.append(
            Charge(
                f"attention{layer}",
                (heads, dims),
                lambda h, d: 4e-3 + 2e-9 * tokens**2 * h * np.ceil(d / 16) * 16,
            )
        )
        draft.kernel(inner, model, tokens, 64)
        hidden = draft.group(f"{layer}.hidden", 3072 * factor)
        draft.kernel(model, hidden, tokens, 64)
        draft.kernel(hidden, model, tokens, 64)
    return draft


NETWORKS: dict[str, Callable[[int], Draft]] = {
    "resnet50": resnet50,
    "mobilenetv2": mobilenetv2,
    "densenet121": densenet121,
    "vit": vit,
}


def instance(network: str, widths: int, share: float) -> Problem:
    """A network with about `widths` candidate widths; widened where it has fewer channels than that."""
    channels = sum(NETWORKS[network](1).sizes.values())
    return NETWORKS[network](max(1, -(-widths // channels))).problem(widths, share)
