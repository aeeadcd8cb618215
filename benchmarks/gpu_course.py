"""The GPU benchmark's course: what is measured at which sizes, and the records of it."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
from pathlib import Path
from typing import Any

import onnx

from benchmarks import gpu_models
from passes.cast import cast_for_timing
from profilers import profiler_for

SPEEDUPS = (1.6, 2.55)  # HALP's two ResNet-50 points
RUNTIMES = ("tensorrt", "onnxruntime", "tensorrt_rtx")
BY_CASE = ("baselines", "compiled", "staircases")  # sections with a row per runtime, batch, precision, …
CASE = ("runtime", "batch", "precision", "speedup_asked")  # what tells rows of a section apart
Facts = dict[str, Any]
Kernel = tuple[str, int, int, int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Course:
    """What is run, and how large.

    Attributes:
        provider: onnxruntime's execution provider.
        runtimes, batches, precisions: every combination is measured.
        side, width: image side and ResNet-50's base width.
        kernels: (name, in-width, largest out-width, kernel, side) of every staircase.
        step: out-widths are multiples of it.
        seconds: time for an end-to-end comparison.
        out: folder of the results.
        speedups: what is compiled to.
    """

    provider: str
    runtimes: tuple[str, ...]
    batches: tuple[int, ...]
    precisions: tuple[str, ...]
    side: int
    width: int
    kernels: tuple[Kernel, ...]
    step: int
    seconds: float
    out: Path
    speedups: tuple[float, ...] = SPEEDUPS

    def profiler(self, precision: str, runtime: str = "onnxruntime") -> Any:
        """A runtime's stop-watch at one precision."""
        return profiler_for(runtime, provider=self.provider, precision=precision).profiler

    def resnet(self, batch: int, precision: str) -> onnx.ModelProto:
        """The network at one batch size and precision."""
        return cast_for_timing(gpu_models.resnet50(batch, side=self.side, width=self.width), precision)


def course(arguments: argparse.Namespace) -> Course:
    """Sizes for a GPU, or small ones for the CPU."""
    if arguments.cpu:
        kernels: tuple[Kernel, ...] = (
            ("3×3, 16→C, 14×14", 16, 32, 3, 14),
            ("1×1, 32→C, 14×14", 32, 32, 1, 14),
        )
        return Course("cpu", ("onnxruntime",), (1, 2), ("fp32", "fp16"), 64, 16, kernels, 8, 0.5, arguments.out)
    kernels = (
        ("3×3, 64→C, 56×56", 64, 128, 3, 56),
        ("1×1, 256→C, 56×56", 256, 128, 1, 56),
        ("3×3, 256→C, 14×14", 256, 256, 3, 14),
        ("1×1, 1024→C, 14×14", 1024, 256, 1, 14),
    )
    there = any(map(importlib.util.find_spec, ("tensorrt", "tensorrt_bindings")))  # wheels alone are the second
    runtimes = ("tensorrt", "onnxruntime") if there else ("onnxruntime",)
    return Course("cuda", runtimes, (1, 256), ("fp32", "fp16"), 224, 64, kernels, 8, 3.0, arguments.out)


def cases_of(plan: Course) -> list[Facts]:
    """Every batch and precision in every runtime."""
    cases = itertools.product(plan.batches, plan.precisions, plan.runtimes)
    return [{"runtime": runtime, "batch": batch, "precision": precision} for batch, precision, runtime in cases]


def failed(name: str, plan: Course, told: Facts) -> Facts:
    """The results of a section that has none: a row with the error per case."""
    if name not in BY_CASE:
        return dict(told)
    cases = cases_of(plan)
    if name == "compiled":
        cases = [{**case, "speedup_asked": speedup} for case in cases for speedup in plan.speedups]
    return {"rows": [{**case, **told} for case in cases]}


def merged(old: Facts, new: Facts) -> Facts:
    """`new`, with those rows of `old` that it does not measure again."""
    if "rows" not in new:
        return new
    cases = {_case(row) for row in new["rows"]}
    kept = [row for row in old.get("rows", []) if _case(row) not in cases]
    figures = list(dict.fromkeys([*old.get("figures", []), *new.get("figures", [])]))
    return {"rows": [*kept, *new["rows"]], **({"figures": figures} if figures else {})}


def _case(row: Facts) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in CASE)
