"""TensorRT as a stop-watch and as an engine builder; TensorRT-RTX as a backend of its own name.

Everything vendor-made happens in a child process (`trt_child`), which lives until the profiler is closed; this file
decides what is built and timed, and reads the answers. Engines are built once per model, each in a job of its own, and
kept as long; those that were compared last stay loaded until another is built.

A TensorRT-RTX plan is made without measuring tactics and is compiled on the device at first use: it is never
presented as a TensorRT result, and every report carries the backend's own name.

Source: NVIDIA TensorRT best practices (timing cache, CUDA graphs, per-layer profiling).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from halpc.errors import BackendError, UsageError
from halpc.ir.latency import Device, LayerTime, Timing
from halpc.ir.profiler import Feeds, Model
from halpc.ir.table import cache_folder
from profilers import trt_job, trt_layers
from profilers.bundle import bundle, is_aside, owners
from profilers.cuda import refuse_tf32_switched_off
from profilers.portions import portions
from profilers.trt_engine import Profile, Settings

BACKENDS = ("tensorrt", "tensorrt_rtx")
ENGINE_SUFFIXES = (".engine", ".plan", ".trt")
_CAPABILITIES = {"tf32": (8, 0), "bf16": (8, 0), "fp8": (8, 9)}  # the first tensor cores that have the type
_BUNDLE = 32  # variants per network: large enough to save builds, small enough to keep an engine in memory


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine file, and what is known of it.

    Attributes:
        path: the engine.
        information: the engine's layers as JSON, written beside it; None where no device could read them.
        backend: `tensorrt` or `tensorrt_rtx`.
        version: its version; the engine runs on no other.
        gpu: the GPU it was built on and is tied to; None for a plan made without one.
        precisions: number of computing layers per precision the engine really has.
        notes: sentences for the report: the real precision, and where the engine runs.
        warnings: what TensorRT warned of last.
        size_bytes: size of the file.
        seconds: time the build took.
        measured: whether it is the very engine that the model was timed as.
    """

    path: Path
    information: Path | None
    backend: str
    version: str
    gpu: str | None
    precisions: Mapping[str, int]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    size_bytes: int
    seconds: float
    measured: bool = False


