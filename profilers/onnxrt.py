"""onnxruntime as a stop-watch: on the CPU always, on CUDA and through TensorRT where its providers are
installed.

Kernel times are those of onnxruntime's own profiler where it sees the kernel (on the CPU, and in CUDA
builds with kernel profiling); elsewhere a model's wall time above that of an empty model. Many sessions
live side by side and take turns, so that a noisy moment does not fall on one of them alone.
"""

from __future__ import annotations

import itertools
import logging
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from halpc.errors import BackendError, UsageError
from halpc.ir.latency import Device, LayerTime, Timing
from halpc.ir.profiler import Feeds, Model
from profilers import ort_device
from profilers.feeds import random_feeds
from profilers.ort_events import LEAST_MS, Profile, check_room, read_precisions, read_profile
from profilers.ort_layers import map_layers
from profilers.portions import portions, weights_bytes
from profilers.turns import take_turns

log = logging.getLogger(__name__)

PROVIDERS: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
LEVELS: Final = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disable": "ORT_DISABLE_ALL",
}
_SHORT = 0.01  # share of a run that its profiler may add before what it adds is measured
_TOGETHER = 128  # sessions: each has files open
# For runs shorter than so many seconds: how many of a turn are not counted, how many are, and every how manyth turn.
_TURNS = ((200e-6, 2, 3, 1), (2e-3, 1, 1, 1), (20e-3, 1, 1, 2), (math.inf, 0, 1, 4))


