"""The GPU as halpc needs it: is it there, and memory, streams, events and graphs on it.

`probe` asks the driver itself, through `ctypes`, before any vendor library is imported: TensorRT without a
driver answers with null pointers and segmentation faults. `open_cuda` then gives the few calls that timing
needs over `cuda-bindings`, or over `pycuda` where that is installed instead (Jetson images).

Source: CUDA Driver API (cuInit, cuDeviceGetCount, cuDriverGetVersion), CUDA Runtime API (graphs, events).
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from halpc.errors import BackendError

DRIVER_LIBRARY = "libcuda.so.1"
TF32_SWITCH = "NVIDIA_TF32_OVERRIDE"  # 0: no NVIDIA library computes float32 in TF32
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NON_BLOCKING = 1  # cudaStreamNonBlocking
_INSUFFICIENT_DRIVER = 35  # cudaErrorInsufficientDriver
_DRIVER_TOO_OLD = (
    " The driver is older than this cuda-bindings: `pip install 'cuda-bindings<13'` for one of CUDA 12 (and TensorRT of"
    " CUDA 12, `tensorrt-cu12`), or update the driver."
)


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first GPU that the driver shows.

    Attributes:
        name: as the driver spells it, `NVIDIA H200`.
        capability: compute capability, `9.0`.
        cuda: the newest CUDA version the driver supports, `13.0`.
        count: number of GPUs.
        memory_bytes: memory of the first GPU.
    """

    name: str
    capability: str
    cuda: str
    count: int
    memory_bytes: int


def probe(who: str = "this backend") -> Gpu:
    """The first GPU, asked of the driver alone; touches no vendor library.

    Args:
        who: the backend that needs it, for the message.

    Raises:
        BackendError: no driver, a driver that does not start, or no device.
    """
    driver = _load_driver(who)
    _start_driver(driver, who)
    count = ctypes.c_int(0)
    code = driver.cuDeviceGetCount(ctypes.byref(count))
    if code != 0 or count.value < 1:
        raise BackendError(
            f"{who}: the NVIDIA driver is there but shows no GPU ({_explain(driver, code)}). Check "
            "`nvidia-smi` and CUDA_VISIBLE_DEVICES, or choose `--profiler onnxruntime`."
        )
    return _describe(driver, count.value)


def refuse_tf32_switched_off(precision: str) -> None:
    """That TF32 is what will be measured where it was asked for.

    Raises:
        BackendError: the environment turns it off in all of NVIDIA's libraries.
    """
    if precision == "tf32" and os.environ.get(TF32_SWITCH) == "0":
        raise BackendError(
            f"--precision tf32: {TF32_SWITCH}=0 is in the environment, with which NVIDIA's libraries compute in"
            " float32: unset it, or choose --precision fp32"
        )


def _load_driver(who: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(DRIVER_LIBRARY)
    except OSError as error:
        raise BackendError(
            f"{who}: no NVIDIA driver on this machine ({error}). Install the driver, in a container "
            "start it with GPU access (`docker run --gpus all`), or choose `--profiler onnxruntime`."
        ) from error


def _start_driver(driver: ctypes.CDLL, who: str) -> None:
    code = driver.cuInit(0)
    if code == _NO_DEVICE:
        raise BackendError(
            f"{who}: the NVIDIA driver is there but shows no GPU ({_explain(driver, code)}). Check "
            "`nvidia-smi` and CUDA_VISIBLE_DEVICES, or choose `--profiler onnxruntime`."
        )
    if code != 0:
        raise BackendError(
            f"{who}: the NVIDIA driver does not start: cuInit returned {_explain(driver, code)}. Check "
            "`nvidia-smi`; after a driver update the machine needs a restart."
        )


def _explain(driver: ctypes.CDLL, code: int) -> str:
    """`CUDA_ERROR_NO_DEVICE (100)`, or the bare number where the driver does not say."""
    text = ctypes.c_char_p()
    try:
        known = driver.cuGetErrorName(code, ctypes.byref(text)) == 0
    except AttributeError:
        known = False
    return f"{text.value.decode()} ({code})" if known and text.value else f"CUDA error {code}"


def _describe(driver: ctypes.CDLL, count: int) -> Gpu:
    device, version, number = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t(0)
    driver.cuDeviceGet(ctypes.byref(device), 0)
    driver.cuDeviceGetName(name, 256, device)
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        capability.append(str(number.value))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode(), ".".join(capability), cuda, count, memory.value)