@dataclass(slots=True, weakref_slot=True)
class TensorRTProfiler:
    """A `Profiler` over TensorRT 10 or 11, or TensorRT-RTX.

    Attributes:
        backend: `tensorrt` or `tensorrt_rtx`.
        settings: precision, optimisation level and the rest that changes an engine. The graphs handed over
            must already have that precision (`passes.cast`).
        cache_folder: where timing caches live; None for the user's cache folder.
        timeout_s: how long one job of the child process may take.
    """

    backend: str = "tensorrt"
    settings: Settings = field(default_factory=Settings)
    cache_folder: Path | None = None
    timeout_s: float = trt_job.TIMEOUT_SECONDS
    _child: trt_job.Child = field(default_factory=trt_job.Child, init=False, repr=False)
    _engines: dict[str, Path] = field(default_factory=dict, init=False, repr=False)
    _made: dict[str, dict[str, Any]] = field(default_factory=dict, init=False, repr=False)
    _folder: Path | None = field(default=None, init=False, repr=False)
    _facts: dict[str, Any] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise UsageError(f"unknown TensorRT flavour {self.backend!r}: choose {' or '.join(BACKENDS)}.")

    def __enter__(self) -> TensorRTProfiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child process and forgets the engines that were built for timing; it may be used again."""
        self._child.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None
        self._engines.clear()
        self._made.clear()

    @property
    def device(self) -> Device:
        """The GPU, driver and TensorRT that are measured on.

        Raises:
            BackendError: driver, device or libraries are missing.
        """
        facts = self._describe(needs_gpu=True)
        gpu = facts["gpu"]
        self._check_capability(gpu)
        return Device(
            kind="cuda",
            name=gpu["name"],
            backend=self.backend,
            version=facts["version"],
            provider="builder",
            precision=self.settings.precision,
            details={
                "cuda_driver": gpu["cuda"],
                "compute_capability": gpu["capability"],
                "optimisation_level": str(self.settings.level),
            },
        )

    def _check_capability(self, gpu: Mapping[str, str]) -> None:
        refuse_tf32_switched_off(self.settings.precision)
        least = _CAPABILITIES.get(self.settings.precision, (0, 0))
        if tuple(map(int, gpu["capability"].split("."))) < least:
            raise BackendError(
                f"--precision {self.settings.precision} needs a GPU of compute capability {least[0]}.{least[1]};"
                f" {gpu['name']} has {gpu['capability']}: choose another precision"
            )

    def kernels(self, models: Sequence[onnx.ModelProto], *, repetitions: int = 10) -> NDArray[np.float64]:
        """float64[len(models)]: each model's own kernels in ms, without reformats; median over the runs.

        Many models share one network, each with its own input; where TensorRT merged layers of several models
        all the same, or a model has nothing but reformats, those models are timed again, each alone.
        """
        found: list[float] = []
        isolated: list[int] = []
        for part in portions(models, _BUNDLE):
            times = self._bundle_times(part, repetitions)
            isolated += [len(found) + index for index, ms in enumerate(times) if np.isnan(ms) and len(part) > 1]
            found += times.tolist()
        times_ms = np.array(found, dtype=np.float64)
        for index in isolated:
            times_ms[index] = self._bundle_times([models[index]], repetitions)[0]
        return times_ms

    def layers(self, model: Model, *, repetitions: int = 20) -> tuple[LayerTime, ...]:
        """What TensorRT executes for `model`, in order, with each layer's median time in context."""
        names, times_ms, information = self._profile(model, repetitions, self.settings)
        described = {str(layer.get("Name")): layer for layer in trt_layers.layers_of(information)}
        return tuple(
            LayerTime(
                name=name,
                op=str(described.get(name, {}).get("LayerType", "unknown")),
                outputs=trt_layers.outputs_of(described.get(name, {})),
                time_ms=float(time_ms),
                nodes=trt_layers.nodes_of(described.get(name, {})),
            )
            for name, time_ms in zip(names, np.median(times_ms, axis=0), strict=True)
        )

    def compare(self, models: Sequence[Model], *, seconds: float = 2.0, feeds: Feeds | None = None) -> list[Timing]:
        """End-to-end latency of each model or engine file, interleaved, as CUDA graphs, without transfers."""
        plans = self._plans(models, self.settings)
        with tempfile.TemporaryDirectory() as name:
            folder, stored = Path(name), ""
            if feeds:
                stored = str(folder / "feeds.npz")
                np.savez(stored, **feeds)  # type: ignore[arg-type]
            job = {"plans": [str(plan) for plan in plans], "seconds": seconds, "feeds": stored}
            result = self._run("compare", folder, job)
        times = [np.asarray(samples, dtype=np.float64) for samples in result["times_ms"]]
        regime, rounds = f"{self.backend}: {result['regime']}", int(result["rounds"])
        return [Timing(samples, regime, rounds) for samples in times]

    def forget(self, models: Sequence[Model]) -> None:
        """Deletes the engines of models that will not be asked for again: a profile has gigabytes of them."""
        for model in models:
            self._forget(model, self.settings)

    def unsupported(self, model: Model) -> tuple[str, ...]:
        """Why the parser refuses `model`, a sentence per node; empty if it takes all. RTX needs no GPU."""
        with tempfile.TemporaryDirectory() as name:
            path = _as_file(model, Path(name))
            result = self._run("unsupported", Path(name), {"model": str(path)}, needs_gpu=self._builds_on_gpu)
        return tuple(result["reasons"])

    def check(self, model: Model, precision: str) -> None:
        """Refuses a model of which no layer computes in the precision that its graph has.

        Raises:
            BackendError: that is so, or the model does not build or run.
        """
        information = self._profile(model, 1, self.settings)[2]
        found = trt_layers.precisions(trt_layers.layers_of(information))
        trt_layers.check_precision(precision, found, "the engine")

    def build(
        self, model: Model, path: Path, *, shapes: Mapping[str, Profile] | None = None, precision: str | None = None
    ) -> BuiltEngine:
        """Writes the engine of `model` into `path`, its layers beside it, and checks its real precision.

        The engine that `model` was timed as, where it was and no shapes are given: no two builds need be equally fast.
        TensorRT-RTX also builds where there is no GPU; its layers and precision cannot be read then, and the
        notes say so.

        Args:
            shapes: of inputs with dynamic axes.
            precision: that the graph has, where it came with another than that of the settings.

        Raises:
            BackendError: the build failed, or the engine does not have the precision that was asked for.
            ModelError: the parser refuses the model, or the shapes do not fit it.
        """
        facts = self._describe(needs_gpu=self._builds_on_gpu)
        with tempfile.TemporaryDirectory(dir=path.parent) as name:
            folder = Path(name)
            copied = None if shapes else self._copied(model, folder)
            made = copied or self._build(model, folder, self.settings, shapes or {}, inspect=facts["gpu"] is not None)
            wanted = precision or self.settings.precision
            note = trt_layers.check_precision(wanted, made["precisions"], path.name)
            information = path.with_name(f"{path.stem}.layers.json") if facts["gpu"] else None
            if information is not None:
                os.replace(folder / "model.json", information)
            os.replace(folder / "model.plan", path)
        return BuiltEngine(
            path=path,
            information=information,
            backend=self.backend,
            version=facts["version"],
            gpu=facts["gpu"]["name"] if facts["gpu"] else None,
            precisions=made["precisions"],
            notes=(f"the engine's {note}", self._portability(facts)),
            warnings=tuple(made["warnings"]),
            size_bytes=made["size_bytes"],
            seconds=made["seconds"],
            measured=copied is not None,
        )

    def _copied(self, model: Model, folder: Path) -> dict[str, Any] | None:
        """What `_build` would leave and say, of the engine that `model` was timed as; None where it was not."""
        key = _key(model, self.settings)
        if key not in self._made:
            return None
        information = self._profile(model, 1, self.settings)[2]
        shutil.copyfile(self._engines[key], folder / "model.plan")
        (folder / "model.json").write_text(information)
        return {**self._made[key], "precisions": trt_layers.precisions(trt_layers.layers_of(information))}

    @property
    def _builds_on_gpu(self) -> bool:
        return self.backend == "tensorrt"

    def _portability(self, facts: Mapping[str, Any]) -> str:
        if self.backend == "tensorrt_rtx":
            return (
                f"a TensorRT-RTX {facts['version']} plan, compiled on the device at first use; no "
                "tactics were measured, and it is no TensorRT engine"
            )
        return f"the engine runs only on {facts['gpu']['name']} with TensorRT {facts['version']}"

    def _describe(self, *, needs_gpu: bool) -> dict[str, Any]:
        if self._facts is None or (needs_gpu and self._facts["gpu"] is None):
            with tempfile.TemporaryDirectory() as name:
                self._facts = self._run("describe", Path(name), {}, needs_gpu=needs_gpu)
        return self._facts

    def _run(self, action: str, folder: Path, job: Mapping[str, Any], *, needs_gpu: bool = True) -> dict[str, Any]:
        full = {"action": action, "backend": self.backend, "needs_gpu": needs_gpu, **job}
        return self._child.run(full, folder, timeout_s=self.timeout_s)

    def _cache(self) -> str | None:
        """The timing cache of this device, version and settings; RTX has none that does anything."""
        if self.backend != "tensorrt":
            return None
        device = self.device
        spelled = f"{device.backend}-{device.version}-{device.name}-cuda{device.details['cuda_driver']}"
        settings = self.settings
        name = f"{spelled}-{settings.precision}-level{settings.level}-times{settings.timing_iterations}.timing"
        return str((self.cache_folder or cache_folder(os.environ)) / re.sub(r"[^\w.-]+", "_", name))

    def _build(
        self,
        model: Model,
        folder: Path,
        settings: Settings,
        shapes: Mapping[str, Profile],
        *,
        inspect: bool,
    ) -> dict[str, Any]:
        """Builds `model.plan` and `model.json` in `folder`."""
        source = _as_file(model, folder)
        name = model.name if isinstance(model, Path) else f"the model {model.graph.name}".rstrip()
        files = {"plan": str(folder / "model.plan"), "information": str(folder / "model.json")}
        spelled = {name: [profile.min, profile.opt, profile.max] for name, profile in shapes.items()}
        used = asdict(replace(settings, cache=settings.cache or self._cache()))
        job = {"model": str(source), "name": name, **files, "settings": used, "shapes": spelled, "inspect": inspect}
        try:
            return self._run("plan", folder, job, needs_gpu=self._builds_on_gpu)
        finally:
            if not isinstance(model, Path):
                source.unlink()

    def _plans(self, models: Sequence[Model], settings: Settings) -> list[Path]:
        """An engine file per model; engine files are taken as they are, others built once."""
        self._describe(needs_gpu=True)
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="halpc-trt-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        keys = [_key(model, settings) for model in models]
        for key, model in zip(keys, models, strict=True):
            if key in self._engines:
                continue
            if isinstance(model, Path) and _is_engine(model):
                self._engines[key] = model
            else:  # a job each, with a time limit of its own: what was built before one fails is not lost
                folder = Path(tempfile.mkdtemp(dir=self._folder))
                self._made[key] = self._build(model, folder, settings, {}, inspect=False)
                self._engines[key] = folder / "model.plan"
        return [self._engines[key] for key in keys]

    def _forget(self, model: Model, settings: Settings) -> None:
        key = _key(model, settings)
        if self._made.pop(key, None) is not None:  # it was built here
            shutil.rmtree(self._engines.pop(key).parent, ignore_errors=True)

    def _profile(self, model: Model, repetitions: int, settings: Settings) -> tuple[list[str], NDArray[Any], str]:
        """(layer names, float64[runs, layers] in ms, the engine's layers as JSON)."""
        plan = self._plans([model], settings)[0]
        with tempfile.TemporaryDirectory() as name:
            job = {"plan": str(plan), "name": plan.name, "repetitions": repetitions}
            result = self._run("layers", Path(name), job)
        return result["names"], np.asarray(result["times_ms"], dtype=np.float64), result["information"]

    def _bundle_times(self, models: Sequence[onnx.ModelProto], repetitions: int) -> NDArray[np.float64]:
        """float64[len(models)] in ms; NaN where a model has no layer of its own."""
        settings = replace(self.settings, aux_streams=0)
        model = bundle(models)
        names, times_ms, information = self._profile(model, repetitions, settings)
        self._forget(model, settings)
        return attribute(names, times_ms, trt_layers.layers_of(information), len(models))


