"""Sessions of onnxruntime for checking and calibrating (measuring is the profilers' business)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime as ort

from passes.loading.widen import has_bfloat16, widened
from passes.proto import fits, save_apart


def session_of(model: onnx.ModelProto, *, optimise: bool = True, threads: int = 0) -> ort.InferenceSession:
    """A CPU session, bfloat16 taken as float32; models past protobuf's limit go through a temporary file."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    if has_bfloat16(model):
        model = widened(model)
    if fits(model):
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with tempfile.TemporaryDirectory(prefix="halpc-") as folder:
        path = Path(folder) / "model.onnx"
        save_apart(model, path, "weights")
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
