"""onnxruntime on a GPU, with a driver that only says so: what is asked of onnxruntime, and what is made of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest

from halpc.errors import BackendError
from halpc.ir.latency import Device
from profilers import onnxrt, ort_device
from profilers.cuda import Gpu
from profilers.onnxrt import OnnxRuntimeProfiler

H100 = Gpu("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "9.0", "13.0", 1, 10 << 30)


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: list(onnxrt.PROVIDERS.values()))
    monkeypatch.setattr("onnxruntime.preload_dlls", lambda: print("Failed to load libcufft.so.12"), raising=False)
    monkeypatch.setattr(ort_device, "probe", lambda who: H100)
    monkeypatch.setattr(ort_device, "driver_version", lambda: "580.95.05")
    monkeypatch.delenv(ort_device.TF32_SWITCH, raising=False)


def relu(shape: str = "1,4", kind: str = "float") -> onnx.ModelProto:
    return onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["": 17]> g ({kind}[{shape}] x) => ({kind}[{shape}] y) {{ y = Relu (x) }}
    """)


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> OnnxRuntimeProfiler:
    """A CUDA provider whose profiler sees no kernels, as in every released build; it computes on the CPU."""
    made = OnnxRuntimeProfiler()
    made._device = Device("cuda", "a GPU", "onnxruntime", "1.31", "cuda", details={"optimisation": "all"})
    bind = onnxruntime.IOBinding.bind_output
    monkeypatch.setattr("onnxruntime.IOBinding.bind_output", lambda self, name, *place: bind(self, name))
    on_device = ort_device.on_device
    monkeypatch.setattr(ort_device, "on_device", lambda values, on_gpu: on_device(values, False))
    monkeypatch.setattr(ort_device, "refuse_the_processor", lambda session, provider: None)
    return made


def test_libraries_that_pip_installed_are_loaded_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    called: list[str] = []
    ort_device._load_libraries(SimpleNamespace(preload_dlls=lambda: called.append("all")), "CUDAExecutionProvider")
    OnnxRuntimeProfiler(provider="cuda")
    ort_device._load_libraries(SimpleNamespace(), "CUDAExecutionProvider")  # before 1.21
    assert called == ["all"]
    assert capsys.readouterr().out == ""


def test_the_gpu_is_the_first_that_the_driver_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    device = OnnxRuntimeProfiler(provider="cuda").device
    assert (device.kind, device.name) == ("cuda", H100.name)
    assert device.details["driver"] == "580.95.05"
    assert device.details["compute_capability"] == "9.0"


def test_a_driver_without_nvidia_smi_tells_its_version_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\nGCC version: 13.3.0\n"
    )
    assert ort_device.driver_version(tmp_path / "version") == "580.95.05"
    assert ort_device.driver_version(tmp_path / "none") == "unknown"


def test_what_a_provider_cannot_run_goes_to_the_next_best_and_never_silently_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def session(source: bytes, options: Any, **others: Any) -> Any:
        asked.append(others)
        return SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])

    monkeypatch.setattr("onnxruntime.InferenceSession", session)
    cuda = ("CUDAExecutionProvider", {"use_tf32": "1"})
    for provider, first in (("cuda", []), ("tensorrt", ["TensorrtExecutionProvider"])):
        with pytest.raises(BackendError, match="fell back to CPUExecutionProvider"):
            OnnxRuntimeProfiler(provider=provider, precision="tf32").session(relu())
        assert asked[-1] == {"providers": [*first, cuda, "CPUExecutionProvider"], "enable_fallback": 0}


