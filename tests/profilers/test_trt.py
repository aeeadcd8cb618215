"""TensorRT: what is missing is said, times are attributed, RTX plans are built without a GPU."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from halpc.errors import BackendError, ModelError, UsageError
from passes.cast import cast_for_timing
from passes.load import load
from passes.proto import static_proto
from profilers import trt, trt_engine
from profilers.cuda import TF32_SWITCH
from profilers.trt_engine import Profile, Settings


def network(batch: str = "1") -> onnx.ModelProto:
    """Two convolutions with a shortcut, a pool and a classifier."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : 17]>
        residual (float[{batch},16,14,14] x) => (float[{batch},10] y) {{
            c = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
            r = Relu (c)
            d = Conv <pads = [1, 1, 1, 1]> (r, w2)
            s = Add (d, r)
            p = GlobalAveragePool (s)
            f = Flatten (p)
            y = Gemm <transB = 1> (f, wf, bf)
        }}
    """)
    rng = np.random.default_rng(0)
    shapes = {"w1": (32, 16, 3, 3), "b1": (32,), "w2": (32, 32, 3, 3), "wf": (10, 32), "bf": (10,)}
    for name, shape in shapes.items():
        values = (rng.normal(size=shape) * 0.1).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def has_gpu() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


no_gpu = pytest.mark.skipif(has_gpu(), reason="this machine has an NVIDIA driver")


@pytest.fixture
def rtx() -> Iterator[trt.TensorRTProfiler]:
    pytest.importorskip("tensorrt_rtx")
    if has_gpu():
        pytest.skip("with a driver plans are loaded as well, which TensorRT-RTX does on few GPUs")
    with trt.TensorRTProfiler("tensorrt_rtx") as profiler:
        yield profiler


def test_an_unknown_flavour_is_refused() -> None:
    with pytest.raises(UsageError, match="tensorrt or tensorrt_rtx"):
        trt.TensorRTProfiler("tensorflow")


@no_gpu
@pytest.mark.parametrize("backend", trt.BACKENDS)
def test_without_a_driver_measuring_says_so_before_tensorrt_is_touched(backend: str) -> None:
    profiler = trt.TensorRTProfiler(backend)
    with pytest.raises(BackendError, match=rf"{backend}: no NVIDIA driver on this machine"):
        _ = profiler.device
    with pytest.raises(BackendError, match=rf"{backend}: no NVIDIA driver on this machine"):
        profiler.compare([Path("some.engine")] if backend == "tensorrt_rtx" else [network()])


@no_gpu
def test_tensorrt_does_not_build_without_a_driver(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="tensorrt: no NVIDIA driver"):
        trt.TensorRTProfiler().build(network(), tmp_path / "model.engine")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("precision", "capability", "fine"), [
    ("tf32", "7.5", False), ("tf32", "8.0", True), ("fp8", "8.6", False), ("fp8", "8.9", True), ("fp8", "12.0", True),
    ("fp16", "7.5", True),
])  # fmt: skip
def test_a_precision_that_the_gpu_lacks_is_refused_by_name(precision: str, capability: str, fine: bool) -> None:
    profiler = trt.TensorRTProfiler(settings=Settings(precision=precision))
    profiler._facts = {"gpu": {"name": "a GPU", "capability": capability, "cuda": "13.0"}, "version": "11.4.0"}
    if fine:
        assert profiler.device.precision == precision
    else:
        with pytest.raises(BackendError, match=rf"--precision {precision} needs .* a GPU has {capability}"):
            _ = profiler.device


def test_tf32_that_the_environment_turns_off_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TF32_SWITCH, "0")
    profiler = trt.TensorRTProfiler(settings=Settings(precision="tf32"))
    profiler._facts = {"gpu": {"name": "a GPU", "capability": "9.0", "cuda": "13.0"}, "version": "11.4.0"}
    with pytest.raises(BackendError, match="NVIDIA_TF32_OVERRIDE=0 is in the environment"):
        _ = profiler.device


def importing(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    def importer(name: str) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(importlib, "import_module", importer)


def test_a_missing_package_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    importing(monkeypatch, ModuleNotFoundError("No module named 'tensorrt'"))
    with pytest.raises(BackendError, match=r"tensorrt is not installed.*pip install tensorrt"):
        trt_engine.load("tensorrt")


def test_bindings_that_were_unpacked_without_the_module_above_them_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def importer(name: str) -> Any:
        if name != "tensorrt_bindings":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return SimpleNamespace(__version__="11.4.0.106")

    monkeypatch.setattr(importlib, "import_module", importer)
    assert trt_engine.load("tensorrt").__version__ == "11.4.0.106"


def test_bindings_without_libraries_name_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    importing(monkeypatch, ImportError("libnvonnxparser.so.11: cannot open shared object file"))
    with pytest.raises(BackendError, match=r"library libnvonnxparser.so.11 is missing.*LD_LIBRARY_PATH"):
        trt_engine.load("tensorrt")


@pytest.mark.parametrize(("version", "fine"), [("8.6.1", False), ("10.16.1", True), ("11.4.0", True), ("12.0", False)])
def test_only_known_versions_are_worked_with(monkeypatch: pytest.MonkeyPatch, version: str, fine: bool) -> None:
    module = type("module", (), {"__version__": version})
    importing(monkeypatch, module)
    if fine:
        assert trt_engine.load("tensorrt") is module
    else:
        with pytest.raises(BackendError, match=r"10.x and 11.x"):
            trt_engine.load("tensorrt")


@pytest.mark.parametrize("answer", [None, False])
def test_a_null_answer_becomes_an_error_with_the_loggers_text(answer: object) -> None:
    with pytest.raises(BackendError, match="could not build an engine: first; second"):
        trt_engine.present(answer, "build an engine", ["first", "second "])


class NullBuilder:
    """A TensorRT whose factories fail as pybind11's do on a null pointer."""

    class ILogger:
        WARNING = 2

    def Builder(self, logger: object) -> object:  # noqa: N802
        raise TypeError("pybind11::init(): factory function returned nullptr")