class Cuda(Protocol):
    """What timing needs of CUDA. Addresses are plain integers; streams, events and graphs are opaque."""

    name: str

    def allocate(self, size_bytes: int) -> int:
        """Address of fresh, zeroed device memory (at least one byte)."""
        ...

    def free(self, address: int) -> None:
        """Gives `allocate`'s memory back."""
        ...

    def upload(self, address: int, array: NDArray[np.generic]) -> None:
        """Copies a C-contiguous host array to the device."""
        ...

    def stream(self) -> Any:
        """A new stream that does not wait for the default one."""
        ...

    def handle(self, stream: Any) -> int:
        """The stream as the integer that TensorRT takes."""
        ...

    def synchronize(self, stream: Any) -> None:
        """Waits until everything in `stream` is done."""
        ...

    def event(self, stream: Any) -> Any:
        """A new event, recorded in `stream` now."""
        ...

    def elapsed_ms(self, start: Any, stop: Any) -> float:
        """Milliseconds between two recorded events; waits for the second."""
        ...

    def capture(self, stream: Any, work: Callable[[], None]) -> Any | None:
        """What `work` puts into `stream`, as a graph that `launch` replays; None if it cannot be captured."""
        ...

    def launch(self, graph: Any, stream: Any) -> None:
        """Replays a captured graph."""
        ...

    def release(self, graph: Any | None, stream: Any) -> None:
        """Gives back a graph, if there is one, and a stream in which nothing is pending."""
        ...


def open_cuda(who: str = "this backend") -> Cuda:
    """CUDA over `cuda-bindings`, else over `pycuda`. Call `probe` first.

    Raises:
        BackendError: neither is installed, or the device cannot be opened.
    """
    try:
        return BindingsCuda(importlib.import_module("cuda.bindings.runtime"))
    except ImportError:
        pass
    try:
        return PyCuda(importlib.import_module("pycuda.driver"))
    except ImportError as error:
        raise BackendError(
            f"{who}: needs a Python binding of CUDA and found neither `cuda-bindings` nor `pycuda`. "
            "`pip install cuda-bindings` (or `pip install halpc[tensorrt]`)."
        ) from error


