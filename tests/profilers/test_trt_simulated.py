"""The whole way to TensorRT and back, through the child process, on a GPU that is simulated (`simulated.py`)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

import profilers
from halpc.casting import AtPrecision, runs_here
from halpc.cli import main
from halpc.errors import BackendError
from passes.cast import cast_for_timing
from profilers import trt, trt_child, trt_engine, trt_job, trt_time
from profilers.trt_engine import Settings
from tests.profilers import simulated
from tests.small import model, saved

CHILD = (sys.executable, "-P", "-m", "tests.profilers.simulated")
SHAPE = "1x3x8x8"


def fixed() -> onnx.ModelProto:
    """The residual network at batch 1."""
    found = model()
    for value in (*found.graph.input, *found.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return found


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[trt.TensorRTProfiler]:
    monkeypatch.setenv("HALPC_CACHE", str(tmp_path / "cache"))
    made = trt.TensorRTProfiler()
    made._child = trt_job.Child(CHILD)
    with made:
        yield made


def expected(proto: onnx.ModelProto) -> float:
    return sum(ms for _, ms in simulated.kernels_of(proto))


def test_engines_are_timed_as_graphs(gpu: trt.TensorRTProfiler) -> None:
    assert gpu.device.name == simulated.GPU.name
    half = cast_for_timing(fixed(), "fp16")
    first, second = gpu.compare([fixed(), half], seconds=0.01)
    assert "replayed as a CUDA graph" in first.regime
    assert first.median_ms == pytest.approx(expected(fixed()))
    assert second.median_ms == pytest.approx(expected(half))
    assert len(first.samples_ms) == first.rounds * trt_time.BURST


def test_every_layer_is_traced_to_its_nodes(gpu: trt.TensorRTProfiler) -> None:
    layers = gpu.layers(fixed())
    assert sorted(node for layer in layers for node in layer.nodes) == sorted(n.name for n in fixed().graph.node)
    assert any(layer.name.startswith("__myl") for layer in layers)
    assert sum(layer.time_ms for layer in layers) == pytest.approx(expected(fixed()))


def test_kernels_of_a_bundle_are_each_their_own(gpu: trt.TensorRTProfiler) -> None:
    wide = fixed()
    for tensor in wide.graph.initializer:
        if tensor.name == "w1":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros((24, 64, 3, 3), np.float32), "w1"))
    times = gpu.kernels([fixed(), wide, fixed()])
    assert times.tolist() == pytest.approx([expected(fixed()), expected(wide), expected(fixed())])


def test_engines_of_bundles_and_copies_of_models_do_not_stay_on_the_disk(gpu: trt.TensorRTProfiler) -> None:
    gpu.kernels([fixed(), fixed()])
    gpu.compare([fixed()], seconds=0.01)
    assert gpu._folder is not None
    assert [path.suffix for path in gpu._folder.rglob("*.*") if path.suffix != ".json"] == [".plan"]


def test_engines_that_are_forgotten_leave_the_disk_and_no_others_do(gpu: trt.TensorRTProfiler, tmp_path: Path) -> None:
    given = gpu.build(fixed(), tmp_path / "given.engine").path
    half = AtPrecision(gpu, "fp16")
    gpu.compare([given, fixed()], seconds=0.01)
    half.compare([fixed()], seconds=0.01)
    assert gpu._folder is not None
    assert len(list(gpu._folder.rglob("*.plan"))) == 2
    half.forget([fixed()])
    assert len(list(gpu._folder.rglob("*.plan"))) == 1
    gpu.forget([given, fixed()])
    assert list(gpu._folder.rglob("*")) == []
    assert given.is_file()
    assert len(gpu.compare([fixed(), given], seconds=0.01)) == 2


def test_an_engine_that_fails_takes_no_other_with_it(
    gpu: trt.TensorRTProfiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, names = gpu._child.run, []

    def failing(job: Any, folder: Path, **how: Any) -> Any:
        if job["action"] == "plan":
            names.append(job["name"])
            if names == ["the model first", "the model second"]:
                raise BackendError("tensorrt did not finish in 3600 s.")
        return run(job, folder, **how)

    monkeypatch.setattr(gpu, "_child", SimpleNamespace(run=failing, close=gpu._child.close))
    models = [fixed(), fixed()]
    for proto, name in zip(models, ("first", "second"), strict=True):
        proto.graph.name = name
    with pytest.raises(BackendError, match="did not finish"):
        gpu.compare(models, seconds=0.01)
    assert len(gpu.compare(models, seconds=0.01)) == 2
    assert names == ["the model first", "the model second", "the model second"]


def test_an_engine_is_written_with_its_layers_and_its_precision(gpu: trt.TensorRTProfiler, tmp_path: Path) -> None:
    gpu.settings = Settings(precision="fp16")
    half = cast_for_timing(fixed(), "fp16")
    built = gpu.build(half, tmp_path / "model.engine")
    assert dict(built.precisions) == {"fp16": len(list(simulated.kernels_of(half)))}
    assert built.information is not None
    assert json.loads(built.information.read_text())["Layers"]
    assert list((tmp_path / "cache").glob("tensorrt-11.4*.timing"))


def test_nothing_is_left_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = simulated.Runtime()
    for name in ("probe", "open_cuda"):
        monkeypatch.setattr(trt_child, name, getattr(trt_child, name))
    monkeypatch.setattr(trt_engine, "load", trt_engine.load)
    monkeypatch.setattr(trt_time, "WARM_UP_SECONDS", 0.0)
    simulated.install(cuda)
    worker = trt_child.Worker()

    def do(action: str, **job: Any) -> Any:
        full = {"action": action, "backend": "tensorrt", "needs_gpu": True, **job}
        (tmp_path / "job.json").write_text(json.dumps(full))
        worker.do(tmp_path)
        result = json.loads((tmp_path / "result.json").read_text())
        assert "error" not in result
        return result

    plans = [tmp_path / f"{number}.plan" for number in range(6)]
    for plan in plans:
        plan.write_bytes(fixed().SerializeToString())
        do("layers", plan=str(plan), name="m", repetitions=3)
        do("compare", plans=[str(plans[0]), str(plan)], seconds=0.0)
    assert [cuda.of(kind) for kind in ("memory", "stream", "exec")] == [2 * 2, 2, 2]
    assert [cuda.of(kind) for kind in ("event", "graph")] == [0, 0]


def test_a_precision_that_no_layer_has_is_refused_before_anything_is_measured(gpu: trt.TensorRTProfiler) -> None:
    runs_here(gpu, Path("m.onnx"), fixed())
    half = cast_for_timing(fixed(), "fp16")
    gpu.check(half, "fp16")
    with pytest.raises(BackendError, match="the engine was to be fp8, but none of its computing layers is"):
        gpu.check(half, "fp8")


def compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: Path, precision: str, *more: str, code: int = 0
) -> dict[str, Any]:
    """The report of a compile to 70 % into `out`."""
    monkeypatch.setenv("HALPC_CACHE", str(tmp_path / "cache"))

    def made(backend: str, asked: str, options: dict[str, Any]) -> trt.TensorRTProfiler:
        profiler = trt.TensorRTProfiler(backend, Settings(precision=asked))
        profiler._child = trt_job.Child(CHILD)
        return profiler

    monkeypatch.setattr(profilers, "_tensorrt", made)
    asked = ["--latency", "70%", "--profiler", "tensorrt", "--precision", precision, "--shape", f"x:{SHAPE}"]
    assert main(["compile", str(network), *asked, *more, "-o", str(tmp_path / "out"), "-q"]) == code
    report: dict[str, Any] = json.loads((tmp_path / "out" / "report.json").read_text())
    return report


@pytest.mark.slow
def test_a_model_that_came_as_float16_gets_an_engine_without_being_asked_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(cast_for_timing(model(), "fp16"), tmp_path / "half.onnx")
    report = compiled(tmp_path, monkeypatch, tmp_path / "half.onnx", "fp32")
    assert report["engine"]["precisions"].keys() == {"fp16"}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_model_is_compiled_to_its_latency_and_its_engine_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    out, network = tmp_path / "out", saved(tmp_path)
    report = compiled(tmp_path, monkeypatch, network, precision)
    assert report["status"] == "met"
    assert "CUDA graph" in str(report["profiler"])
    assert report["device"]["backend"] == "tensorrt"
    assert report["engine"]["precisions"].keys() == {precision}
    assert report["engine"]["latency_ms"] == report["result"]["latency_ms"]
    assert any(f"is the engine that was measured, and takes x:{SHAPE} only" in note for note in report["notes"])
    assert any("the engine runs only on A simulated GPU" in note for note in report["notes"])
    assert {"model.engine", "model.layers.json", "pruned.onnx"} <= {path.name for path in out.iterdir()}
    engine = onnx.load_from_string((out / "model.engine").read_bytes())
    whole = onnx.load(network)
    assert expected(engine) <= 0.7 * expected(cast_for_timing(whole, precision))


@pytest.mark.slow
def test_what_is_written_is_what_was_measured_or_is_measured_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first engines that are built to be written take half as long again, by chance."""
    builds: list[Path] = []
    slower: list[str] = []
    build = trt.TensorRTProfiler._build

    def unlucky(self: Any, model: Any, folder: Path, *rest: Any, **how: Any) -> Any:
        made = build(self, model, folder, *rest, **how)
        if how["inspect"]:
            builds.append(folder)
            engine = onnx.load_from_string((folder / "model.plan").read_bytes())
            known = {entry.key: entry.value for entry in engine.metadata_props}
            onnx.helper.set_model_props(engine, {**known, "slower": slower.pop() if slower else "1"})
            (folder / "model.plan").write_bytes(engine.SerializeToString())
        return made

    monkeypatch.setattr(trt.TensorRTProfiler, "_build", unlucky)
    network, a_range = saved(tmp_path), ("--min-shapes", f"x:{SHAPE}", "--max-shapes", "x:4x3x8x8")
    for slow, more, code, built in ((9, (), 0, 0), (1, a_range, 0, 2), (2, a_range, 7, 2)):
        builds.clear()
        slower[:] = ["1.5"] * slow
        report = compiled(tmp_path, monkeypatch, network, "fp32", *more, code=code)
        limit_ms = report["budget"]["latency"]["limit"]
        assert len(builds) == built
        assert report["status"] == ("over budget" if code else "met")
        assert report["result"]["latency_ms"] <= limit_ms
        assert (tmp_path / "out" / "model.engine").is_file()
        over = report["engine"]["latency_ms"] > limit_ms
        assert over == bool(code) == ("model.engine: measured" in capsys.readouterr().err)