def test_a_null_factory_becomes_an_error() -> None:
    vendor = NullBuilder()
    with pytest.raises(BackendError, match=r"could not be opened.*nullptr"):
        trt_engine.open_builder(vendor, trt_engine.make_logger(vendor))


def test_kernel_time_is_the_median_sum_of_a_models_own_layers() -> None:
    names = ["reformat v0:conv", "v0:conv + v0:relu", "v1:conv", "v0:halpc_aside_pad", "v0:add"]
    times = np.array([[9.0, 2.0, 1.0, 9.0, 2.0], [9.0, 1.0, 4.0, 9.0, 2.5], [9.0, 2.0, 7.0, 9.0, 3.0]])
    layers = [{"Name": "reformat v0:conv", "LayerType": "Reformat"}]
    assert trt.attribute(names, times, layers, 2).tolist() == [4.0, 4.0]


def test_generated_kernels_belong_to_the_model_whose_nodes_are_in_them() -> None:
    names = ["__myl_Conv_myl0_0", "__myl_ConvRelu_myl1_0", "__myl_Pad_myl0_1", "__myl_Both_myl2_0"]
    nodes = [["v0:conv"], ["v1:conv", "v1:relu"], ["v0:halpc_aside_pad"], ["v2:a", "v3:b"]]
    metadata = ["\x1f".join(f"[ONNX Layer: {node}]" for node in each) for each in nodes]
    layers = [{"Name": name, "Metadata": text} for name, text in zip(names, metadata, strict=True)]
    found = trt.attribute(names, np.array([[1.0, 2.0, 9.0, 9.0]]), layers, 4)
    assert found[:2].tolist() == [1.0, 2.0]
    assert np.isnan(found[2:]).all()


def test_a_model_that_is_alone_has_all_layers_whatever_they_are_called() -> None:
    layers = [{"Name": "Reformatting CopyNode for Input Tensor 0", "LayerType": "Reformat"}, {"Name": "__myl_0"}]
    names = [str(layer["Name"]) for layer in layers]
    assert trt.attribute(names, np.array([[5.0, 1.0]]), layers, 1).tolist() == [1.0]


def test_a_model_of_copies_is_timed_by_them_alone_and_takes_no_time_where_nothing_runs() -> None:
    layers = [{"Name": "v0:x copy", "LayerType": "Reformat"}, {"Name": "v1:conv"}]
    found = trt.attribute([str(layer["Name"]) for layer in layers], np.array([[5.0, 1.0]]), layers, 2)
    assert np.isnan(found[0])
    assert trt.attribute(["v0:x copy"], np.array([[5.0]]), layers, 1).tolist() == [5.0]
    assert trt.attribute(["v0:halpc_aside_pad"], np.array([[5.0]]), layers, 1).tolist() == [0.0]