class BindingsCuda:
    """`Cuda` over `cuda.bindings.runtime`, whose calls return `(error, result…)`."""

    name = "cuda-bindings"

    def __init__(self, runtime: Any) -> None:
        self._cuda = runtime
        self._ask("cudaSetDevice", 0)

    def _ask(self, call: str, *arguments: Any) -> Any:
        error, *results = getattr(self._cuda, call)(*arguments)
        if int(error) != 0:
            mend = _DRIVER_TOO_OLD if int(error) == _INSUFFICIENT_DRIVER else ""
            raise BackendError(f"CUDA failed: {call} returned {getattr(error, 'name', error)} ({int(error)}).{mend}")
        return results[0] if results else None

    def allocate(self, size_bytes: int) -> int:
        address = int(self._ask("cudaMalloc", max(size_bytes, 1)))
        self._ask("cudaMemset", address, 0, max(size_bytes, 1))
        self._ask("cudaDeviceSynchronize")  # streams that halpc makes do not wait for the default one
        return address

    def free(self, address: int) -> None:
        self._ask("cudaFree", address)

    def upload(self, address: int, array: NDArray[np.generic]) -> None:
        host = np.ascontiguousarray(array)
        direction = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._ask("cudaMemcpy", address, host.ctypes.data, host.nbytes, direction)
        self._ask("cudaDeviceSynchronize")

    def stream(self) -> Any:
        return self._ask("cudaStreamCreateWithFlags", _NON_BLOCKING)

    def handle(self, stream: Any) -> int:
        return int(stream)

    def synchronize(self, stream: Any) -> None:
        self._ask("cudaStreamSynchronize", stream)

    def event(self, stream: Any) -> Any:
        event = self._ask("cudaEventCreate")
        self._ask("cudaEventRecord", event, stream)
        return event

    def elapsed_ms(self, start: Any, stop: Any) -> float:
        self._ask("cudaEventSynchronize", stop)
        time_ms = float(self._ask("cudaEventElapsedTime", start, stop))
        for event in (start, stop):
            self._ask("cudaEventDestroy", event)
        return time_ms

    def capture(self, stream: Any, work: Callable[[], None]) -> Any | None:
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._ask("cudaStreamBeginCapture", stream, mode)
        try:
            work()
            refused = False
        except BackendError:
            refused = True
        error, graph = self._cuda.cudaStreamEndCapture(stream)
        if refused or int(error) != 0:
            if int(error) == 0:
                self._ask("cudaGraphDestroy", graph)
            self._cuda.cudaGetLastError()  # else the next call that asks for it is taken to have failed
            return None
        try:
            return self._ask("cudaGraphInstantiate", graph, 0)
        finally:
            self._ask("cudaGraphDestroy", graph)

    def launch(self, graph: Any, stream: Any) -> None:
        self._ask("cudaGraphLaunch", graph, stream)

    def release(self, graph: Any | None, stream: Any) -> None:
        if graph is not None:
            self._ask("cudaGraphExecDestroy", graph)
        self._ask("cudaStreamDestroy", stream)


class PyCuda:
    """`Cuda` over `pycuda.driver`. It has no CUDA graphs, so engines are enqueued one by one."""

    name = "pycuda"

    def __init__(self, driver: Any) -> None:
        self._cuda = driver
        self._ask(driver.init)
        self._context = self._ask(self._ask(driver.Device, 0).retain_primary_context)
        self._ask(self._context.push)
        atexit.register(self._context.pop)  # else pycuda aborts a process that ends, and nobody reads why it did
        self._memory: dict[int, Any] = {}

    def _ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except self._cuda.Error as error:  # of memory, of logic, of a launch: all of pycuda's errors are one of these
            raise BackendError(f"CUDA failed: {error}.") from error

    def allocate(self, size_bytes: int) -> int:
        memory = self._ask(self._cuda.mem_alloc, max(size_bytes, 1))
        self._ask(self._cuda.memset_d8, memory, 0, max(size_bytes, 1))
        self._ask(self._cuda.Context.synchronize)
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        self._ask(self._memory.pop(address).free)

    def upload(self, address: int, array: NDArray[np.generic]) -> None:
        self._ask(self._cuda.memcpy_htod, address, np.ascontiguousarray(array))
        self._ask(self._cuda.Context.synchronize)

    def stream(self) -> Any:
        return self._ask(self._cuda.Stream, _NON_BLOCKING)

    def handle(self, stream: Any) -> int:
        return int(stream.handle)

    def synchronize(self, stream: Any) -> None:
        self._ask(stream.synchronize)

    def event(self, stream: Any) -> Any:
        return self._ask(self._ask(self._cuda.Event).record, stream)

    def elapsed_ms(self, start: Any, stop: Any) -> float:
        self._ask(stop.synchronize)
        return float(self._ask(start.time_till, stop))

    def capture(self, stream: Any, work: Callable[[], None]) -> Any | None:
        return None

    def launch(self, graph: Any, stream: Any) -> None:
        raise BackendError("pycuda has no CUDA graphs: `pip install cuda-bindings`.")

    def release(self, graph: Any | None, stream: Any) -> None:
        """A stream of pycuda's ends with its object."""
