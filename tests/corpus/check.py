"""Runs an exported file once in onnxruntime and compares it with the network it came from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from torch import Tensor

from tests.corpus.row import Input


def check(path: Path, inputs: tuple[Input, ...], feeds: list[Tensor], expected: list[Tensor]) -> dict[str, Any]:
    """What INDEX.json tells of a file. onnxruntime's optimisations are off: its own may be wrong.

    Raises: ValueError where outputs are not finite; what onnxruntime raises where the file does not load or run.
    """
    model = onnx.load(path, load_external_data=False)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    values = {name: _cast(session, i, feed) for i, (name, feed) in enumerate(zip(names, feeds, strict=False))}
    start = time.perf_counter()
    outputs = session.run(None, values)
    run_s = time.perf_counter() - start
    numbers = [np.asarray(each, dtype=np.float64) for each in outputs if _numeric(each)]
    if not all(bool(np.isfinite(each).all()) for each in numbers):
        raise ValueError("some outputs are not finite: nothing can be compared with them")
    return {
        "opset": max(each.version for each in model.opset_import if each.domain in ("", "ai.onnx")),
        "inputs": [_described(*pair) for pair in zip(session.get_inputs(), inputs, strict=False)],
        "outputs": [list(each.shape) for each in numbers],
        "nodes": len(model.graph.node),
        "bytes": path.stat().st_size,
        "run_s": round(run_s, 4),
        "largest": max((float(np.abs(each).max()) for each in numbers if each.size), default=0.0),
        "difference": _difference(numbers, expected),
    }


def _described(given: ort.NodeArg, row: Input) -> dict[str, Any]:
    """The input as the file declares it; `example` is a shape that fits, integers lie in [least, below)."""
    described = {"name": given.name, "shape": given.shape, "dtype": given.type, "example": list(row.shape)}
    return described | ({"least": row.least, "below": row.below} if row.below else {})


def _cast(session: ort.InferenceSession, index: int, feed: Tensor) -> np.ndarray:
    kind = session.get_inputs()[index].type
    array: np.ndarray = feed.numpy()
    return array.astype(np.float16) if kind == "tensor(float16)" else array


def _numeric(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def _difference(outputs: list[np.ndarray], expected: list[Tensor]) -> float | None:
    """Largest deviation from the network, over the network's largest value; None if not comparable."""
    wanted = [each.detach().float().numpy() for each in expected]
    if [each.shape for each in wanted] != [each.shape for each in outputs]:
        return None
    scale = max((float(np.abs(each).max()) for each in wanted if each.size), default=0.0) or 1.0
    gaps = [float(np.abs(a - b).max()) for a, b in zip(outputs, wanted, strict=True) if a.size]
    return max(gaps, default=0.0) / scale
