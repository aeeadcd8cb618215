"""A GPU that is not there: `cuda.bindings.runtime` and `tensorrt` as far as halpc calls them, with a clock.

The runtime keeps account of memory, streams, events and graphs, and refuses what CUDA refuses: a use after the end, an
allocation while a stream is captured. An engine is its ONNX model; a node takes as long as its weights have tiles of 16
channels, elementwise nodes run in the kernel before them. Run as a module it is the TensorRT child process.
"""

# ruff: noqa: N802, N815  (the names of CUDA and TensorRT)
from __future__ import annotations

import json
from collections.abc import Iterator
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from profilers.cuda import Gpu

GPU = Gpu("A simulated GPU", "9.0", "13.0", 1, 80 << 30)
LAUNCH_MS = 0.004  # of an enqueued layer, which a graph saves
FUSED = ("Relu", "Add", "Flatten", "Cast", "QuantizeLinear", "DequantizeLinear")


class Kind(IntEnum):
    cudaMemcpyHostToDevice = 1


class Mode(IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class Runtime:
    """`cuda.bindings.runtime`."""

    cudaMemcpyKind, cudaStreamCaptureMode = Kind, Mode

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.alive: dict[int, tuple[str, Any]] = {}
        self.count = 0x1000
        self.captured: list[float] | None = None
        self.device: int | None = None

    def made(self, kind: str, what: Any = None) -> tuple[int, int]:
        self.count += 0x100
        self.alive[self.count] = (kind, what)
        return 0, self.count

    def ended(self, kind: str, handle: int) -> tuple[int]:
        return (0 if self.alive.pop(handle, ("", None))[0] == kind else 1,)

    def spend(self, ms: float) -> None:
        if self.captured is None:
            self.now_ms += ms
        else:
            self.captured.append(ms)

    def of(self, kind: str) -> int:
        return sum(found == kind for found, _ in self.alive.values())

    def cudaSetDevice(self, number: int) -> tuple[int]:
        self.device = number
        return (0,)

    def cudaDeviceSynchronize(self) -> tuple[int]:
        return (900 if self.captured is not None else 0,)

    def cudaMalloc(self, size: int) -> tuple[int, int | None]:
        return self.made("memory", size) if self.captured is None else (900, None)

    def cudaMemset(self, address: int, value: int, size: int) -> tuple[int]:
        return (0 if self.alive[address] == ("memory", size) else 1,)

    def cudaMemcpy(self, to: int, source: int, size: int, kind: Kind) -> tuple[int]:
        return (0 if self.alive[to] == ("memory", size) and source else 1,)

    def cudaFree(self, address: int) -> tuple[int]:
        return self.ended("memory", address)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[int, int]:
        assert flags == 1
        return self.made("stream")

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        return (0 if self.captured is None and self.alive[stream][0] == "stream" else 900,)

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        return self.ended("stream", stream)

    def cudaEventCreate(self) -> tuple[int, int]:
        return self.made("event", [])

    def cudaEventRecord(self, event: int, stream: int) -> tuple[int]:
        assert self.alive[stream][0] == "stream"
        self.alive[event][1].append(self.now_ms)
        return (0,)

    def cudaEventSynchronize(self, event: int) -> tuple[int]:
        return (0 if self.alive[event][1] else 1,)

    def cudaEventElapsedTime(self, start: int, stop: int) -> tuple[int, float]:
        return 0, self.alive[stop][1][-1] - self.alive[start][1][-1]

    def cudaEventDestroy(self, event: int) -> tuple[int]:
        return self.ended("event", event)

    def cudaStreamBeginCapture(self, stream: int, mode: Mode) -> tuple[int]:
        assert self.captured is None
        assert mode is Mode.cudaStreamCaptureModeThreadLocal
        self.captured = []
        return (0,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, int]:
        cost, self.captured = sum(self.captured or ()), None
        return self.made("graph", cost)

    def cudaGetLastError(self) -> tuple[int]:
        return (0,)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[int, int]:
        return self.made("exec", self.alive[graph][1])

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[int]:
        assert self.alive[stream][0] == "stream"
        self.spend(self.alive[graph][1])
        return (0,)

    def cudaGraphDestroy(self, graph: int) -> tuple[int]:
        return self.ended("graph", graph)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[int]:
        return self.ended("exec", graph)


class Vendor:
    """`tensorrt`, on a runtime of CUDA."""

    __version__ = "11.4.0.106"
    ProfilingVerbosity = SimpleNamespace(DETAILED=2)
    BuilderFlag = SimpleNamespace(TF32=1)
    MemoryPoolType = SimpleNamespace(WORKSPACE=0)
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=0)
    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    LayerInformationFormat = SimpleNamespace(JSON="json")

    class ILogger:
        WARNING = 2

    class IProfiler:
        """What listens to layers."""

    def __init__(self, cuda: Runtime) -> None:
        self.cuda = cuda

    def init_libnvinfer_plugins(self, logger: Any, namespace: str) -> bool:
        return True

    def Builder(self, logger: Any) -> Any:
        return SimpleNamespace(
            create_network=lambda flags: SimpleNamespace(model=None),
            create_builder_config=Config,
            create_optimization_profile=Shapes,
            build_serialized_network=lambda network, config: config.plan(network.model),
        )

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        def parse_from_file(path: str) -> bool:
            network.model = onnx.load(path)
            values = list(inputs_of(network.model))
            network.num_inputs = len(values)
            network.get_input = lambda index: SimpleNamespace(
                name=values[index].name, shape=shape_of(values[index]), is_shape_tensor=False
            )
            return True

        return SimpleNamespace(parse_from_file=parse_from_file, num_errors=0)

    def Runtime(self, logger: Any) -> Any:
        def deserialize(data: bytes) -> Engine:
            model = onnx.ModelProto()
            model.ParseFromString(data)
            return Engine(model, self.cuda)

        return SimpleNamespace(deserialize_cuda_engine=deserialize)


