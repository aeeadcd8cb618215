"""What the child process keeps from job to job, with a TensorRT and a CUDA that only keep account."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from profilers import trt_child, trt_engine, trt_time
from tests.profilers.test_trt_time import FakeContext, FakeCuda, FakeEngine, vendor


class Bench:
    """A worker whose engines are fakes, and an account of what it loads."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.cuda, self.loads = folder, FakeCuda(), 0
        self.registered: list[str] = []
        self.at_load: list[int] = []  # what is on the device when an engine is loaded
        made = vendor(None)
        made.Runtime = self._runtime
        made.init_libnvinfer_plugins = lambda logger, namespace: self.registered.append(namespace) or True
        monkeypatch.setattr(trt_child, "probe", lambda who: None)
        monkeypatch.setattr(trt_child, "open_cuda", lambda who: self.cuda)
        monkeypatch.setattr(trt_engine, "load", lambda backend: made)
        monkeypatch.setattr(trt_time, "warm_up", lambda loaded, seconds=0.0, **how: loaded.run(**how))
        self.worker = trt_child.Worker()

    def _runtime(self, logger: Any) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=self._engine)

    def _engine(self, data: bytes) -> FakeEngine:
        self.loads += 1
        self.at_load.append(len(self.cuda.memory))
        return FakeEngine(FakeContext(self.cuda))

    def plan(self, name: str, content: bytes = b"plan") -> str:
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)

    def compare(self, *plans: str, feeds: str = "") -> dict[str, Any]:
        return self.do("compare", plans=plans, seconds=0.0, feeds=feeds)

    def do(self, action: str, **job: Any) -> dict[str, Any]:
        full = {"action": action, "backend": "tensorrt", "needs_gpu": True, **job}
        (self.folder / "job.json").write_text(json.dumps(full))
        self.worker.do(self.folder)
        result: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return result


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_the_baseline_is_loaded_once_for_all_rounds(bench: Bench) -> None:
    baseline = bench.plan("baseline.plan")
    for number in range(12):
        found = bench.compare(baseline, bench.plan(f"choice{number}.plan"))
        assert found["times_ms"] == [[1.0] * trt_time.BURST * found["rounds"]] * 2
    assert bench.loads == 1 + 12
    assert bench.registered == [""]  # plugins: all of TensorRT's own, once


def test_engines_that_are_not_compared_any_more_go_before_others_are_loaded(bench: Bench) -> None:
    many = [bench.plan(f"{number}.plan") for number in range(8)]
    assert len(bench.compare(*many)["times_ms"]) == len(many)
    assert len(bench.cuda.memory) == 2 * len(many)
    bench.compare(*many[-2:])
    assert len(bench.cuda.memory) == 2 * 2
    assert bench.loads == len(many)
    bench.compare(bench.plan("8.plan"), bench.plan("9.plan"))
    assert bench.at_load[-2:] == [0, 2]


def test_a_plan_file_that_was_written_anew_is_loaded_anew(bench: Bench) -> None:
    bench.compare(bench.plan("a.plan"))
    bench.compare(bench.plan("a.plan", b"another"))
    assert bench.at_load == [0, 0]


def test_an_engine_is_built_and_its_layers_timed_with_nothing_else_on_the_device(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []

    def build(*given: Any) -> bytes:
        left.append(len(bench.cuda.memory))
        return b"plan"

    for name in ("open_builder", "parse", "configure"):
        monkeypatch.setattr(trt_engine, name, lambda *given: SimpleNamespace(said=[]))
    monkeypatch.setattr(trt_engine, "build", build)
    monkeypatch.setattr(trt_time, "time_layers", lambda loaded, runs: left.append(len(bench.cuda.memory)) or ([], []))
    monkeypatch.setattr(trt_engine, "information", lambda *given: "")
    files = {name: str(bench.folder / f"new.{name}") for name in ("plan", "information")}
    bench.compare(bench.plan("a.plan"), bench.plan("b.plan"))
    bench.do("plan", model="m.onnx", name="m", settings={}, shapes={}, inspect=False, **files)
    bench.compare(bench.plan("a.plan"), bench.plan("b.plan"))
    bench.do("layers", plan=files["plan"], name="m", repetitions=3)
    assert left == [0, 2]


def test_an_engine_that_stayed_takes_the_new_inputs(bench: Bench) -> None:
    np.savez(bench.folder / "feeds.npz", x=np.ones((2, 4), np.float32))
    bench.compare(bench.plan("a.plan"))
    bench.compare(str(bench.folder / "a.plan"), feeds=str(bench.folder / "feeds.npz"))
    assert [held.tolist() for held in bench.cuda.memory.values() if not isinstance(held, int)] == [[[1.0] * 4] * 2]
    assert bench.loads == 1


def test_inputs_that_nobody_gives_are_made_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(bench.folder / "feeds.npz", x=np.ones((2, 4), np.float32))
    bench.compare(bench.plan("a.plan"))
    (address,) = (key for key, held in bench.cuda.memory.items() if not isinstance(held, int))
    first = bench.cuda.memory[address]
    bench.compare(str(bench.folder / "a.plan"))
    assert bench.cuda.memory[address] is first
    bench.compare(str(bench.folder / "a.plan"), feeds=str(bench.folder / "feeds.npz"))
    bench.compare(str(bench.folder / "a.plan"))
    assert bench.cuda.memory[address].tolist() == first.tolist()


def test_an_error_travels_with_its_class(bench: Bench) -> None:
    np.savez(bench.folder / "feeds.npz", x=np.ones((3, 4), np.float32))
    found = bench.compare(bench.plan("a.plan"), feeds=str(bench.folder / "feeds.npz"))
    assert found["error"] == "CalibrationError"
    assert "input x has shape (3, 4)" in found["message"]
