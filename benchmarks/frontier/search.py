"""Bring any way of pruning to a measured speedup: one search for all of them, so that none is favoured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Made = TypeVar("Made")

SHORT, LONG = 0.985, 1.04  # of the target: what a speedup may be to count as the target
ROUNDS = 6


@dataclass(slots=True)
class Ladder(Generic[Made]):
    """What one way of pruning gave so far, by its strength: 0 prunes nothing, 1 everything it can.

    Attributes:
        make: a pruned model of a strength; None where it cannot prune that far.
        measure: its speedup over the baseline, both measured interleaved.
        rungs: strength → what was made and its speedup.
    """

    make: Callable[[float], Made | None]
    measure: Callable[[Made], float]
    rungs: dict[float, tuple[Made | None, float]] = field(default_factory=dict)

    def climb(self, target: float) -> tuple[Made, float, float] | None:
        """Model, strength and speedup nearest to `target` from above; None where no strength reaches it."""
        for _ in range(ROUNDS):
            if self._best(target) is not None:
                break
            strength = self._next(target)
            if strength in self.rungs:
                break
            made = self.make(strength)
            self.rungs[strength] = made, math.inf if made is None else self.measure(made)
        near = [(s, made, k) for k, (made, s) in self.rungs.items() if made is not None and s >= SHORT * target]
        if not near:
            return None
        speedup, made, strength = min(near, key=lambda rung: rung[0])
        return made, strength, speedup

    def _best(self, target: float) -> float | None:
        return next((k for k, (_, s) in self.rungs.items() if SHORT * target <= s <= LONG * target), None)

    def _next(self, target: float) -> float:
        """Between the nearest strengths on both sides, as if the logarithm of the speedup grew evenly."""
        low = max((k for k, (_, s) in self.rungs.items() if s < target), default=0.0)
        high = min((k for k, (_, s) in self.rungs.items() if s >= target), default=1.0)
        below = self.rungs[low][1] if low in self.rungs else 1.0
        above = self.rungs[high][1] if high in self.rungs else math.inf
        if not math.isfinite(above):
            guess = 1 - (1 - low) * below / target if high == 1.0 else (low + high) / 2
            return round(min(max(guess, low), high), 4)
        share = math.log(1.01 * target / below) / math.log(above / below)
        return round(low + min(max(share, 0.1), 0.9) * (high - low), 4)
