"""Sessions of onnxruntime for checking and calibrating (measuring is the profilers' business)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime as ort

LIMIT = 2**31 - 2**20  # protobuf's limit on one message


def session_of(model: onnx.ModelProto, *, optimise: bool = True, threads: int = 0) -> ort.InferenceSession:
    """A CPU session; models past protobuf's limit go through a temporary file with external data."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    if model.ByteSize() < LIMIT:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with tempfile.TemporaryDirectory(prefix="halpc-") as folder:
        path = str(Path(folder) / "model.onnx")
        onnx.save(model, path, save_as_external_data=True, location="weights")
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