def test_models_whose_layers_were_merged_have_no_time_of_their_own() -> None:
    found = trt.attribute(["{ForeignNode[v0:a...v1:b]}", "v1:c", "v2:c"], np.ones((3, 3)), [], 3)
    assert np.isnan(found).tolist() == [True, True, False]


def test_merged_models_are_timed_again_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []

    def times(self: object, models: list[object], repetitions: int) -> np.ndarray[Any, Any]:
        rounds.append(len(models))
        return np.array([1.0, np.nan, 3.0]) if len(models) == 3 else np.array([2.0])

    monkeypatch.setattr(trt.TensorRTProfiler, "_bundle_times", times)
    found = trt.TensorRTProfiler().kernels([network()] * 3)
    assert found.tolist() == [1.0, 2.0, 3.0]
    assert rounds == [3, 1]


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "int8", "fp8"])
def test_rtx_builds_a_plan_of_every_precision_without_a_gpu(
    rtx: trt.TensorRTProfiler, tmp_path: Path, precision: str
) -> None:
    rtx.settings = Settings(precision=precision)
    path = tmp_path / "model.engine"
    built = rtx.build(cast_for_timing(network(), precision), path)
    assert path.stat().st_size == built.size_bytes > 10_000
    assert built.backend == "tensorrt_rtx"
    assert "no TensorRT engine" in " ".join(built.notes)
    assert not [leftover for leftover in tmp_path.iterdir() if leftover not in (path, built.information)]


@no_gpu
def test_a_plan_made_without_a_gpu_claims_no_precision(rtx: trt.TensorRTProfiler, tmp_path: Path) -> None:
    built = rtx.build(network(), tmp_path / "model.engine")
    assert (built.gpu, built.information, dict(built.precisions)) == (None, None, {})
    assert any("do not tell" in note for note in built.notes)


def test_an_engine_that_fails_to_build_names_the_node(rtx: trt.TensorRTProfiler, tmp_path: Path) -> None:
    model = network()
    model.graph.node[1].op_type = "NoSuchOperator"
    model.graph.node[1].name = "the_culprit"
    with pytest.raises(ModelError, match=r"(?s)cannot parse the model residual.*the_culprit.*NoSuchOperator"):
        rtx.build(model, tmp_path / "model.engine")
    assert not list(tmp_path.iterdir())


def test_a_network_that_cannot_be_built_is_a_backend_error(rtx: trt.TensorRTProfiler, tmp_path: Path) -> None:
    rtx.settings = Settings(workspace_bytes=0)
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["" : 17]>
        g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }
    """)
    with pytest.raises((BackendError, ModelError), match=r"dynamic inputs|could not build"):
        rtx.build(model, tmp_path / "model.engine")


def test_the_operator_check_gives_reasons_or_nothing(rtx: trt.TensorRTProfiler) -> None:
    assert rtx.unsupported(network()) == ()
    model = network()
    model.graph.node[1].op_type = "NoSuchOperator"
    assert any("NoSuchOperator" in reason for reason in rtx.unsupported(model))


def test_dynamic_inputs_need_shapes_and_take_them(rtx: trt.TensorRTProfiler, tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    with pytest.raises(ModelError, match=r"dynamic inputs of the model are \['x'\].*--opt-shapes"):
        rtx.build(network("N"), path)
    shape = (16, 14, 14)
    built = rtx.build(network("N"), path, shapes={"x": Profile((1, *shape), (4, *shape), (8, *shape))})
    assert built.size_bytes > 0


def test_shapes_for_an_input_that_is_not_there_are_refused(rtx: trt.TensorRTProfiler, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"shapes were given for \['z'\]"):
        rtx.build(network(), tmp_path / "m.engine", shapes={"z": Profile((1,), (1,), (1,))})


def test_rtx_reads_models_from_files_too(rtx: trt.TensorRTProfiler, tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "net.onnx")
    assert rtx.build(tmp_path / "net.onnx", tmp_path / "net.plan").size_bytes > 0
    assert {path.name for path in tmp_path.iterdir()} >= {"net.onnx", "net.plan"}


@no_gpu
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2", "resnet56"])
def test_rtx_builds_the_shipped_models(rtx: trt.TensorRTProfiler, tmp_path: Path, name: str, precision: str) -> None:
    model = load(Path(__file__).parents[2] / "models" / f"{name}.onnx")
    rtx.settings = Settings(precision=precision)
    fixed = static_proto(model.graph, model.shapes, model.header)
    built = rtx.build(cast_for_timing(fixed, precision), tmp_path / "model.engine")
    assert built.size_bytes == (tmp_path / "model.engine").stat().st_size > 0