@pytest.mark.parametrize(("precision", "weights", "as_file", "allowed"), [
    ("fp32", onnx.TensorProto.FLOAT, False, "0"), ("fp32", onnx.TensorProto.FLOAT16, False, "1"),
    ("fp32", onnx.TensorProto.BFLOAT16, True, "1"), ("fp32", onnx.TensorProto.FLOAT, True, "0"),
    ("fp16", onnx.TensorProto.FLOAT16, False, "1"), ("int8", onnx.TensorProto.FLOAT, False, "1"),
])  # fmt: skip
def test_tensor_cores_are_kept_from_float32_alone(
    precision: str, weights: int, as_file: bool, allowed: str, tmp_path: Path
) -> None:
    """Without `use_tf32` onnxruntime takes them from convolutions of every type."""
    model = relu()
    model.graph.initializer.append(onnx.helper.make_tensor("w", weights, (1, 1), [1.0]))
    onnx.save(model, tmp_path / "model.onnx")
    found = OnnxRuntimeProfiler(provider="cuda", precision=precision)._providers(
        tmp_path / "model.onnx" if as_file else model
    )
    assert found[0] == ("CUDAExecutionProvider", {"use_tf32": allowed})


def test_tf32_that_the_environment_turns_off_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ort_device.TF32_SWITCH, "0")
    with pytest.raises(BackendError, match=r"NVIDIA_TF32_OVERRIDE=0 is in the environment.*--precision fp32"):
        OnnxRuntimeProfiler(provider="cuda", precision="tf32")


def test_fp32_is_not_measured_as_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"NVIDIA_TF32_OVERRIDE=0 is in the environment.*--precision tf32"):
        OnnxRuntimeProfiler(provider="tensorrt", precision="fp32")
    monkeypatch.setenv(ort_device.TF32_SWITCH, "0")
    assert OnnxRuntimeProfiler(provider="tensorrt", precision="fp32").device.precision == "fp32"


def test_where_no_kernel_is_seen_no_model_is_profiled_for_its_layers(
    blind: OnnxRuntimeProfiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    session = blind.session
    monkeypatch.setattr(
        blind, "session", lambda model, **others: runs.append(model.ByteSize()) or session(model, **others)
    )
    big = relu("64,1024")
    for _ in range(3):
        with pytest.raises(BackendError, match=r"without CUDA kernel profiling.*--profiler tensorrt"):
            blind.layers(big)
    assert runs == [onnxrt._empty_model().ByteSize()]


def test_where_no_kernel_is_seen_the_wall_clock_tells(blind: OnnxRuntimeProfiler) -> None:
    small, large = blind.kernels([relu("1,4"), relu("64,65536")], repetitions=3)
    assert 0 < small < large


def convolution() -> onnxruntime.InferenceSession:
    """On the CPU, and telling so."""
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 17]> g (float[1,4,8,8] x, float[2,4,1,1] w) => (float[1,2,8,8] y)
        { c = Conv (x, w) y = Relu (c) }
    """)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(ort_device.TELL_PLACES, "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def test_work_on_the_processor_is_not_measured_as_the_gpus(caplog: pytest.LogCaptureFixture) -> None:
    session = convolution()
    if not hasattr(session, "get_provider_graph_assignment_info"):
        pytest.skip("this onnxruntime does not tell")
    with pytest.raises(BackendError, match=r"runs Conv on the processor.*\[cuda,cudnn\]"):
        ort_device.refuse_the_processor(session, "CUDAExecutionProvider")
    node = SimpleNamespace(op_type="Conv")
    places = [("CUDAExecutionProvider", [node] * 3), ("CPUExecutionProvider", [node, SimpleNamespace(op_type="Shape")])]
    told = [SimpleNamespace(ep_name=name, get_nodes=lambda nodes=nodes: nodes) for name, nodes in places]
    ort_device.refuse_the_processor(
        SimpleNamespace(get_provider_graph_assignment_info=lambda: told), "CUDAExecutionProvider"
    )
    assert "1 of 4 heavy nodes on the processor: Conv" in caplog.text
    ort_device.refuse_the_processor(SimpleNamespace(), "CUDAExecutionProvider")


def test_bfloat16_reaches_a_session() -> None:
    values = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 17]> g (bfloat16[2,3] x) => (float[2,3] y) { y = Cast <to = 1> (x) }
    """)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", ort_device.on_device(values, False))
    binding.bind_output("y")
    session.run_with_iobinding(binding)
    assert binding.copy_outputs_to_cpu()[0].tolist() == [[0, 1, 2], [3, 4, 5]]
