"""Running TensorRT engines against the clock. Runs in the child process only.

Inputs are uploaded once and stay on the device; nothing is transferred while the clock runs. The whole engine
is captured in a CUDA graph where that is possible and replayed between two events; where it is not, it is
enqueued, and the regime says so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike, NDArray

from halpc.errors import BackendError, CalibrationError
from profilers import trt_engine
from profilers.cuda import Cuda
from profilers.feeds import random_of

WARM_UP_SECONDS = 0.2
BURST, BURST_MS = 8, 100.0  # replays of one engine before the next one's turn: fewer where they take longer
LEAST_ROUNDS = 5  # fewer say nothing of how far they are apart
_TYPES: dict[str, DTypeLike] = {
    "FLOAT": np.float32, "HALF": np.float16, "BF16": ml_dtypes.bfloat16, "FP8": ml_dtypes.float8_e4m3fn,
    "INT32": np.int32, "INT64": np.int64, "INT8": np.int8, "UINT8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip


@dataclass(slots=True)
class Loaded:
    """An engine on the device, its buffers bound, ready to run in `stream`."""

    trt: Any
    cuda: Cuda
    runtime: Any
    engine: Any
    context: Any
    stream: Any
    said: list[str]
    inputs: tuple[str, ...] = ()
    addresses: dict[str, int] = field(default_factory=dict)
    graph: Any | None = None
    tried: bool = False  # to capture it
    given: bool = False  # whether inputs were handed over, or all are as at first
    host: list[NDArray[Any]] = field(default_factory=list)  # outputs that TensorRT writes there

    def enqueue(self) -> None:
        """Puts one run into the stream."""
        if not self.context.execute_async_v3(self.cuda.handle(self.stream)):
            raise BackendError(f"TensorRT could not run the engine: {trt_engine.quote(self.said)}.")

    def run(self, *, replay: bool = False) -> None:
        """One run: an enqueue, or a replay of the graph."""
        if replay:
            self.cuda.launch(self.graph, self.stream)
        else:
            self.enqueue()

    def close(self) -> None:
        """Gives everything on the device back, what depends on another thing before it."""
        self.cuda.synchronize(self.stream)
        self.cuda.release(self.graph, self.stream)
        self.graph = self.context = self.engine = self.runtime = None
        for address in self.addresses.values():
            self.cuda.free(address)
        self.addresses.clear()


def open_engine(
    trt: Any,
    cuda: Cuda,
    plan: Path,
    logger: Any,
    *,
    shapes: Mapping[str, tuple[int, ...]],
    feeds: Mapping[str, NDArray[Any]],
) -> Loaded:
    """Loads a plan file, binds every input and output, and fills the inputs from `feeds` or at random.

    Args:
        shapes: the shape to run at, per dynamic input; the profile's optimum where none is given.

    Raises:
        BackendError: the plan does not load or run on this GPU and version.
        CalibrationError: an input that was handed over does not have the engine's shape.
    """
    runtime, engine = trt_engine.deserialize(trt, logger, plan)
    said = logger.said
    context = trt_engine.present(engine.create_execution_context(), "create an execution context", said)
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = tuple(name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT)
    loaded = Loaded(trt, cuda, (runtime, logger), engine, context, cuda.stream(), said, inputs)
    for name in inputs:
        _set_shape(loaded, name, shapes)
    for name in names:
        size_bytes = _input_bytes(loaded, name) if name in inputs else _output_bytes(loaded, name)
        (_bind_on_host if _is_on_host(loaded, name) else _bind)(loaded, name, size_bytes)
    fill(loaded, feeds)
    return loaded


def fill(loaded: Loaded, feeds: Mapping[str, NDArray[Any]]) -> None:
    """Gives every input its values: from `feeds`, at random where those say nothing.

    Not zeros, with which GPUs need less power and run faster.

    Raises:
        CalibrationError: an input that was handed over does not have the engine's shape.
    """
    loaded.given = bool(feeds)
    for name in loaded.inputs:
        kind = loaded.engine.get_tensor_dtype(name).name
        dtype = _TYPES.get(kind)
        if dtype is None:
            continue  # four bits and other rare ones: zeros, as they were bound
        shape, given = _shape_of(loaded, name), feeds.get(name)
        if given is not None and given.shape != shape:
            raise CalibrationError(f"input {name} has shape {given.shape}, the engine runs at {shape}.")
        if given is not None and given.dtype.kind == "V":  # what npz files make of types that numpy lacks
            given = given.view(dtype)
        values = random_of(np.dtype(dtype), shape) if given is None else given.astype(dtype)
        loaded.cuda.upload(loaded.addresses[name], np.ascontiguousarray(values))


def _set_shape(loaded: Loaded, name: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    engine, context = loaded.engine, loaded.context
    if all(size >= 0 for size in tuple(engine.get_tensor_shape(name))):
        return
    shape = shapes.get(name) or tuple(engine.get_tensor_profile_shape(name, 0)[1])
    if not context.set_input_shape(name, tuple(shape)):
        raise BackendError(
            f"the engine does not take shape {tuple(shape)} for input {name}: it is outside its profile."
        )


def _output_bytes(loaded: Loaded, name: str) -> int:
    size_bytes = int(loaded.context.get_max_output_size(name))
    if size_bytes < 0:
        raise BackendError(f"TensorRT does not know how large output {name} may get: {trt_engine.quote(loaded.said)}.")
    return size_bytes


def _input_bytes(loaded: Loaded, name: str) -> int:
    """Whole bytes: of four-bit types the item size is a half."""
    size = float(loaded.engine.get_tensor_dtype(name).itemsize)
    return math.ceil(math.prod(_shape_of(loaded, name)) * size)


def _shape_of(loaded: Loaded, name: str) -> tuple[int, ...]:
    return tuple(int(size) for size in loaded.context.get_tensor_shape(name))


def _bind(loaded: Loaded, name: str, size_bytes: int) -> None:
    loaded.addresses[name] = loaded.cuda.allocate(size_bytes)
    _tell(loaded, name, loaded.addresses[name])


def _is_on_host(loaded: Loaded, name: str) -> bool:
    return bool(loaded.engine.get_tensor_location(name).name == "HOST")


def _bind_on_host(loaded: Loaded, name: str, size_bytes: int) -> None:
    """A tensor of sizes, which TensorRT reads or writes on the processor."""
    if name in loaded.inputs:
        raise BackendError(f"the engine takes shapes from the values of input {name}: halpc has none to time it with.")
    loaded.host.append(np.zeros(max(size_bytes, 1), np.uint8))
    _tell(loaded, name, loaded.host[-1].ctypes.data)


def _tell(loaded: Loaded, name: str, address: int) -> None:
    if not loaded.context.set_tensor_address(name, address):
        raise BackendError(f"TensorRT refused the buffer of {name}: {trt_engine.quote(loaded.said)}.")


def warm_up(loaded: Loaded, seconds: float = WARM_UP_SECONDS, *, replay: bool = False) -> None:
    """Runs for `seconds` (at least twice), so that loading and compiling of kernels stay out of the times."""
    until, runs = time.perf_counter() + seconds, 0
    while runs < 2 or time.perf_counter() < until:
        loaded.run(replay=replay)
        loaded.cuda.synchronize(loaded.stream)
        runs += 1


def regime(cuda: Cuda, captured: bool) -> str:
    """How engines were timed, in one sentence."""
    how = "replayed as a CUDA graph" if captured else "enqueued one by one (no CUDA graph)"
    return (
        f"whole engine {how}, timed by CUDA events over {cuda.name}, without transfers, "
        f"{WARM_UP_SECONDS * 1000:.0f} ms warm-up, engines interleaved in bursts of {BURST} at most"
    )


def race(engines: list[Loaded], seconds: float) -> tuple[list[list[float]], int]:
    """Milliseconds of every run of every engine, and in how many rounds; they take turns until `seconds` are over.

    All are replayed as graphs, or none is: a launch costs what a graph saves, whichever engine it is.
    """
    for loaded in engines:
        _capture(loaded)
    replay = captured(engines)
    for loaded in engines:
        warm_up(loaded, replay=replay)
    times: list[list[float]] = [[] for _ in engines]
    slowest_ms = max(_burst(loaded, replay, 1)[0] for loaded in engines)
    runs = max(1, min(BURST, int(BURST_MS / max(slowest_ms, 1e-6)) - 1))
    until, rounds = time.perf_counter() + seconds, 0
    while rounds < LEAST_ROUNDS or time.perf_counter() < until:
        for loaded, samples in zip(engines, times, strict=True):
            samples.extend(_burst(loaded, replay, runs))
        rounds += 1
    return times, rounds


def captured(engines: list[Loaded]) -> bool:
    """Whether there is a graph of each; loops and sizes found in the data cannot be captured."""
    return all(loaded.graph is not None for loaded in engines)


def _capture(loaded: Loaded) -> None:
    """As a graph, once; the runs before set up what the first one does. TensorRT-RTX says where it cannot be done."""
    if not loaded.tried:
        warm_up(loaded, 0.0)
        can = getattr(loaded.context, "is_stream_capturable", None)
        if can is None or can(loaded.cuda.handle(loaded.stream)):
            loaded.graph = loaded.cuda.capture(loaded.stream, loaded.enqueue)
        loaded.tried = True


def _burst(loaded: Loaded, replay: bool, runs: int) -> list[float]:
    """Milliseconds of runs in a row; one more before them, which finds cold caches, is thrown away."""
    cuda, stream = loaded.cuda, loaded.stream
    pairs = []
    for _ in range(runs + 1):
        start = cuda.event(stream)
        loaded.run(replay=replay)
        pairs.append((start, cuda.event(stream)))
    cuda.synchronize(stream)
    return [cuda.elapsed_ms(start, stop) for start, stop in pairs][1:]


def time_layers(loaded: Loaded, repetitions: int) -> tuple[list[str], list[list[float]]]:
    """(names, ms per run and layer) from TensorRT's own profiler, in order of execution."""
    trt, context = loaded.trt, loaded.context
    reports: list[tuple[str, float]] = []

    class Profiler(trt.IProfiler):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            reports.append((layer_name, ms))

    warm_up(loaded)
    profiler = Profiler()
    context.profiler = profiler
    context.enqueue_emits_profile = True
    runs: list[list[tuple[str, float]]] = []
    for _ in range(repetitions + 1):
        reports.clear()
        loaded.enqueue()
        loaded.cuda.synchronize(loaded.stream)
        runs.append(list(reports))
    names = [name for name, _ in runs[-1]]
    if not names:
        raise BackendError(f"TensorRT's profiler reported no layers: {trt_engine.quote(loaded.said)}.")
    same = [run for run in runs[1:] if [name for name, _ in run] == names]
    return names, [[ms for _, ms in run] for run in same]
