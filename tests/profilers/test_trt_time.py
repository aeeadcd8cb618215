"""Running an engine against the clock, with a TensorRT and a CUDA that only keep account."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from halpc.errors import BackendError, CalibrationError
from profilers import trt_engine, trt_time

HALF = SimpleNamespace(name="HALF", itemsize=2)
BF16 = SimpleNamespace(name="BF16", itemsize=2)
FP8 = SimpleNamespace(name="FP8", itemsize=1)
UINT8 = SimpleNamespace(name="UINT8", itemsize=1)
INT64 = SimpleNamespace(name="INT64", itemsize=8)
INT4 = SimpleNamespace(name="INT4", itemsize=0.5)
INPUT, OUTPUT = "input", "output"


class FakeCuda:
    """Memory is a dictionary; time is the number of runs."""

    name = "fake"

    def __init__(self, *, graphs: bool = True) -> None:
        self.memory: dict[int, Any] = {}
        self.runs = self.replays = 0
        self.graphs = graphs
        self.released: list[tuple[Any, Any]] = []

    def allocate(self, size_bytes: int) -> int:
        address = max(self.memory, default=0) + 1
        self.memory[address] = size_bytes
        return address

    def free(self, address: int) -> None:
        del self.memory[address]

    def upload(self, address: int, array: Any) -> None:
        held = self.memory[address]
        assert array.nbytes == getattr(held, "nbytes", held)
        self.memory[address] = array

    def stream(self) -> str:
        return "stream"

    def handle(self, stream: Any) -> int:
        return 7

    def synchronize(self, stream: Any) -> None:
        """Nothing is ever pending."""

    def event(self, stream: Any) -> int:
        return self.runs

    def elapsed_ms(self, start: Any, stop: Any) -> float:
        return float(stop - start)

    def capture(self, stream: Any, work: Callable[[], None]) -> str | None:
        work()
        return "graph" if self.graphs else None

    def launch(self, graph: Any, stream: Any) -> None:
        assert graph is not None
        self.runs += 1
        self.replays += 1

    def release(self, graph: Any, stream: Any) -> None:
        self.released.append((graph, stream))


class FakeContext:
    """An execution context of a network x → y that reports two layers where a profiler listens."""

    def __init__(self, cuda: FakeCuda, *, fine: bool = True) -> None:
        self.cuda, self.fine = cuda, fine
        self.shape: tuple[int, ...] = (-1, 4)
        self.profiler: Any = None
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return shape[0] <= 8

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def get_max_output_size(self, name: str) -> int:
        return 64

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        assert handle == 7
        self.cuda.runs += 1
        if self.profiler is not None:
            self.profiler.report_layer_time("conv", 10.0 / self.cuda.runs)
            self.profiler.report_layer_time("gemm", 1.0)
        return self.fine


class FakeEngine:
    """Two tensors, the input's first axis dynamic."""

    num_io_tensors = 2

    def __init__(self, context: Any, kind: Any = HALF, *, on_host: str = "") -> None:
        self.context, self.kind, self.on_host = context, kind, on_host

    def create_execution_context(self) -> Any:
        return self.context

    def get_tensor_name(self, index: int) -> str:
        return ("x", "y")[index]

    def get_tensor_mode(self, name: str) -> str:
        return INPUT if name == "x" else OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 4)

    def get_tensor_profile_shape(self, name: str, number: int) -> list[tuple[int, ...]]:
        return [(1, 4), (2, 4), (8, 4)]

    def get_tensor_dtype(self, name: str) -> Any:
        return self.kind

    def get_tensor_location(self, name: str) -> Any:
        return SimpleNamespace(name="HOST" if name == self.on_host else "DEVICE")


class Listener:
    """`trt.IProfiler` and `trt.ILogger`."""

    WARNING = 2


def vendor(engine: Any) -> Any:
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda data: engine)
    mode = SimpleNamespace(INPUT=INPUT, OUTPUT=OUTPUT)
    return SimpleNamespace(ILogger=Listener, IProfiler=Listener, TensorIOMode=mode, Runtime=lambda logger: runtime)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_time, "warm_up", lambda loaded, seconds=0.0, **how: loaded.run(**how))


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    (tmp_path / "m.plan").write_bytes(b"plan")
    return tmp_path / "m.plan"


