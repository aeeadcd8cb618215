"""What a person can ask of a compile, as one frozen record; every front end fills this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from halpc.units import Budget


@dataclass(frozen=True, slots=True)
class Options:
    """How to compile one model.

    Attributes:
        model: the ONNX file.
        budgets: what the result must stay within; at least one.
        out: folder to write.
        importance: importance files, summed; empty for a built-in score.
        score: built-in score: `auto`, `l1`, `l2`, `bn`, `sp-lamp`, or one that needs calibration inputs.
        calibration: inputs for recovery and data-aware scores: `.npz`, a folder of `.npy` or of images.
        mean, std: normalisation of images.
        evaluate: labelled inputs for top-1 before and after.
        profiler: `auto`, `onnxruntime`, `openvino`, `tensorrt`, `tensorrt_rtx`.
        provider: onnxruntime's execution provider: `cpu`, `cuda` or `tensorrt`.
        threads: intra-op threads that the model will be deployed with.
        precision: `fp32`, `tf32`, `fp16`, `bf16`, `int8`, `fp8`.
        shapes: static shapes of inputs by name.
        batch: size of a dynamic first axis.
        values: what inputs always are, by name.
        profiles: min, opt and max shapes of dynamic inputs, for engines.
        freeze: glob patterns of layers whose width stays.
        align: axes of weights are multiples of this (a group's full size stays admissible); None lets halpc choose.
        min_width: least channels of a group.
        vanish: whether residual branches may disappear altogether.
        solver: `joint`, `halp` or `sp-lamp`.
        steps: pruning steps of `halp`.
        table: a latency table taken earlier.
        accept_foreign_table: use it even if it is of another device.
        recover: `refit` weights and biases on the calibration inputs, correct only the `bias`, or `off`.
        renormalise: let axes under a mean or LayerNorm shrink; the result is approximate.
        percentile: which percentile of the measured latency must meet the budget.
        rounds: most rounds of measuring and correcting.
        resume: a plan to continue from.
        dry_run: stop before anything is written.
    """

    model: Path
    budgets: tuple[Budget, ...]
    out: Path = Path("halpc-out")
    importance: tuple[Path, ...] = ()
    score: str = "auto"
    calibration: Path | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    evaluate: Path | None = None
    profiler: str = "auto"
    provider: str = "cpu"
    threads: int = 1
    precision: str = "fp32"
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    batch: int | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    profiles: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    freeze: tuple[str, ...] = ()
    align: int | None = None
    min_width: int = 1
    vanish: bool = True
    solver: str = "joint"
    steps: int = 1
    table: Path | None = None
    accept_foreign_table: bool = False
    recover: Literal["refit", "bias", "off"] = "refit"
    renormalise: bool = False
    percentile: float = 50.0
    rounds: int = 6
    resume: Path | None = None
    dry_run: bool = False

    def budget(self, resource: str) -> Budget | None:
        """The budget on one resource, or None."""
        return next((b for b in self.budgets if b.resource == resource), None)
