"""Driver, device and binding: each missing thing has its own message; timing calls reach CUDA as intended."""

# ruff: noqa: N802, N815  (fakes carry the names of CUDA)
from __future__ import annotations

import ctypes
import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from halpc.errors import BackendError
from profilers import cuda


class FakeDriver:
    """`libcuda.so.1` as `ctypes` shows it: fills what the pointers point to."""

    def __init__(self, *, start: int = 0, count: int = 1) -> None:
        self._start, self._count = start, count

    def cuInit(self, flags: int) -> int:
        return self._start

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self._count
        return 0

    def cuGetErrorName(self, code: int, text: Any) -> int:
        text._obj.value = {100: b"CUDA_ERROR_NO_DEVICE", 803: b"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"}.get(code)
        return 0

    def cuDeviceGet(self, device: Any, number: int) -> int:
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = b"NVIDIA H200"
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 13010
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:
        memory._obj.value = 139 << 30
        return 0

    def cuDeviceGetAttribute(self, number: Any, attribute: int, device: Any) -> int:
        number._obj.value = {75: 9, 76: 0}[attribute]
        return 0


def use_driver(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)


def test_no_driver_library_is_named_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "DRIVER_LIBRARY", "libcuda-that-is-not-there.so.1")
    with pytest.raises(BackendError, match=r"tensorrt: no NVIDIA driver .*libcuda-that-is-not.*onnxruntime"):
        cuda.probe("tensorrt")


def test_a_driver_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    use_driver(monkeypatch, FakeDriver(start=803))
    with pytest.raises(BackendError, match=r"does not start.*CUDA_ERROR_SYSTEM_DRIVER_MISMATCH \(803\)"):
        cuda.probe()


@pytest.mark.parametrize("driver", [FakeDriver(start=100), FakeDriver(count=0)])
def test_a_driver_without_a_device_is_not_called_missing(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver) -> None:
    use_driver(monkeypatch, driver)
    with pytest.raises(BackendError, match=r"driver is there but shows no GPU.*CUDA_VISIBLE_DEVICES"):
        cuda.probe()


def test_the_first_gpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    use_driver(monkeypatch, FakeDriver(count=2))
    assert cuda.probe() == cuda.Gpu("NVIDIA H200", "9.0", "13.1", 2, 139 << 30)