def opened_by(trt: Any, cuda: FakeCuda, plan: Path, **inputs: Any) -> Any:
    return trt_time.open_engine(trt, cuda, plan, trt_engine.make_logger(trt), **inputs)


def loaded(plan: Path, cuda: FakeCuda, *, kind: Any = HALF, shapes: Any = None, feeds: Any = None) -> Any:
    return opened_by(vendor(FakeEngine(FakeContext(cuda), kind)), cuda, plan, shapes=shapes or {}, feeds=feeds or {})


def test_dynamic_inputs_run_at_the_profiles_optimum(plan: Path) -> None:
    opened = loaded(plan, FakeCuda())
    assert opened.context.shape == (2, 4)
    assert opened.cuda.memory[opened.context.addresses["x"]].dtype == np.float16
    assert opened.cuda.memory[opened.context.addresses["y"]] == 64


def test_feeds_are_cast_to_the_engines_type_and_their_shape_checked(plan: Path) -> None:
    opened = loaded(plan, FakeCuda(), feeds={"x": np.ones((2, 4), np.float32)})
    assert opened.cuda.memory[opened.context.addresses["x"]].tolist() == [[1.0] * 4] * 2
    with pytest.raises(CalibrationError, match=r"input x has shape \(1, 4\), the engine runs at \(2, 4\)"):
        loaded(plan, FakeCuda(), feeds={"x": np.ones((1, 4), np.float32)})


def test_a_shape_outside_the_profile_is_refused(plan: Path) -> None:
    with pytest.raises(BackendError, match="outside its profile"):
        loaded(plan, FakeCuda(), shapes={"x": (9, 4)})


@pytest.mark.parametrize("kind", [HALF, BF16, FP8])
def test_floats_of_every_size_are_random(plan: Path, kind: Any) -> None:
    opened = loaded(plan, FakeCuda(), kind=kind)
    values = opened.cuda.memory[opened.context.addresses["x"]]
    assert values.dtype.itemsize == kind.itemsize
    assert len(set(values.astype(np.float32).ravel().tolist())) > 4


@pytest.mark.parametrize(("kind", "largest"), [(UINT8, 255), (INT64, 1)])
def test_integers_are_image_levels_or_few(plan: Path, kind: Any, largest: int) -> None:
    opened = loaded(plan, FakeCuda(), kind=kind)
    values = opened.cuda.memory[opened.context.addresses["x"]]
    assert values.nbytes == 8 * kind.itemsize
    assert 0 < values.max() <= largest
    assert len(set(values.ravel().tolist())) > (2 if largest > 1 else 1)


@pytest.mark.parametrize("kind", [BF16, FP8])
def test_feeds_of_types_that_npz_files_do_not_know_arrive(plan: Path, tmp_path: Path, kind: Any) -> None:
    types = {"BF16": ml_dtypes.bfloat16, "FP8": ml_dtypes.float8_e4m3fn}
    np.savez(tmp_path / "feeds.npz", x=np.full((2, 4), 1.5, types[kind.name]))
    opened = loaded(plan, FakeCuda(), kind=kind, feeds=dict(np.load(tmp_path / "feeds.npz")))
    assert opened.cuda.memory[opened.context.addresses["x"]].astype(np.float32).tolist() == [[1.5] * 4] * 2


def test_types_that_numpy_lacks_stay_zero(plan: Path) -> None:
    opened = loaded(plan, FakeCuda(), kind=INT4)
    assert opened.cuda.memory[opened.context.addresses["x"]] == 4


def test_outputs_that_are_sizes_lie_on_the_processor(plan: Path) -> None:
    cuda = FakeCuda()
    engine = FakeEngine(FakeContext(cuda), on_host="y")
    opened = opened_by(vendor(engine), cuda, plan, shapes={}, feeds={})
    assert list(opened.addresses) == ["x"]
    assert engine.context.addresses["y"] == opened.host[0].ctypes.data
    with pytest.raises(BackendError, match="takes shapes from the values of input x"):
        opened_by(vendor(FakeEngine(FakeContext(cuda), on_host="x")), cuda, plan, shapes={}, feeds={})


