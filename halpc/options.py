"""What a person can ask of a compile, as one frozen record; every front end fills this.

The names that an option takes are listed here and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from halpc.errors import InputError, UsageError
from halpc.units import Budget, check_percentile

SCORES = ("auto", "l1", "l2", "bn", "sp-lamp", "energy", "unrecoverable")
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
PROFILERS = ("auto", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx")
PROVIDERS = ("cpu", "cuda", "tensorrt")
SOLVERS = ("joint", "halp", "sp-lamp")
RECOVERIES = ("refit", "bias", "off")
MOST = 10_000  # steps, or points of a sweep
LARGEST = 2**31 - 1  # of any other number

_NAMES = {
    "score": SCORES, "precision": PRECISIONS, "profiler": PROFILERS, "provider": PROVIDERS, "solver": SOLVERS,
    "recover": RECOVERIES,
}  # fmt: skip
_NUMBERS = {"threads": LARGEST, "batch": LARGEST, "align": LARGEST, "min_width": LARGEST, "steps": MOST, "rounds": MOST}
_PATHS = ("model", "out", "calibration", "evaluate", "table", "resume")
_MANY = {"budgets": Budget, "importance": (str, os.PathLike), "freeze": str}


def path_of(text: str | os.PathLike[str]) -> Path:
    """A path that there could be.

    Raises:
        InputError: no disk holds a name this long, or its links go in circles.
    """
    try:
        os.stat(text)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise InputError(f"{os.fspath(text)}: {error.strerror}; give another name") from error
    return Path(text)


@dataclass(frozen=True, slots=True)
class Options:
    """How to compile one model; paths may be text.

    Raises:
        UsageError: an option is none of what it can be; the message says what.
        InputError: a path that cannot be.

    Attributes:
        model: the ONNX file.
        budgets: what the result must stay within; at least one.
        out: folder to write.
        importance: importance files, summed; empty for a built-in score.
        score: built-in score, of `SCORES`; `energy` and `unrecoverable` need calibration inputs.
        calibration: inputs for recovery and data-aware scores: `.npz`, a folder of `.npy` or of images.
        mean, std: normalisation of images.
        evaluate: labelled inputs for top-1 before and after.
        profiler: of `PROFILERS`.
        provider: onnxruntime's execution provider, of `PROVIDERS`.
        threads: intra-op threads that the model will be deployed with.
        precision: of `PRECISIONS`.
        shapes: static shapes of inputs by name.
        batch: size of a dynamic first axis.
        values: what inputs always are, by name.
        profiles: min, opt and max shapes of dynamic inputs, for engines.
        freeze: glob patterns of layers whose width stays.
        align: axes of weights are multiples of this (a group's full size stays admissible); None lets halpc choose.
        min_width: least channels of a group.
        vanish: whether residual branches may disappear altogether.
        solver: of `SOLVERS`.
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

    def __post_init__(self) -> None:
        for name, kind in _MANY.items():
            self._set(name, _several(name, getattr(self, name), kind))
        self._set("importance", tuple(path_of(path) for path in self.importance))
        for name in _PATHS:
            self._set(name, _path(name, getattr(self, name), needed=name in ("model", "out")))
        for name, choices in _NAMES.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(choices)}")
        for name, most in _NUMBERS.items():
            _check_whole(name, getattr(self, name), most, needed=name not in ("batch", "align"))
        check_percentile(self.percentile)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def budget(self, resource: str) -> Budget | None:
        """The budget on one resource, or None."""
        return next((b for b in self.budgets if b.resource == resource), None)


def _several(name: str, given: Any, kind: Any) -> tuple[Any, ...]:
    if not isinstance(given, tuple | list) or not all(isinstance(entry, kind) for entry in given):
        what = {"budgets": "what parse_budget gives", "importance": "paths", "freeze": "patterns"}[name]
        raise UsageError(f"{name} {given!r}: expected a tuple of {what}")
    return tuple(given)


def _path(name: str, given: Any, needed: bool) -> Path | None:
    if given is None and not needed:
        return None
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        raise UsageError(f"{name} {given!r}: expected a path")
    return path_of(given)


def _check_whole(name: str, number: Any, most: int, needed: bool) -> None:
    if number is None and not needed:
        return
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= most:
        raise UsageError(f"{name} {number!r}: expected a whole number from 1 to {most}")


def check_budgets(budgets: tuple[Budget, ...]) -> None:
    """Of a compile: at least one budget, and one per resource.

    Raises:
        UsageError: none, or two on one resource.
    """
    if not budgets:
        raise UsageError(
            "no budget: give --latency 60%, --macs 50%, --params 50% or --peak-memory 50% (absolute: 5ms, 120M, 64MB)"
        )
    resources = [budget.resource for budget in budgets]
    if twice := next((name for name in resources if resources.count(name) > 1), None):
        raise UsageError(f"two budgets on {twice}: give one")
