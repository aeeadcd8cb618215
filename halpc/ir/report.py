"""The report: what was asked, what came out, what was measured where, and why each group is as wide as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT, VERSION = "halpc.report", 1


@dataclass(frozen=True, slots=True)
class Figures:
    """One model's figures; None where nothing was measured.

    Attributes:
        latency_ms: measured end to end at the percentile asked for.
        latency_spread_ms: half the interquartile range of those measurements.
        macs: multiply-accumulates at the analysed shapes.
        params: entries of weights.
        peak_memory: bytes of weights and of the most activations that live at once, at the analysed shapes.
        size_bytes: of the ONNX file.
        accuracy: top-1 on the inputs given with --evaluate.
    """

    macs: float
    params: float
    peak_memory: float
    latency_ms: float | None = None
    latency_spread_ms: float | None = None
    size_bytes: int | None = None
    accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class GroupLine:
    """One group's widths and why it stopped there."""

    name: str
    size: int
    width: int
    step: int
    layers: tuple[str, ...]
    next_gain: float | None = None
    next_cost: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that `report.json` and the terminal summary say.

    Attributes:
        status: `met`, `over budget` or `dry run`.
        budget: resource → limit, unit and what was written.
        baseline, result: figures before and after.
        predicted_latency_ms: the model's prediction for the result before it was measured.
        importance_kept: share of the importance that the budget bought.
        gap: relative certificate gap of the last selection.
        bound_means: what the certificate is a bound of.
        verification: the oracle's judgement.
        recovery: what recovery did, or None.
        groups: every free group.
        pinned: group name → why it stays whole.
        rounds: predicted and measured latency of every round of the closed loop.
        stage_seconds: wall time per stage.
        profiler: backend and regime, and samples measured against reused.
        device: what was measured on.
        versions: of halpc and the libraries that matter.
        notes: sentences that a reader must not miss.
    """

    status: str
    model: str
    budget: Mapping[str, Any]
    baseline: Figures
    result: Figures
    predicted_latency_ms: float | None
    importance_kept: float
    gap: float | None
    bound_means: str
    verification: Mapping[str, Any]
    recovery: Mapping[str, Any] | None
    groups: tuple[GroupLine, ...]
    pinned: Mapping[str, str]
    rounds: tuple[Mapping[str, float], ...]
    stage_seconds: Mapping[str, float]
    profiler: Mapping[str, Any]
    device: Mapping[str, Any]
    versions: Mapping[str, str]
    solver: str
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The file's content."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}
