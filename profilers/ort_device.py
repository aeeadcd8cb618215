"""Which onnxruntime there is, on which processor or GPU, and how arrays get there."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray

from halpc.errors import BackendError
from halpc.ir.latency import Device
from halpc.ir.profiler import Model
from profilers.cuda import TF32_SWITCH, Gpu, probe, refuse_tf32_switched_off

log = logging.getLogger(__name__)

_INSTALL: Final = {
    "CPUExecutionProvider": "pip install onnxruntime",
    "CUDAExecutionProvider": "in its place, with an NVIDIA driver: pip install 'onnxruntime-gpu[cuda,cudnn]'",
    "TensorrtExecutionProvider": "pip install onnxruntime-gpu and the TensorRT libraries that it wants",
}
TELL_PLACES: Final = "session.record_ep_graph_assignment_info"
_WEIGHTED: Final = ("Conv", "Gemm", "MatMul")
_VECTOR_UNITS: Final = ("amx_int8", "avx512f", "avx2", "avx", "sve", "asimd")


def import_onnxruntime(provider: str) -> Any:
    """The onnxruntime module, if it has `provider`.

    Raises:
        BackendError: it is not installed, does not load, or lacks the provider.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(f"onnxruntime cannot be imported ({error}): pip install onnxruntime") from error
    offered = onnxruntime.get_available_providers()
    if provider not in offered:
        mend = _INSTALL.get(provider, "choose one of those")
        raise BackendError(
            f"this onnxruntime {onnxruntime.__version__} has no {provider}, only {', '.join(offered)}: {mend}"
        )
    if provider != "CPUExecutionProvider":
        _load_libraries(onnxruntime, provider)
    return onnxruntime


def _load_libraries(ort: Any, provider: str) -> None:
    """Libraries that pip installed where no loader looks: CUDA and cuDNN, and TensorRT for its provider.

    What is missing shows when a session is made. Source: onnxruntime, `preload_dlls` (1.21 and later).
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(OSError, RuntimeError):
        getattr(ort, "preload_dlls", lambda: None)()
    for line in said.getvalue().splitlines():
        log.debug("onnxruntime: %s", line)
    if provider == "TensorrtExecutionProvider":
        with contextlib.suppress(ImportError, OSError):
            importlib.import_module("tensorrt")


def describe(ort: Any, provider: str, threads: int, precision: str, optimisation: str) -> Device:
    """The device that sessions will run on."""
    details = {"optimisation": optimisation, "caches": "warm", "system": f"{platform.system()} {platform.machine()}"}
    if provider == "cpu":
        name, vectors = processor()
        details["vectors"] = vectors
        return Device("cpu", name, "onnxruntime", ort.__version__, provider, precision, threads, details)
    found = probe(f"onnxruntime's {provider} provider")
    details |= {"driver": driver_version(), "compute_capability": found.capability}
    _refuse_another_tf32(provider, precision, found)
    return Device("cuda", found.name, "onnxruntime", ort.__version__, provider, precision, threads, details)


def in_sixteen_bits(model: Model) -> bool:
    """Whether a model's weights are float16 or bfloat16."""
    proto = model if isinstance(model, onnx.ModelProto) else onnx.load(str(model), load_external_data=False)
    kinds = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return any(weight.data_type in kinds and len(weight.dims) > 1 for weight in proto.graph.initializer)


def _refuse_another_tf32(provider: str, precision: str, found: Gpu) -> None:
    """onnxruntime's TensorRT provider has no switch for TF32, which is on; only the environment turns it off.

    Raises:
        BackendError: fp32 was asked for, and would be measured as tf32; or the other way round.
    """
    refuse_tf32_switched_off(precision)
    tensor_cores = tuple(map(int, found.capability.split("."))) >= (8, 0)
    if provider == "tensorrt" and precision == "fp32" and tensor_cores and os.environ.get(TF32_SWITCH) != "0":
        raise BackendError(
            f"onnxruntime's tensorrt provider computes float32 in TF32 unless {TF32_SWITCH}=0 is in the environment:"
            " set it, or choose --precision tf32"
        )


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, str]:
    """The processor's name and its widest vector unit."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name") or facts.get("Model") or platform.processor() or platform.machine()
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return " ".join(name.split()), next((unit for unit in _VECTOR_UNITS if unit in flags), "unknown")


def cores() -> int:
    """How many processor cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def driver_version(module: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The NVIDIA driver's version, as nvidia-smi says it, or the kernel's module where there is no nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split()
        if answer:
            return answer[0]
    with contextlib.suppress(OSError):
        for word in module.read_text(encoding="utf-8", errors="replace").split():
            if word[0].isdigit() and "." in word:
                return word
    return "unknown"


def refuse_the_processor(session: Any, provider: str) -> None:
    """That the work is done where it is measured: what a provider has no kernels for runs on the processor silently.

    Versions of onnxruntime that do not tell where nodes run (before 1.24) are believed.

    Raises:
        BackendError: most of the convolutions and matrix products run on the processor.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return
    places = [(part.ep_name, node.op_type) for part in session.get_provider_graph_assignment_info()
              for node in part.get_nodes()]  # fmt: skip
    heavy = [(place, op) for place, op in places if any(part in op for part in _WEIGHTED)]
    astray = sorted({op for place, op in heavy if place == "CPUExecutionProvider"})
    count = sum(place == "CPUExecutionProvider" for place, _ in heavy)
    if 2 * count > len(heavy):
        raise BackendError(
            f"onnxruntime runs {', '.join(astray)} on the processor: {provider} has no kernels for them here. Install"
            " cuDNN (pip install 'onnxruntime-gpu[cuda,cudnn]'), or choose another precision."
        )
    if count:
        log.warning("onnxruntime runs %d of %d heavy nodes on the processor: %s", count, len(heavy), ", ".join(astray))


def relu_before_float8() -> onnx.ModelProto:
    """y = Relu(x) rounded to E4M3FN: 0 wherever x is below 0, unless an optimiser takes float8 for unsigned."""
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 19]> relu_before_float8 (float[1] x) => (float[1] y) <float scale = {1.0}> {
            positive = Relu (x)
            rounded = QuantizeLinear (positive, scale, zero)
            y = DequantizeLinear (rounded, scale, zero)
        }
    """)
    zero = onnx.helper.make_tensor("zero", onnx.TensorProto.FLOAT8E4M3FN, (), b"\0", raw=True)
    model.graph.initializer.append(zero)
    return model


def on_device(values: NDArray[np.generic], on_gpu: bool) -> Any:
    """An OrtValue that holds `values` where the session wants them.

    numpy has no bfloat16, so on a GPU such values are whatever is in memory: only their time counts.
    """
    import onnxruntime

    place = ("cuda", 0) if on_gpu else ("cpu", 0)
    values = np.ascontiguousarray(values)
    if values.dtype != ml_dtypes.bfloat16:
        return onnxruntime.OrtValue.ortvalue_from_numpy(values, *place)
    if on_gpu:
        kind = onnx.TensorProto.BFLOAT16
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(values.shape), kind, *place)
    bits = values.view(np.uint16)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, onnx.TensorProto.BFLOAT16)
