"""Which onnxruntime there is, on which processor or GPU, and how arrays get there."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from halpc.errors import BackendError
from halpc.ir.latency import Device

_INSTALL: Final = {
    "CPUExecutionProvider": "pip install onnxruntime",
    "CUDAExecutionProvider": "pip install onnxruntime-gpu, on a machine with an NVIDIA driver",
    "TensorrtExecutionProvider": "pip install onnxruntime-gpu and the TensorRT libraries that it wants",
}
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
    return onnxruntime


def describe(ort: Any, provider: str, threads: int, precision: str, optimisation: str) -> Device:
    """The device that sessions will run on."""
    details = {"optimisation": optimisation, "caches": "warm", "system": f"{platform.system()} {platform.machine()}"}
    if provider == "cpu":
        name, vectors = processor()
        details["vectors"] = vectors
        return Device("cpu", name, "onnxruntime", ort.__version__, provider, precision, threads, details)
    name, driver = gpu()
    details["driver"] = driver
    return Device("cuda", name, "onnxruntime", ort.__version__, provider, precision, threads, details)


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


def gpu() -> tuple[str, str]:
    """Name and driver version of the first GPU.

    Raises:
        BackendError: no NVIDIA driver or no GPU.
    """
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise BackendError(f"no NVIDIA GPU can be used: nvidia-smi failed ({error})") from error
    name, _, driver = answer.strip().partition("\n")[0].partition(", ")
    if not name:
        raise BackendError("no NVIDIA GPU can be used: nvidia-smi lists none")
    return name, driver


def on_device(values: NDArray[np.generic], on_gpu: bool) -> Any:
    """An OrtValue that holds `values` where the session wants them."""
    import onnxruntime

    place = ("cuda", 0) if on_gpu else ("cpu", 0)
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values), *place)
