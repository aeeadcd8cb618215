"""The frontier: what came of each budget of a sweep, and what decides whether a later sweep may go on from it.

{"format": "halpc.sweep", "version": 1, "model": …, "asked": {…}, "points": [{"budget", "status", …}]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from halpc.errors import InputError
from halpc.ir.report import Figures, Report

FORMAT, VERSION = "halpc.sweep", 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a point says of a report; see `Report` for each."""

    baseline: Figures
    result: Figures
    predicted_latency_ms: float | None
    importance_kept: float
    gap: float | None
    prices: Mapping[str, float]

    @classmethod
    def of(cls, report: Report) -> Outcome:
        """The report's own."""
        return cls(
            report.baseline, report.result, report.predicted_latency_ms, report.importance_kept, report.gap,
            dict(report.prices),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Point:
    """One budget of a sweep and what came of it.

    Attributes:
        budget: as it was written.
        status: of the report; `infeasible`; or `slower`, where a model was found and not written.
        outcome: None where it is infeasible.
        reason: why no model was written.
    """

    budget: str
    status: str
    outcome: Outcome | None
    reason: str = ""

    @property
    def written(self) -> bool:
        """Whether there is a model of it."""
        return self.status not in ("infeasible", "slower")

    def as_json(self) -> dict[str, Any]:
        """Plain data, the outcome's beside the point's own."""
        own = {"budget": self.budget, "status": self.status, "reason": self.reason}
        return own if self.outcome is None else {**own, **asdict(self.outcome)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Point:
        """The inverse of `as_json`.

        Raises:
            TypeError: an entry is missing or unknown.
            KeyError: likewise.
        """
        rest = dict(data)
        budget, status, reason = (str(rest.pop(name)) for name in ("budget", "status", "reason"))
        if not rest:
            return cls(budget, status, None, reason)
        figures = {side: Figures(**rest[side]) for side in ("baseline", "result")}
        return cls(budget, status, Outcome(**{**rest, **figures}), reason)


@dataclass(frozen=True, slots=True)
class Frontier:
    """A sweep as it stands.

    Attributes:
        model: path of the model.
        asked: what decides a result, but for the budget: the model's and the inputs' contents, options, device and
            versions; plain data. Points of sweeps that were asked the same belong together.
        points: budgets that are finished, in the order asked for.
    """

    model: str
    asked: Mapping[str, Any]
    points: Sequence[Point]

    def as_json(self) -> dict[str, Any]:
        """The file's content."""
        return {"format": FORMAT, "version": VERSION, "model": self.model, "asked": dict(self.asked),
                "points": [point.as_json() for point in self.points]}  # fmt: skip

    def differences(self, asked: Mapping[str, Any]) -> list[str]:
        """What `asked` has otherwise, by name."""
        names = asked.keys() | self.asked.keys()
        return sorted(n for n in names if not (n in asked and n in self.asked and asked[n] == self.asked[n]))


def read_frontier(path: Path) -> Frontier:
    """A sweep from its file.

    Raises:
        InputError: damaged, or of another format or version.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT or data["version"] != VERSION:
            raise InputError(f"{path}: expected format {FORMAT} version {VERSION}")
        return Frontier(data["model"], dict(data["asked"]), tuple(Point.from_json(p) for p in data["points"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not a readable {FORMAT} file ({type(error).__name__}: {error})") from error
