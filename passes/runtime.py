"""Sessions of onnxruntime for checking and calibrating (measuring is the profilers' business)."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from halpc.errors import ModelError
from passes.bare import Bare, parted
from passes.casting.float8 import has_float8
from passes.loading.widen import has_bfloat16, widened
from passes.proto import bodies, every_node, fits, save_apart

RUN_S = 1800.0  # of one run of a network, so that loops which do not end do


def level_of(model: onnx.ModelProto, *, optimise: bool = True) -> ort.GraphOptimizationLevel:
    """All of onnxruntime's optimisations, or none: where nobody wants them, and where anything is float8.

    onnxruntime 1.32 drops a Relu before QuantizeLinear whose zero point is 0, as it may for uint8; float8 has a sign.
    """
    level = ort.GraphOptimizationLevel
    return level.ORT_ENABLE_ALL if optimise and not has_float8(model) else level.ORT_DISABLE_ALL


def session_of(model: onnx.ModelProto | Bare, *, optimise: bool = True, threads: int = 0) -> ort.InferenceSession:
    """A CPU session, bfloat16 taken as float32; what is past protobuf's limit goes through a temporary file."""
    bare = _parted(model)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.graph_optimization_level = level_of(bare.proto, optimise=optimise)
    given = {name: ort.OrtValue.ortvalue_from_numpy(bare.weights[name]) for name in _used(bare)}
    options.add_external_initializers(list(given), list(given.values()))
    if fits(bare.proto):
        return ort.InferenceSession(bare.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with tempfile.TemporaryDirectory(prefix="halpc-") as folder:
        path = Path(folder) / "model.onnx"
        save_apart(bare.proto, path, "weights")
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _parted(model: onnx.ModelProto | Bare) -> Bare:
    """The model with its large weights beside it, without bfloat16."""
    proto = model.proto if isinstance(model, Bare) else model
    if has_bfloat16(proto):
        proto = widened(proto)
    elif isinstance(model, Bare):
        return model
    bare = parted(proto)
    return Bare(bare.proto, bare.weights | model.weights) if isinstance(model, Bare) else bare


def _used(bare: Bare) -> list[str]:
    """Large weights that something reads; onnxruntime does not know the others any more when it takes them."""
    graph = bare.proto.graph
    read = {value.name for value in graph.output}.union(*(each.input for each in every_node(graph)))
    read |= {value.name for body in bodies(graph.node) for value in body.output}
    return [name for name in bare.weights if name in read]


def run_within(
    session: ort.InferenceSession,
    names: Sequence[str] | None,
    feeds: Mapping[str, NDArray[Any]],
    *,
    seconds: float = RUN_S,
) -> list[Any]:
    """The named outputs, all without names.

    Raises:
        ModelError: onnxruntime was still running after so many seconds.
    """
    options = ort.RunOptions()
    options.log_severity_level = 4
    over = threading.Event()

    def stop() -> None:
        over.set()
        options.terminate = True

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        return list(session.run(None if names is None else list(names), dict(feeds), options))
    except Exception as error:  # onnxruntime's are untyped
        if over.is_set():
            raise ModelError(f"one run took more than {seconds:g} s; a loop in it may not end") from error
        raise
    finally:
        timer.cancel()