def only(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
    """Makes exactly `modules` importable (dots spelled as two underscores)."""

    def importer(name: str) -> Any:
        if name.replace(".", "__") not in modules:
            raise ImportError(f"No module named '{name}'")
        return modules[name.replace(".", "__")]

    monkeypatch.setattr(importlib, "import_module", importer)


def test_no_binding_names_both_and_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    with pytest.raises(BackendError, match=r"neither `cuda-bindings` nor `pycuda`.*pip install cuda-bindings"):
        cuda.open_cuda("tensorrt")


class FakeRuntime:
    """`cuda.bindings.runtime`: every call is written down and answered with `(error, result)`."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, **fails: int) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails = fails

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, *arguments))
            silent = name in (
                "cudaDeviceSynchronize",
                "cudaFree",
                "cudaMemset",
                "cudaMemcpy",
                "cudaSetDevice",
                "cudaEventRecord",
                "cudaGraphDestroy",
            )
            return (self.fails.get(name, 0),) if silent else (self.fails.get(name, 0), 4096.0)

        return call


def test_bindings_upload_copies_the_bytes_of_the_array(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime()
    only(monkeypatch, cuda__bindings__runtime=runtime)
    device = cuda.open_cuda()
    address = device.allocate(12)
    device.upload(address, np.ones((1, 3), np.float32))
    assert [(call[0], call[-2:]) for call in runtime.calls[-2:-1]] == [("cudaMemcpy", (12, 1))]
    assert runtime.calls[-1] == ("cudaDeviceSynchronize",)  # halpc's streams do not wait for the default one
    assert ("cudaMemset", 4096, 0, 12) in runtime.calls


def test_a_failing_cuda_call_is_named() -> None:
    device = cuda.BindingsCuda(FakeRuntime(cudaMalloc=2))
    with pytest.raises(BackendError, match=r"cudaMalloc returned 2 \(2\)"):
        device.allocate(1)


def test_bindings_newer_than_the_driver_name_the_mend() -> None:
    with pytest.raises(BackendError, match=r"cudaSetDevice returned 35.*cuda-bindings<13.*tensorrt-cu12"):
        cuda.BindingsCuda(FakeRuntime(cudaSetDevice=35))


def test_a_capture_that_fails_gives_no_graph_and_clears_the_error() -> None:
    runtime = FakeRuntime(cudaStreamEndCapture=901)
    assert cuda.BindingsCuda(runtime).capture("stream", lambda: None) is None
    assert runtime.calls[-1] == ("cudaGetLastError",)


def test_a_capture_that_works_is_instantiated() -> None:
    runtime = FakeRuntime()
    assert cuda.BindingsCuda(runtime).capture("stream", lambda: None) == 4096.0
    assert [call[0] for call in runtime.calls[-2:]] == ["cudaGraphInstantiate", "cudaGraphDestroy"]


def test_work_that_raises_ends_the_capture() -> None:
    runtime = FakeRuntime()

    def work() -> None:
        raise BackendError("cannot run")

    assert cuda.BindingsCuda(runtime).capture("stream", work) is None
    assert [call[0] for call in runtime.calls[-3:]] == ["cudaStreamEndCapture", "cudaGraphDestroy", "cudaGetLastError"]


def test_a_graph_and_its_stream_are_given_back() -> None:
    runtime = FakeRuntime()
    device = cuda.BindingsCuda(runtime)
    device.release(device.capture("stream", lambda: None), "stream")
    device.release(None, "stream")
    ended = ["cudaGraphExecDestroy", "cudaStreamDestroy", "cudaStreamDestroy"]
    assert [call[0] for call in runtime.calls[-3:]] == ended


def test_pycuda_is_taken_where_bindings_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    context = SimpleNamespace(push=lambda: None, pop=lambda: None)
    driver = SimpleNamespace(
        init=lambda: None,
        Device=lambda number: SimpleNamespace(retain_primary_context=lambda: context),
    )
    only(monkeypatch, pycuda__driver=driver)
    device = cuda.open_cuda()
    assert device.name == "pycuda"
    assert device.capture(None, lambda: None) is None


class FakePycuda:
    """`pycuda.driver`: what is there of it in 2026.1, with its names and arguments; memory for 64 bytes."""

    class Error(Exception):
        """The base of pycuda's."""

    class MemoryError(Error):
        """Not Python's."""

    def __init__(self) -> None:
        self.contexts: list[Any] = []
        self.held: dict[int, int] = {}
        self.Context = SimpleNamespace(synchronize=lambda: None)

    def init(self, flags: int = 0) -> None:
        """Nothing to start."""

    def Device(self, number: int) -> Any:
        context = SimpleNamespace(push=lambda: self.contexts.append(number), pop=lambda: self.contexts.pop())
        return SimpleNamespace(retain_primary_context=lambda: context)

    def mem_alloc(self, size: int) -> Any:
        if size > 64:
            raise self.MemoryError("cuMemAlloc failed: out of memory")
        address = 0x1000 + 64 * len(self.held)
        self.held[address] = size

        class Allocation:
            def __int__(self) -> int:
                return address

            def free(this) -> None:  # noqa: N805
                self.held.pop(address)

        return Allocation()

    def memset_d8(self, dest: Any, data: int, size: int) -> None:
        assert self.held[int(dest)] == size

    def memcpy_htod(self, dest: int, src: Any) -> None:
        assert self.held[dest] == src.nbytes

    def Stream(self, flags: int = 0) -> Any:
        return SimpleNamespace(handle=7, synchronize=lambda: None)

    def Event(self) -> Any:
        event = SimpleNamespace(synchronize=lambda: event, time_till=lambda stop: 1.5)
        event.record = lambda stream: event
        return event


def test_pycuda_allocates_uploads_times_and_gives_back() -> None:
    driver = FakePycuda()
    device = cuda.PyCuda(driver)
    assert driver.contexts == [0]
    address = device.allocate(12)
    device.upload(address, np.ones((1, 3), np.float32))
    stream = device.stream()
    assert device.handle(stream) == 7
    device.synchronize(stream)
    assert device.elapsed_ms(device.event(stream), device.event(stream)) == 1.5
    device.free(address)
    assert not driver.held


def test_what_pycuda_refuses_is_a_backend_error() -> None:
    with pytest.raises(BackendError, match="CUDA failed: cuMemAlloc failed: out of memory"):
        cuda.PyCuda(FakePycuda()).allocate(100)


def test_pycudas_context_is_left_before_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[Any] = []
    monkeypatch.setattr(cuda.atexit, "register", ends.append)
    driver = FakePycuda()
    cuda.PyCuda(driver)
    ends[0]()
    assert not driver.contexts


def test_every_call_exists_in_the_installed_bindings() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    fake = FakeRuntime()
    device = cuda.BindingsCuda(fake)
    device.free(device.allocate(4))
    device.upload(1, np.zeros(1))
    stream = device.stream()
    assert device.handle(stream) == 4096
    device.synchronize(stream)
    device.elapsed_ms(device.event(stream), device.event(stream))
    device.launch(graph := device.capture(stream, lambda: None), stream)
    device.release(graph, stream)
    missing = [call[0] for call in fake.calls if not hasattr(runtime, call[0])]
    assert len(fake.calls) > 12
    assert not missing