class Config:
    """`IBuilderConfig`; a timing cache is what it was made of."""

    cache: Any = None

    def set_flag(self, flag: int) -> None:
        """Nothing is computed here."""

    clear_flag = set_flag

    profile: Shapes | None = None

    def add_optimization_profile(self, profile: Shapes) -> int:
        self.profile = profile
        return 0 if profile.given else -1

    def plan(self, model: onnx.ModelProto) -> bytes:
        if self.profile is not None:
            helper.set_model_props(model, {"profile": json.dumps(self.profile.given)})
        return model.SerializeToString()

    def create_timing_cache(self, data: bytes) -> Any:
        return SimpleNamespace(serialize=lambda: data or b"timed", combine=lambda other, ignore_mismatch: True)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self.cache


class Shapes:
    """`IOptimizationProfile`."""

    def __init__(self) -> None:
        self.given: dict[str, tuple[Any, Any, Any]] = {}

    def set_shape(self, name: str, min: Any, opt: Any, max: Any) -> None:
        assert all(low <= best <= high for low, best, high in zip(min, opt, max, strict=True))
        self.given[name] = (min, opt, max)


def inputs_of(model: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    weights = {tensor.name for tensor in model.graph.initializer}
    return (value for value in model.graph.input if value.name not in weights)


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim)


