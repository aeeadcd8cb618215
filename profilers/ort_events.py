"""What onnxruntime's own profiler says: per executed node, one duration per run.

Source: https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halpc.errors import OutputError
from halpc.ir.profiler import ASIDE

_CHUNK = 1 << 20  # bytes

REORDERS = frozenset({"ReorderInput", "ReorderOutput"})
LEAST_MS = 1e-4
_SUFFIX = "_kernel_time"
_TRUNCATED_US = 0.5
_TYPES = {
    "float": "fp32", "double": "fp64", "float16": "fp16", "bfloat16": "bf16", "int8": "int8", "uint8": "int8",
}  # fmt: skip
_WEIGHTED = ("Conv", "Gemm", "MatMul")
_QUANTISED = ("Integer", "Quantize", "QGemm")


@dataclass(frozen=True, slots=True)
class NodeTimes:
    """One executed node.

    Attributes:
        name: its name in the optimised model.
        op: its operator there.
        occurrence: how many nodes of this name and operator were executed before it in a run.
        us: float64[runs], microseconds, of the runs that count.
    """

    name: str
    op: str
    occurrence: int
    us: NDArray[np.float64]

    @property
    def time_ms(self) -> float:
        """The middle half of the runs, averaged.

        The profiler counts whole microseconds, rounded down: an average repeats better than one median where kernels
        last a few microseconds, and half a microsecond mends the rounding. Not the fastest runs: where others share
        the caches, how lucky those are depends on the moment, and a kernel's fastest run on one day may take two
        thirds of its usual time.
        """
        ordered = np.sort(self.us)
        tail = len(ordered) // 4
        return (float(np.mean(ordered[tail : len(ordered) - tail])) + _TRUNCATED_US) / 1e3

    @property
    def counts(self) -> bool:
        """Whether it is what is measured: no scaffolding, and no reorder at the model's edge."""
        return self.op not in REORDERS and not self.name.startswith(ASIDE)


@dataclass(frozen=True, slots=True)
class Profile:
    """One session's profile.

    Attributes:
        nodes: executed nodes in order.
        on_device: durations are those of GPU kernels, not of their launch.
    """

    nodes: tuple[NodeTimes, ...]
    on_device: bool

    def kernel_ms(self, overhead_ms: float = 0.0) -> float:
        """Sum over the nodes that count, less what the profiler itself adds to each."""
        return sum(max(node.time_ms - overhead_ms, LEAST_MS) for node in self.nodes if node.counts)

    def overhead_ms(self, wall_ms: float, about_ms: float) -> float:
        """What the profiler adds to each node: without it, the nodes together take as long as an unprofiled run.

        Args:
            wall_ms: of an unprofiled run.
            about_ms: what a node that does nothing takes; the answer lies within a factor of two of it.
        """
        times = np.array([node.time_ms for node in self.nodes])
        tried = np.geomspace(about_ms / 2, about_ms * 2, 200)
        sums = np.maximum(times - tried[:, None], LEAST_MS).sum(axis=1)
        return float(tried[np.argmin(np.abs(sums - wall_ms))])


def check_room(folder: Path, size_bytes: int) -> None:
    """That the runtime can write so much into a temporary folder: it does not tell a full disk from a wrong model.

    Raises:
        OutputError: it cannot.
    """
    probe = folder / "room"
    try:
        with probe.open("wb") as stream:
            for start in range(0, size_bytes, _CHUNK):
                stream.write(bytes(min(_CHUNK, size_bytes - start)))
    except OSError as error:
        raise no_room(folder, error.strerror or str(error)) from error
    finally:
        probe.unlink(missing_ok=True)


def no_room(folder: Path, why: str) -> OutputError:
    """The refusal where temporary files cannot be written."""
    return OutputError(
        f"{folder}: onnxruntime could not write there what it measured ({why}); make room, or set TMPDIR to another"
        " folder"
    )


def _events(path: Path) -> list[dict[str, Any]]:
    """What the runtime's profiler wrote; the file is removed.

    Raises:
        OutputError: it is cut short.
    """
    try:
        events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise no_room(path.parent, "its profile is cut short") from error
    path.unlink()
    return events


def read_profile(path: Path, counted: Sequence[bool] = ()) -> Profile:
    """Read (and remove) the file that a session wrote.

    Args:
        counted: whether each of the session's runs counts; all do where nothing is said.
    """
    events = _events(path)
    on_device = any(event.get("cat") == "Kernel" for event in events)
    runs = _runs(events, on_device)
    if len(counted) == len(runs):
        runs = [run for run, counts in zip(runs, counted, strict=True) if counts]
    runs = [run for run in runs if run]
    order = list(runs[-1]) if runs else []
    complete = [run for run in runs if run.keys() == runs[-1].keys()]
    return Profile(
        tuple(NodeTimes(*key, np.array([run[key] for run in complete])) for key in order),
        on_device,
    )


def read_precisions(path: Path) -> dict[str, int]:
    """How many convolutions and matrix products of a run computed in each precision; reads (and removes) the file."""
    events = _events(path)
    kinds: dict[tuple[str, str], str] = {}
    for event in events:
        if event.get("cat") == "Node" and event.get("name", "").endswith(_SUFFIX):
            op, shapes = event["args"].get("op_name", ""), event["args"].get("input_type_shape") or [{}]
            if any(part in op for part in _WEIGHTED):
                first = next(iter(shapes[0]), "")
                kinds[event["name"], op] = "int8" if any(q in op for q in _QUANTISED) else _TYPES.get(first, first)
    return dict(Counter(kinds.values()).most_common())


_Key = tuple[str, str, int]


def _runs(events: list[dict[str, Any]], on_device: bool) -> list[dict[_Key, float]]:
    """Per run, durations by (name, operator, occurrence), in order of execution."""
    runs: list[dict[_Key, float]] = []
    current: dict[_Key, float] = {}
    seen: Counter[tuple[str, str]] = Counter()
    key: _Key | None = None
    for event in events:
        category, name = event.get("cat"), event.get("name", "")
        if category == "Node" and name.endswith(_SUFFIX):
            node = (name.removesuffix(_SUFFIX), event["args"].get("op_name", ""))
            key = (*node, seen[node])
            seen[node] += 1
            current[key] = 0.0 if on_device else float(event["dur"])
        elif category == "Kernel" and key is not None:
            current[key] += float(event["dur"])  # kernels follow the node that launched them
        elif category == "Session" and name == "model_run":
            runs.append(current)
            current, key = {}, None
            seen.clear()
    return runs