class OnnxRuntimeProfiler:
    """Satisfies `halpc.ir.profiler.Profiler`."""

    def __init__(
        self, *, provider: str = "cpu", threads: int = 1, precision: str = "fp32", optimisation: str = "all"
    ) -> None:
        """A stop-watch for one execution provider.

        Args:
            provider: `cpu`, `cuda` or `tensorrt`.
            threads: intra-op threads; 0 is one per core that this process may use.
            precision: of the models that will be measured; `fp32` turns TF32 off where the provider has it.
            optimisation: `all`, `extended`, `basic` or `disable`; what will be deployed.

        Raises:
            BackendError: onnxruntime or the provider is missing, or computes something else at the precision.
            UsageError: no such optimisation level.
        """
        if provider == "cpu" and precision == "tf32":
            raise BackendError(
                "--precision tf32: TF32 is a mode of NVIDIA's tensor cores (compute capability 8.0 and later), and"
                " onnxruntime's CPU provider computes in float32: choose --precision fp32, or a GPU"
            )
        self._ort = ort_device.import_onnxruntime(PROVIDERS.get(provider, provider))
        self._provider = PROVIDERS.get(provider, provider)
        self._threads = threads or ort_device.cores()
        if optimisation not in LEVELS:
            raise UsageError(f"no optimisation level is called {optimisation!r}: choose {', '.join(LEVELS)}")
        self._level = getattr(self._ort.GraphOptimizationLevel, LEVELS[optimisation])
        self._device = ort_device.describe(self._ort, provider, self._threads, precision, optimisation)
        self._told: bool | None = None
        if precision == "fp8":
            self._refuse_wrong_float8()

    @property
    def device(self) -> Device:
        """Processor, onnxruntime version, provider, precision, threads, optimisation level."""
        return self._device

    def kernels(self, models: Sequence[onnx.ModelProto], *, repetitions: int = 10) -> NDArray[np.float64]:
        """float64[len(models)]: each small model's own kernel time in ms; see `Profiler.kernels`."""
        times = np.empty(len(models))
        start = 0
        for batch in portions(models, _TOGETHER):
            times[start : start + len(batch)] = self._kernel_batch(batch, repetitions)
            start += len(batch)
        return times

    def layers(self, model: Model, *, repetitions: int = 20) -> tuple[LayerTime, ...]:
        """What onnxruntime executes for `model`, in order, mapped back to the nodes it was given.

        Its profiler adds about two microseconds to every node, which is much where kernels are short: that is taken
        off each, as far as the nodes together take longer than a run without the profiler. Where kernels are long, what
        a node takes that does nothing is near enough.

        Raises:
            BackendError: the provider runs the model but its profiler does not see the kernels.
        """
        if not self._sees_kernels():
            raise BackendError(
                f"{self._provider}: this onnxruntime {self._device.version} was built without CUDA kernel profiling,"
                " so it cannot tell what each layer takes. Use --profiler tensorrt."
            )
        with tempfile.TemporaryDirectory(prefix="halpc-") as folder:
            optimised = Path(folder) / "optimised.onnx"
            runner = _Runner(self, model, profile_in=Path(folder) / "whole", optimised=optimised)
            empty = _Runner(self, _empty_model(), profile_in=Path(folder) / "empty")
            (wall, _), counted = _in_turns([runner, empty], repetitions)
            profile, nothing = runner.profile(counted[0]), empty.profile(counted[1])
            executed = onnx.load(str(optimised), load_external_data=False)
        original = model if isinstance(model, onnx.ModelProto) else onnx.load(str(model), load_external_data=False)
        overhead_ms = 0.0 if profile.on_device else nothing.kernel_ms()
        if overhead_ms * len(profile.nodes) > _SHORT * wall * 1e3:
            (whole, alone), _ = _in_turns([_Runner(self, each) for each in (model, _empty_model())], repetitions)
            overhead_ms = profile.overhead_ms((whole - alone) * 1e3, overhead_ms)
        return map_layers(original, executed, profile.nodes, overhead_ms)

    def precisions(self, model: Model) -> dict[str, int]:
        """How many convolutions and matrix products run in each precision here, whatever the graph says."""
        with tempfile.TemporaryDirectory(prefix="halpc-") as folder:
            runner = _Runner(self, model, profile_in=Path(folder) / "whole")
            runner.run()
            return read_precisions(Path(runner.session.end_profiling()))

    def check(self, model: onnx.ModelProto, precision: str) -> None:
        """That a model which came as fp8 is what will be measured; where fp8 was asked for, that is known already.

        Raises:
            BackendError: onnxruntime computes something else.
        """
        if precision == "fp8" and self._device.precision != "fp8":
            self._refuse_wrong_float8()

    def _refuse_wrong_float8(self) -> None:
        """Tries what onnxruntime 1.32 does wrong. Where it has no kernels at all, the model itself is refused later.

        Raises:
            BackendError: at this optimisation level a Relu before float8 is not computed.
        """
        try:
            runner = _Runner(self, ort_device.relu_before_float8(), feeds={"x": np.full(1, -1, np.float32)})
            runner.run()
        except BackendError:
            return
        if runner.binding.copy_outputs_to_cpu()[0].item() != 0.0:
            raise BackendError(
                f"onnxruntime {self._device.version} does not compute fp8 models as they are: at optimisation"
                f" '{self._device.details['optimisation']}' it drops a Relu in front of QuantizeLinear, which float8,"
                " having a sign, needs. Choose another precision: fp8 is for GPUs of compute capability 8.9 and later"
            )

    def compare(self, models: Sequence[Model], *, seconds: float = 2.0, feeds: Feeds | None = None) -> list[Timing]:
        """End-to-end latency of each model; `seconds` is the time for all of them, sessions not counted.

        See `profilers.turns` for how they take turns.
        """
        runners = [_Runner(self, model, feeds=feeds) for model in models]
        for runner in runners:
            runner.run()
        samples, rounds = take_turns([runner.timed for runner in runners], seconds)
        regime = self._regime(rounds, [len(s) for s in samples])
        alone = self._threads == 1 and self._device.kind == "cpu"
        both = [np.array(s) * 1e3 for s in samples]
        return [Timing(b[:, 0], regime, rounds, b[:, 1] if alone else None) for b in both]

    def _regime(self, rounds: int, runs: Sequence[int]) -> str:
        where = "inputs and outputs on the GPU, no transfers" if self._device.kind == "cuda" else "inputs bound once"
        return (
            f"{self._provider}, {self._threads} thread{'s' * (self._threads > 1)}, optimisation"
            f" {self._device.details['optimisation']}, {where}; {min(runs)} runs in {rounds} interleaved"
            " rounds after warm-up, first runs of a burst not counted"
        )

    def _kernel_batch(self, models: Sequence[onnx.ModelProto], repetitions: int) -> list[float]:
        told = self._sees_kernels()
        with tempfile.TemporaryDirectory(prefix="halpc-") as folder:
            runners = [
                _Runner(self, model, profile_in=Path(folder) / str(i) if told else None)
                for i, model in enumerate([*models, _empty_model()])
            ]
            walls, counted = _in_turns(runners, repetitions)
            if not told:
                return [max((wall - walls[-1]) * 1e3, LEAST_MS) for wall in walls[:-1]]
            *profiles, empty = [runner.profile(runs) for runner, runs in zip(runners, counted, strict=True)]
        overhead_ms = 0.0 if empty.on_device else empty.kernel_ms()
        return [profile.kernel_ms(overhead_ms) for profile in profiles]

    def _sees_kernels(self) -> bool:
        """Whether its profiler tells what kernels take: on the CPU; on a GPU in builds with CUPTI, no released one."""
        if self._told is None:
            self._told = self._device.kind == "cpu" or self._shows_a_kernel()
        return self._told

    def _shows_a_kernel(self) -> bool:
        with tempfile.TemporaryDirectory(prefix="halpc-") as folder:
            runner = _Runner(self, _empty_model(), profile_in=Path(folder) / "empty")
            runner.run()
            return runner.profile([True]).on_device

    def session(self, model: Model, *, profile_in: Path | None = None, optimised: Path | None = None) -> Any:
        """An onnxruntime session for `model`, as it will be deployed.

        Raises:
            BackendError: onnxruntime refuses the model, or falls back to another provider.
            OutputError: the optimised model does not fit where it should be written.
        """
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = self._level
        options.log_severity_level = 4
        # Other sessions' idle threads must not spin on the cores of the one that is being timed.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if profile_in is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile_in)
        if optimised is not None:
            options.optimized_model_filepath = str(optimised)
            external = "session.optimized_model_external_initializers"
            options.add_session_config_entry(f"{external}_file_name", optimised.name + ".data")
            options.add_session_config_entry(f"{external}_min_size_in_bytes", "1024")
        if self._device.kind == "cuda":
            options.add_session_config_entry(ort_device.TELL_PLACES, "1")
        source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
        try:
            # without `enable_fallback=0` onnxruntime goes on on the CPU where a provider fails, and prints so
            session = self._ort.InferenceSession(source, options, providers=self._providers(model), enable_fallback=0)
        except Exception as error:  # onnxruntime's own exceptions share no base class
            if optimised is not None:
                check_room(optimised.parent, _size_of(model))
            raise BackendError(f"onnxruntime cannot load the model: {_first_line(error)}") from error
        if self._provider not in session.get_providers():
            raise BackendError(
                f"onnxruntime fell back to {', '.join(session.get_providers())}: {self._provider} failed."
                " Check the CUDA and cuDNN libraries that this onnxruntime wants."
            )
        if self._device.kind == "cuda":
            ort_device.refuse_the_processor(session, self._provider)
        return session

    def _providers(self, model: Model) -> list[Any]:
        """The provider, then those that take what it has no kernels for."""
        names = {
            "CPUExecutionProvider": [],
            "TensorrtExecutionProvider": ["TensorrtExecutionProvider", "CUDAExecutionProvider"],
        }.get(self._provider, [self._provider])
        asked = [(name, {"use_tf32": self._tf32(model)}) if name == "CUDAExecutionProvider" else name for name in names]
        return [*asked, "CPUExecutionProvider"]

    def _tf32(self, model: Model) -> str:
        """Off for float32 alone: without it cuDNN's convolutions of every type do without tensor cores."""
        return "0" if self._device.precision == "fp32" and not ort_device.in_sixteen_bits(model) else "1"