def kernels_of(model: onnx.ModelProto) -> Iterator[tuple[list[str], float]]:
    """(names of the nodes, ms) of each kernel: one per node with weights, what follows runs in it."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    names: dict[str, list[str]] = {}
    costs: dict[str, float] = {}
    home: dict[str, str] = {}
    for node in model.graph.node:
        before = [home[name] for name in node.input if name in home]
        own = before[-1] if node.op_type in FUSED and before else node.name
        home.update(dict.fromkeys(node.output, own))
        names.setdefault(own, []).append(node.name)
        shapes = [sizes[name] for name in node.input if len(sizes.get(name, ())) > 1]
        tiles = sum(np.prod([-(-n // 16) if i < 2 else n for i, n in enumerate(shape)]) for shape in shapes)
        costs[own] = costs.get(own, 0.002) + 0.01 * float(tiles)
    return ((names[own], costs[own]) for own in names)


class Engine:
    """`ICudaEngine`: kernels of convolutions are called after their nodes, generated ones by a number."""

    def __init__(self, model: onnx.ModelProto, cuda: Runtime) -> None:
        self.cuda = cuda
        self.values = {value.name: value for value in (*inputs_of(model), *model.graph.output)}
        self.given = {value.name for value in inputs_of(model)}
        self.num_io_tensors = len(self.values)
        known = {entry.key: entry.value for entry in model.metadata_props}
        self.profile, slower = json.loads(known.get("profile", "{}")), float(known.get("slower", 1.0))
        half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
        self.layers = [self._layer(i, nodes, ms * slower, half) for i, (nodes, ms) in enumerate(kernels_of(model))]

    def _layer(self, index: int, nodes: list[str], ms: float, half: bool) -> tuple[dict[str, Any], float]:
        name = " + ".join(nodes) if index % 2 == 0 else f"__myl_Kernel_myl0_{index}"
        metadata = "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes)
        tensor = {"Name": "t", "Format/Datatype": "Half" if half else "Float"}
        return {"Name": name, "LayerType": "CaskConvolution", "Inputs": [tensor], "Metadata": metadata}, ms

    def create_execution_context(self) -> Context:
        return Context(self)

    def create_engine_inspector(self) -> Any:
        text = json.dumps({"Layers": [layer for layer, _ in self.layers]})
        return SimpleNamespace(get_engine_information=lambda kind: text)

    def get_tensor_name(self, index: int) -> str:
        return list(self.values)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in self.given else "out"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return shape_of(self.values[name])

    def get_tensor_profile_shape(self, name: str, number: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self.profile[name]]

    def get_tensor_location(self, name: str) -> Any:
        return SimpleNamespace(name="DEVICE")

    def get_tensor_dtype(self, name: str) -> Any:
        dtype = helper.tensor_dtype_to_np_dtype(self.values[name].type.tensor_type.elem_type)
        names = {"float32": "FLOAT", "float16": "HALF", "int64": "INT64"}
        return SimpleNamespace(name=names[str(dtype)], itemsize=dtype.itemsize)


class Context:
    """`IExecutionContext`."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.profiler, self.bound, self.ran = engine, None, {}, False
        self.profiler: Any
        self.bound: dict[str, int]
        self.shapes: dict[str, tuple[int, ...]] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self.engine.get_tensor_profile_shape(name, 0)
        self.shapes[name] = shape
        return all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        first = next(iter(self.engine.values))
        batch = self.shapes.get(first, self.engine.get_tensor_shape(first))[0]
        return self.shapes.get(name) or tuple(batch if n < 0 else n for n in self.engine.get_tensor_shape(name))

    def get_max_output_size(self, name: str) -> int:
        return int(np.prod(self.get_tensor_shape(name))) * int(self.engine.get_tensor_dtype(name).itemsize)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.bound[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        cuda = self.engine.cuda
        capturing = cuda.captured is not None
        if capturing and not self.ran:
            return False  # the first run sets things up
        assert all(cuda.alive[address][0] == "memory" for address in self.bound.values())
        assert self.bound.keys() == self.engine.values.keys()
        assert all(size >= 0 for name in self.bound for size in self.get_tensor_shape(name))
        self.ran = True
        for layer, ms in self.engine.layers:
            cuda.spend(ms if capturing else ms + LAUNCH_MS)
            if self.profiler is not None:
                self.profiler.report_layer_time(layer["Name"], ms)
        return True


def install(cuda: Runtime) -> None:
    """Puts all of it where the child process looks."""
    from profilers import trt_child, trt_engine, trt_time
    from profilers.cuda import BindingsCuda

    vendor = Vendor(cuda)
    trt_child.probe = lambda who: GPU  # type: ignore[attr-defined]
    trt_child.open_cuda = lambda who: BindingsCuda(cuda)  # type: ignore[attr-defined]
    trt_engine.load = lambda backend: vendor
    trt_time.WARM_UP_SECONDS = 0.0


if __name__ == "__main__":
    install(Runtime())
    from profilers.trt_child import main

    main()
