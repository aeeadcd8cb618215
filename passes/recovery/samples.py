"""Rows for least squares: which samples are fitted on, which are held back, which output positions are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from passes.calibration import Calibration
from passes.inputs import Arrays
from passes.recovery.finite import usable
from passes.recovery.gram import Moments
from passes.recovery.layers import Layer

LEAST_ROWS = 10_000
CHUNK_ROWS = 1024
Sink: TypeAlias = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Samples:
    """Batches to run, those to fit on first.

    Attributes:
        batches: per batch, an array per input of the model.
        held_from: index of the first held-back batch.
        count: samples in all.
        held: the held-back samples.
        seed: of the sampled positions.
    """

    batches: tuple[Arrays, ...]
    held_from: int
    count: int
    held: Calibration
    seed: int = 0

    @classmethod
    def split(cls, calibration: Calibration, *, held_share: float, batch: int, seed: int = 0) -> Samples:
        """Holds back every 1/share-th sample; no batch holds both kinds."""
        fit, held = calibration.split(held_share)
        first = tuple(fit.batches(batch))
        return cls((*first, *held.batches(batch)), len(first), len(fit) + len(held), held, seed)

    def moments(
        self,
        seen: Iterable[tuple[int, Layer, NDArray[Any], NDArray[Any], Sequence[NDArray[Any]]]],
        number: int,
        limit: int,
        sink: Sink | None = None,
    ) -> tuple[Moments, Moments] | None:
        """Second moments of a layer's inputs and targets, over the samples to fit on and over those held back.

        None where any of them is no number; everything is seen all the same.

        Args:
            seen: the number of the batch, a layer, its input, what its output should be, and more arrays like the
                output; layers of one weight count together.
            number: the place in the order, which seeds the positions.
            limit: most rows per layer.
            sink: gets the rows too: 0 or 1 for held back, inputs, targets and the additional arrays.
        """
        streams: dict[int, np.random.Generator] = {}
        gathered: Gathered | None = None
        spoilt = False
        for index, layer, data, target, more in seen:
            in_all = len(target) * self.count / len(next(iter(self.batches[index].values())))
            random = streams.setdefault(layer.index, np.random.default_rng((self.seed, number, len(streams))))
            picks = draw(len(target), layer.flat(target).shape[1], max(1, round(limit / in_all)), random)
            rows, wanted = layer.rows(data, layer.sizes(target), picks), layer.targets(target, picks)
            spoilt = spoilt or not (usable(rows) and usable(wanted))
            if spoilt:
                continue
            if gathered is None:
                shifts = rows.mean(axis=1, dtype=np.float64), wanted.mean(axis=1, dtype=np.float64)
                gathered = Gathered((Moments.empty(*shifts), Moments.empty(*shifts)), sink)
            gathered.add(int(index >= self.held_from), rows, wanted, *(layer.targets(array, picks) for array in more))
        if spoilt:
            return None
        assert gathered is not None
        gathered.flush()
        return gathered.both


@dataclass(slots=True)
class Gathered:
    """Rows of several batches together: products of few rows would cost more in adding up than in multiplying.

    Attributes:
        both: moments of the rows to fit on and of those held back.
        sink: gets the same rows.
    """

    both: tuple[Moments, Moments]
    sink: Sink | None
    _part: int = 0
    _waiting: list[tuple[NDArray[np.float32], ...]] = field(default_factory=list)

    def add(self, part: int, *arrays: NDArray[np.float32]) -> None:
        """Takes in one batch: inputs, targets and more, each float32[groups, n, ·]."""
        if part != self._part:
            self.flush()
        self._part = part
        self._waiting.append(arrays)
        if sum(rows.shape[1] for rows, *_ in self._waiting) >= max(CHUNK_ROWS, arrays[0].shape[2]):
            self.flush()

    def flush(self) -> None:
        """Works off what waits."""
        if not self._waiting:
            return
        rows, targets, *more = (np.concatenate(each, axis=1) for each in zip(*self._waiting, strict=True))
        self._waiting.clear()
        self.both[self._part].add(rows, targets)
        if self.sink is not None:
            self.sink(self._part, rows, targets, *more)


def draw(samples: int, positions: int, most: int, random: np.random.Generator) -> NDArray[np.int64]:
    """int64[samples, chosen]: one of every `positions / most` consecutive positions, drawn anew for each sample.

    Samples consume the random stream one after another, so that the batch size does not matter.
    """
    if positions <= most:
        return np.broadcast_to(np.arange(positions), (samples, positions))
    drawn = (np.arange(most) + random.random((samples, most))) * (positions / most)
    return np.minimum(drawn.astype(np.int64), positions - 1)


def row_limit(unknowns: int, *, most: int, per_unknown: int) -> int:
    """How many rows to look at: enough to determine the unknowns, never absurdly many."""
    return min(most, max(LEAST_ROWS, per_unknown * unknowns))