def test_an_engine_that_does_not_load_is_an_error(plan: Path) -> None:
    with pytest.raises(BackendError, match=r"could not load the engine m.plan .*tied to GPU and version"):
        opened_by(vendor(None), FakeCuda(), plan, shapes={}, feeds={})


def test_an_engine_is_filled_anew_and_what_is_not_given_is_as_at_first(plan: Path) -> None:
    opened = loaded(plan, FakeCuda())
    address = opened.addresses["x"]
    first = opened.cuda.memory[address]
    trt_time.fill(opened, {"x": np.ones((2, 4), np.float32)})
    assert opened.cuda.memory[address].tolist() == [[1.0] * 4] * 2
    trt_time.fill(opened, {})
    assert opened.cuda.memory[address].tolist() == first.tolist()


def test_an_engine_is_captured_once(plan: Path) -> None:
    opened = loaded(plan, FakeCuda())
    trt_time.race([opened], seconds=0.0)
    graph = opened.graph = object()
    trt_time.race([opened], seconds=0.0)
    assert opened.graph is graph


@pytest.mark.parametrize("graphs", [True, False])
def test_a_race_gives_every_engine_equally_many_runs(plan: Path, graphs: bool) -> None:
    cuda = FakeCuda(graphs=graphs)
    engines = [loaded(plan, cuda), loaded(plan, cuda)]
    times, rounds = trt_time.race(engines, seconds=0.0)
    assert times == [[1.0] * trt_time.BURST * rounds] * 2
    assert rounds == trt_time.LEAST_ROUNDS
    assert ("CUDA graph" in trt_time.regime(cuda, graphs)) is True
    assert ("no CUDA graph" in trt_time.regime(cuda, graphs)) is not graphs


def test_engines_that_take_long_take_turns_more_often(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_time, "BURST_MS", 3.0)
    cuda = FakeCuda()
    times, rounds = trt_time.race([loaded(plan, cuda), loaded(plan, cuda)], seconds=0.0)
    assert times == [[1.0] * 2 * rounds] * 2


def test_engines_are_replayed_or_enqueued_all_alike(plan: Path) -> None:
    cuda = FakeCuda()
    engines = [loaded(plan, cuda), loaded(plan, cuda)]
    trt_time.race(engines, seconds=0.0)
    assert trt_time.captured(engines)
    assert cuda.replays > 0
    before, engines[1].graph = cuda.replays, None
    trt_time.race(engines, seconds=0.0)
    assert not trt_time.captured(engines)
    assert cuda.replays == before


def test_an_engine_that_cannot_be_captured_is_tried_once(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, tried = FakeCuda(), []
    monkeypatch.setattr(cuda, "capture", lambda stream, work: tried.append(stream))
    opened = loaded(plan, cuda)
    for _ in range(3):
        trt_time.race([opened], seconds=0.0)
    assert tried == ["stream"]


def test_what_tells_that_it_cannot_be_captured_is_not_tried(plan: Path) -> None:
    cuda = FakeCuda()
    opened = loaded(plan, cuda)
    opened.context.is_stream_capturable = lambda handle: handle != 7
    trt_time.race([opened], seconds=0.0)
    assert opened.graph is None
    assert cuda.replays == 0


def test_a_run_that_fails_is_an_error(plan: Path) -> None:
    opened = loaded(plan, FakeCuda())
    opened.context.fine = False
    with pytest.raises(BackendError, match="could not run the engine"):
        opened.run()


def test_layers_are_timed_run_by_run_in_order(plan: Path) -> None:
    names, times = trt_time.time_layers(loaded(plan, FakeCuda()), repetitions=3)
    assert names == ["conv", "gemm"]
    assert times == [[pytest.approx(10.0 / run), 1.0] for run in (3, 4, 5)]


def test_closing_gives_all_memory_back(plan: Path) -> None:
    opened = loaded(plan, FakeCuda())
    trt_time.race([opened], seconds=0.0)
    opened.close()
    assert opened.cuda.memory == {}
    assert opened.cuda.released == [("graph", "stream")]
    assert opened.context is opened.engine is opened.runtime is None