class _Runner:
    """One session with its inputs bound, ready to run again and again."""

    def __init__(
        self,
        profiler: OnnxRuntimeProfiler,
        model: Model,
        *,
        feeds: Feeds | None = None,
        profile_in: Path | None = None,
        optimised: Path | None = None,
    ) -> None:
        self.session = profiler.session(model, profile_in=profile_in, optimised=optimised)
        self.binding = self.session.io_binding()
        inputs = self.session.get_inputs()
        given = feeds or {}
        values = {**random_feeds(i for i in inputs if i.name not in given), **given}
        on_gpu = profiler.device.kind == "cuda"
        # on the CPU a binding points into the arrays, and before onnxruntime 1.30 does not hold them
        self.bound = {value.name: ort_device.on_device(values[value.name], on_gpu) for value in inputs}
        for name, held in self.bound.items():
            self.binding.bind_ortvalue_input(name, held)
        for value in self.session.get_outputs():
            self.binding.bind_output(value.name, "cuda" if on_gpu else "cpu")

    def run(self) -> float:
        """Seconds of one run, all of its work done when it returns."""
        return self.timed()[0]

    def timed(self) -> tuple[float, float]:
        """Wall time of one run and processor time of this thread in it, in seconds."""
        busy, start = time.thread_time(), time.perf_counter()
        try:
            self.session.run_with_iobinding(self.binding)
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise BackendError(f"onnxruntime failed to run the model: {_first_line(error)}") from error
        return time.perf_counter() - start, time.thread_time() - busy

    def profile(self, counted: Sequence[bool]) -> Profile:
        """End profiling and read what it says of the runs that count."""
        return read_profile(Path(self.session.end_profiling()), counted)


def _in_turns(runners: Sequence[_Runner], repetitions: int) -> tuple[list[float], list[list[bool]]]:
    """Run all of them in `repetitions` turns; the median wall time of each in seconds, and which of its runs count.

    A turn is some runs in a row: the first finds the caches full of the others' data, how full depends on who the
    others are, and a kernel's time with it; the next ones find its own, and count. Long runs take part in some turns
    only, and at last need no first one.
    """
    times: list[list[float]] = [[] for _ in runners]
    counted: list[list[bool]] = [[False, False] for _ in runners]
    plans = [_plan(min(runner.run(), runner.run())) for runner in runners]
    for turn in range(repetitions):
        for runner, (first, then, every), found, mask in zip(runners, plans, times, counted, strict=True):
            if turn % every == 0:
                found += [runner.run() for _ in range(first + then)][first:]
                mask += [False] * first + [True] * then
    return [float(np.median(found)) for found in times], counted


def _plan(seconds: float) -> tuple[int, int, int]:
    """For runs that take about so long: how many of a turn are not counted, how many are, and every how manyth turn."""
    return next((first, then, every) for most, first, then, every in _TURNS if seconds < most)


def _size_of(model: Model) -> int:
    return weights_bytes(model) if isinstance(model, onnx.ModelProto) else Path(model).stat().st_size


def _empty_model() -> onnx.ModelProto:
    """A model that does next to nothing: what a run costs besides its kernels."""
    return onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 17]> empty (float[1] x) => (float[1] y) { y = Neg(x) }'
    )


def _first_line(error: Exception) -> str:
    return next(itertools.chain(str(error).strip().splitlines(), [type(error).__name__]))