def attribute(
    names: Sequence[str], times_ms: NDArray[Any], layers: Sequence[Mapping[str, Any]], count: int
) -> NDArray[np.float64]:
    """float64[count]: each bundled model's kernel time, the median over runs of the sum of its own layers.

    Whose a layer is, its name tells, or the ONNX nodes that the engine knows of it: kernels that TensorRT generates
    have names of their own (`__myl_…`). Layers that only move data do not count, nor does scaffolding; but all that a
    lone model has counts where that is nothing else: TensorRT runs a Concat as copies, and a Reshape as none.

    Args:
        names: a layer name per column of `times_ms`.
        times_ms: float64[runs, layers].
        layers: what the engine says of its layers.

    A model whose layers were merged with another's, or only move data beside others', has no time of its own: NaN.
    """
    result = np.full(count, np.nan)
    owned: dict[int, list[int]] = {}
    moves: list[int] = []
    merged: set[int] = set()
    described = {str(layer.get("Name")): layer for layer in layers}
    for column, name in enumerate(names):
        layer = described.get(name, {"Name": name})
        spelled = trt_layers.spelled(layer)
        models = {0} if count == 1 else owners(spelled)
        if len(models) > 1:
            merged |= models
        elif models and not is_aside(spelled):
            own = moves if trt_layers.is_copy(layer) else owned.setdefault(next(iter(models)), [])
            own.append(column)
    if count == 1 and not any(owned.values()):
        owned[0] = moves
    for index, columns in owned.items():
        if index not in merged:
            result[index] = np.median(times_ms[:, columns].sum(axis=1))
    return result


def _is_engine(model: Model) -> bool:
    return isinstance(model, Path) and model.suffix in ENGINE_SUFFIXES


def _key(model: Model, settings: Settings) -> str:
    """Engines are shared by models of equal content and settings."""
    if isinstance(model, Path):
        stat = model.stat()
        content = f"{model.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()
    else:
        content = model.SerializeToString(deterministic=True)
    return hashlib.sha256(content + repr(settings).encode()).hexdigest()


def _as_file(model: Model, folder: Path, name: str = "model.onnx") -> Path:
    if isinstance(model, Path):
        return model
    onnx.save(_named(model), folder / name)
    return folder / name


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """A node without a name goes by its first output's, so that layers can be traced back to it."""
    if all(node.name for node in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        node.name = node.name or node.output[0]
    return copy
