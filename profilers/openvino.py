"""OpenVINO as a stop-watch, on Intel and other x86 and Arm processors.

Its counters give each executed node's time averaged over all runs of a compiled model, in whole microseconds. So a
model is compiled anew for every block of runs, what its first runs took (cold caches, first-touch memory) is taken
off, and the median of several blocks counts: one disturbed run spoils its own block only.

Source: https://docs.openvino.ai (Performance hints; `ov::enable_profiling`; `ov::Model::get_runtime_model`).
"""

from __future__ import annotations

import importlib
import platform
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from halpc.errors import BackendError
from halpc.ir.latency import Device, LayerTime, Timing
from halpc.ir.profiler import ASIDE, Feeds, Model
from profilers.feeds import random_array
from profilers.ort_device import cores, processor
from profilers.ort_layers import node_name
from profilers.turns import take_turns

LEAST_MS: Final = 1e-4
_HINTS: Final = {"fp32": "f32", "int8": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES: Final = {"bf16": "BF16", "fp16": "FP16", "int8": "INT8"}
_ELEMENTS: Final = {
    "f32": "float", "f64": "double", "f16": "float16", "bf16": "bfloat16", "boolean": "bool",
    "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64",
    "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64",
}  # fmt: skip
_WARM_UP, _BLOCKS = 2, 3
_BLOCK_S: Final = 0.02  # the least that a block of a kernel lasts
_MOST_RUNS: Final = 200


class OpenVinoProfiler:
    """Satisfies `halpc.ir.profiler.Profiler`, on OpenVINO's CPU device."""

    def __init__(self, *, threads: int = 1, precision: str = "fp32") -> None:
        """A stop-watch.

        Args:
            threads: inference threads; 0 is one per core that this process may use.
            precision: of the models that will be measured; also OpenVINO's precision hint, so that it does not choose
                bfloat16 by itself.

        Raises:
            BackendError: OpenVINO is missing, or has no such precision on this processor.
        """
        try:
            self._ov = importlib.import_module("openvino")
            self._core = self._ov.Core()
        except (ImportError, RuntimeError) as error:
            raise BackendError(f"openvino cannot be used ({error}): pip install openvino") from error
        offered = list(self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        if precision not in _HINTS or _CAPABILITIES.get(precision, "FP32") not in offered:
            raise BackendError(
                f"openvino {self._version()} has no {precision} on this processor, only {', '.join(offered)}: choose"
                " another --precision"
            )
        self._threads = threads or cores()
        self._precision = precision

    def _version(self) -> str:
        return str(self._ov.__version__).partition("-")[0]

    @property
    def device(self) -> Device:
        """Processor, OpenVINO version, precision and threads."""
        name, vectors = processor()
        details = {"vectors": vectors, "system": f"{platform.system()} {platform.machine()}"}
        return Device("cpu", name, "openvino", self._version(), "CPU", self._precision, self._threads, details)

    def kernels(self, models: Sequence[onnx.ModelProto], *, repetitions: int = 10) -> NDArray[np.float64]:
        """float64[len(models)]: each small model's own kernel time in ms; see `Profiler.kernels`."""
        found = np.zeros((_BLOCKS, len(models)))
        for block in found:
            for i, model in enumerate(models):
                times = self._block(model, repetitions)[0]
                block[i] = sum(ms for name, ms in times.items() if not name.startswith(ASIDE))
        return np.asarray(np.median(found, axis=0))

    def layers(self, model: Model, *, repetitions: int = 20) -> tuple[LayerTime, ...]:
        """What OpenVINO executes for `model`, in order, mapped back to the nodes it was given."""
        blocks = [self._block(model, repetitions) for _ in range(_BLOCKS)]
        given = model if isinstance(model, onnx.ModelProto) else onnx.load(str(model), load_external_data=False)
        origins = _origins(given)
        names: dict[str, tuple[str, tuple[str, ...]]] = {}
        for node in blocks[0][1].get_runtime_model().get_ordered_ops():
            facts = {key: value.astype(str) for key, value in node.get_rt_info().items()}
            fused = facts.get("originalLayersNames", "").split(",")
            found = dict.fromkeys(origin for name in fused if (origin := _origin(name, origins)))
            names[node.get_friendly_name()] = (facts.get("layerType", "unknown"), tuple(found))
        made = {node_name(node): tuple(name for name in node.output if name) for node in given.graph.node}
        layers = []
        for name in blocks[0][0]:
            op, nodes = names.get(name, ("unknown", ()))
            time_ms = np.median([times[name] for times, _ in blocks if name in times])
            layers.append(LayerTime(name, op, made[nodes[-1]] if nodes else (), float(time_ms), nodes))
        return tuple(layers)

    def compare(self, models: Sequence[Model], *, seconds: float = 2.0, feeds: Feeds | None = None) -> list[Timing]:
        """End-to-end latency of each model; `seconds` is the time for all of them, compiling not counted."""
        requests = [self._request(self._compiled(model), feeds or {}) for model in models]
        for request in requests:
            request.infer()

        def timed(request: Any) -> tuple[float, float]:
            busy, start = time.thread_time(), time.perf_counter()
            request.infer()
            return time.perf_counter() - start, time.thread_time() - busy

        samples, rounds = take_turns([partial(timed, request) for request in requests], seconds)
        regime = (
            f"openvino CPU, {self._threads} thread{'s' * (self._threads > 1)}, one stream, precision hint"
            f" {_HINTS[self._precision]}, inputs bound once; {min(map(len, samples))} runs in {rounds} interleaved"
            " rounds after warm-up, first runs of a burst not counted"
        )
        return [Timing(np.array(runs)[:, 0] * 1e3, regime, rounds) for runs in samples]

    def _compiled(self, model: Model, *, counters: bool = False) -> Any:
        """`model` as it will be deployed for latency.

        Raises:
            BackendError: OpenVINO refuses it.
        """
        config = {
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": _HINTS[self._precision],
            "ENABLE_CPU_PINNING": False,
            "PERF_COUNT": counters,
        }
        source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(Path(model))
        try:
            return self._core.compile_model(self._core.read_model(source), "CPU", config)
        except RuntimeError as error:
            raise BackendError(f"openvino cannot load the model: {_reason(error)}") from error

    def _request(self, compiled: Any, feeds: Mapping[str, NDArray[np.generic]]) -> Any:
        request = compiled.create_infer_request()
        for value in compiled.inputs:
            name = value.get_any_name()
            shape = [int(size.get_length()) if size.is_static else -1 for size in value.get_partial_shape()]
            kind = value.get_element_type().get_type_name()
            array = feeds[name] if name in feeds else random_array(name, shape, f"tensor({_ELEMENTS.get(kind, kind)})")
            request.set_tensor(value, self._ov.Tensor(np.ascontiguousarray(array)))
        return request

    def _block(self, model: Model, repetitions: int) -> tuple[dict[str, float], Any]:
        """Mean time in ms of every executed node by name, over runs of a model compiled for them; and that model."""
        compiled = self._compiled(model, counters=True)
        request = self._request(compiled, {})
        walls = [_seconds(request) for _ in range(_WARM_UP)]
        runs = int(np.clip(_BLOCK_S / max(walls[-1], 1e-6), repetitions, _MOST_RUNS))
        cold = _totals(request, _WARM_UP)
        for _ in range(runs):
            request.infer()
        warm = _totals(request, _WARM_UP + runs)
        return {name: max((us - cold[name]) / runs / 1e3, LEAST_MS) for name, us in warm.items()}, compiled


def _seconds(request: Any) -> float:
    start = time.perf_counter()
    request.infer()
    return time.perf_counter() - start


def _totals(request: Any, runs: int) -> dict[str, float]:
    """Microseconds of all runs so far per executed node; the average is rounded down, half of which is put back."""
    executed = (info for info in request.profiling_info if str(info.status).endswith("EXECUTED"))
    return {info.node_name: runs * (info.real_time.total_seconds() * 1e6 + 0.5) for info in executed}


def _origins(model: onnx.ModelProto) -> dict[str, str]:
    """Names by which OpenVINO may call a node, its own or an output's, to the node's name."""
    outputs = {name: node_name(node) for node in model.graph.node for name in node.output if name}
    return outputs | {node_name(node): node_name(node) for node in model.graph.node}


def _origin(name: str, origins: Mapping[str, str]) -> str | None:
    """The node that OpenVINO's `name` comes from, which may have been lengthened: `/conv/Conv/WithoutBiases`."""
    while name:
        if name in origins:
            return origins[name]
        name = name.rpartition("/")[0]
    return None


def _reason(error: Exception) -> str:
    """The last line that says something; the first ones are OpenVINO's own source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
