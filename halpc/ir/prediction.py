"""How well a cost model predicts: predicted against measured, plan by plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted and measured latencies of plans that the model was not fitted to.

    Attributes:
        predicted_ms, measured_ms: one entry per plan.
        now_ms: predicted with what has changed since the machine was profiled taken out, as told by networks measured
            both times; empty where the plans were measured in the profiling itself.
    """

    predicted_ms: tuple[float, ...]
    measured_ms: tuple[float, ...]
    now_ms: tuple[float, ...] = ()

    @property
    def errors(self) -> tuple[float, ...]:
        """|predicted / measured − 1| per plan, as the model stands."""
        return tuple(abs(p / m - 1) for p, m in zip(self.predicted_ms, self.measured_ms, strict=True))

    @property
    def now(self) -> Prediction:
        """The same with what has changed since the machine was profiled taken out."""
        return Prediction(self.now_ms or self.predicted_ms, self.measured_ms)

    @property
    def speed(self) -> float:
        """What the machine takes now over what it took when it was profiled, at the median plan."""
        return float(np.median(np.divide(self.now.predicted_ms, self.predicted_ms)))

    @property
    def median_error(self) -> float:
        """Median of the errors."""
        return float(np.median(self.errors))

    @property
    def p90_error(self) -> float:
        """The error that nine plans in ten do not exceed."""
        return float(np.percentile(self.errors, 90))

    @property
    def r2(self) -> float:
        """Share of the measured variance that the prediction explains (1 where nothing varies)."""
        measured, predicted = np.array(self.measured_ms), np.array(self.predicted_ms)
        varies = float(((measured - measured.mean()) ** 2).sum())
        return 1 - float(((measured - predicted) ** 2).sum()) / varies if varies else 1.0

    def as_json(self) -> dict[str, object]:
        """Plain data for reports."""
        errors = {name: getattr(self.now, name) for name in ("median_error", "p90_error", "r2")}
        return {
            "plans": len(self.predicted_ms),
            "median_error": self.median_error,
            "p90_error": self.p90_error,
            "r2": self.r2,
            "speed": self.speed,
            "predicted_ms": list(self.predicted_ms),
            "measured_ms": list(self.measured_ms),
            **({"now_ms": list(self.now_ms), "now": errors} if self.now_ms else {}),
        }


def judge(predicted_ms: Sequence[float], measured_ms: Sequence[float], now_ms: Sequence[float] = ()) -> Prediction:
    """Put predictions and measurements side by side."""
    return Prediction(tuple(map(float, predicted_ms)), tuple(map(float, measured_ms)), tuple(map(float, now_ms)))
