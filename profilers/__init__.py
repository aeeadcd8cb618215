"""Stop-watches: one file per runtime, all of them satisfying `halpc.ir.profiler.Profiler`.

Runtimes are imported when they are asked for, so that halpc works with any of them missing.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from halpc.errors import BackendError, UsageError
from halpc.ir.profiler import Profiler
from halpc.options import PROFILERS

log = logging.getLogger(__name__)

BACKENDS: Final = tuple(name for name in PROFILERS if name != "auto")
AUTO: Final = ("tensorrt", "onnxruntime")
"""What `auto` tries, in order. A TensorRT-RTX plan is never what somebody gets without asking for it."""


_THREADS_PER_CORE = 8  # more say nothing about any device


@dataclass(frozen=True, slots=True)
class Choice:
    """The profiler that will measure.

    Attributes:
        profiler: ready to measure.
        backend: its name.
        passed_over: why `auto` did not take each backend that it tried before, one sentence each.
    """

    profiler: Profiler
    backend: str
    passed_over: tuple[str, ...] = ()


def profiler_for(
    name: str = "auto", *, threads: int = 1, precision: str = "fp32", provider: str = "cpu", **options: Any
) -> Choice:
    """A profiler by name.

    Args:
        name: `auto` or one of `BACKENDS`.
        threads: intra-op threads of onnxruntime and OpenVINO; TensorRT has none.
        precision: of the models that will be measured.
        provider: onnxruntime's execution provider: `cpu`, `cuda` or `tensorrt`.
        options: what the backend's own profiler takes besides (`optimisation`; TensorRT: `Settings`).

    Raises:
        BackendError: the backend that was named is missing, or with `auto` every one is; nothing is taken
            in its place.
        UsageError: no such backend, or far more threads than cores.
    """
    most = _THREADS_PER_CORE * (os.cpu_count() or 1)
    if threads > most:
        raise UsageError(
            f"--threads {threads}: this machine has {os.cpu_count()} cores, and {most} threads at most are measured on"
            " them; profile on the device, and bring its --table"
        )
    makers: dict[str, Callable[[], Profiler]] = {
        "onnxruntime": lambda: _onnxruntime(threads, precision, provider, options),
        "openvino": lambda: _openvino(threads, precision, options),
        "tensorrt": lambda: _tensorrt("tensorrt", precision, options),
        "tensorrt_rtx": lambda: _tensorrt("tensorrt_rtx", precision, options),
    }
    if name in makers:
        return Choice(makers[name](), name)
    if name != "auto":
        raise UsageError(f"no profiler is called {name!r}: choose auto, {', '.join(BACKENDS)}")
    passed_over: list[str] = []
    for backend in AUTO:
        try:
            choice = Choice(makers[backend](), backend, tuple(passed_over))
            if threads > 1 and backend == "tensorrt":
                log.warning("--threads %d does nothing: auto took tensorrt, which has none", threads)
            return choice
        except BackendError as error:
            log.info("auto: not %s: %s", backend, error)
            passed_over.append(f"{backend}: {str(error).removeprefix(f'{backend}: ')}")
    raise BackendError("no profiler can be used: " + "; ".join(passed_over))


def _onnxruntime(threads: int, precision: str, provider: str, options: dict[str, Any]) -> Profiler:
    module = importlib.import_module("profilers.onnxrt")
    profiler: Profiler = module.OnnxRuntimeProfiler(provider=provider, threads=threads, precision=precision, **options)
    return profiler


def _openvino(threads: int, precision: str, options: dict[str, Any]) -> Profiler:
    module = importlib.import_module("profilers.openvino")
    profiler: Profiler = module.OpenVinoProfiler(threads=threads, precision=precision, **options)
    return profiler


def _tensorrt(backend: str, precision: str, options: dict[str, Any]) -> Profiler:
    module = importlib.import_module("profilers.trt")
    settings = importlib.import_module("profilers.trt_engine").Settings(precision=precision, **options)
    profiler: Profiler = module.TensorRTProfiler(backend=backend, settings=settings)
    log.debug("measuring on %s", profiler.device.name)  # raises BackendError where there is no device
    return profiler
