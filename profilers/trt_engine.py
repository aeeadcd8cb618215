"""Building a TensorRT engine: import, parse, configure, build, inspect. Runs in the child process only.

`trt` is the imported module, `tensorrt` 10 or 11, or `tensorrt_rtx`. Networks are strongly typed on all of
them: the precision is a property of the ONNX graph, never of a builder flag. Every factory's answer is
checked, since TensorRT logs and returns None where Python would raise.

Source: NVIDIA TensorRT 10.16 and 11.4 Python API; every name used here is checked against both in the tests.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from halpc.errors import BackendError, ModelError

SUPPORTED = {"tensorrt": (10, 11), "tensorrt_rtx": (1,)}
_QUOTED_LINES = 6
_LIBRARY = re.compile(r"lib[\w.+-]+\.so[\d.]*")

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """What changes an engine, and so belongs to its timing cache's name and to every table's key.

    Attributes:
        precision: the precision of the graph; here it only decides whether TF32 is allowed.
        level: builder optimisation level, 0 to 5.
        timing_iterations: how often the builder times a tactic.
        aux_streams: auxiliary streams allowed; None leaves it to TensorRT, 0 keeps layers apart.
        workspace_bytes: limit for scratch memory; None leaves it to TensorRT.
        cache: the timing cache file; None for no cache.
    """

    precision: str = "fp32"
    level: int = 3
    timing_iterations: int = 4
    aux_streams: int | None = None
    workspace_bytes: int | None = None
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """Shapes of one dynamic input: the least, the one to optimise for, the largest."""

    min: Shape
    opt: Shape
    max: Shape


@dataclass(slots=True)
class Workbench:
    """What must stay alive while an engine is built: the builder forgets neither logger nor network."""

    trt: Any
    logger: Any
    builder: Any
    network: Any
    parser: Any
    said: list[str] = field(default_factory=list)


def load(backend: str) -> Any:
    """The vendor module `tensorrt` or `tensorrt_rtx`.

    NVIDIA's wheels hold `tensorrt_bindings`; the `tensorrt` that hands its names on is made by pip from a source
    package, and may not be there where wheels were unpacked by hand.

    Raises:
        BackendError: not installed, its libraries are missing, or a version that halpc does not know.
    """
    package = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx-cu13"}[backend]
    try:
        trt = _import(backend)
    except ModuleNotFoundError as error:
        raise BackendError(f"{backend} is not installed ({error}): `pip install {package}`.") from error
    except (ImportError, OSError) as error:
        raise BackendError(_broken_import(backend, str(error))) from error
    major = int(str(trt.__version__).split(".")[0])
    if major not in SUPPORTED[backend]:
        expected = " and ".join(f"{number}.x" for number in SUPPORTED[backend])
        raise BackendError(f"{backend} {trt.__version__} is installed; halpc works with {expected}.")
    return trt


def _import(backend: str) -> Any:
    try:
        return importlib.import_module(backend)
    except ModuleNotFoundError as error:
        try:
            return importlib.import_module(f"{backend}_bindings")
        except ModuleNotFoundError:
            raise error from None


def _broken_import(backend: str, error: str) -> str:
    library = _LIBRARY.search(error)
    if library is None:
        return f"{backend} is installed but cannot be imported: {error}."
    return (
        f"{backend}'s Python bindings are installed, but its library {library.group()} is missing ({error}). "
        "Install the TensorRT libraries of the same version, or add their folder to LD_LIBRARY_PATH."
    )


def make_logger(trt: Any) -> Any:
    """An `ILogger` that keeps warnings and errors in its `said` instead of printing them.

    TensorRT goes on with the first that a process gives it, so a process makes one.
    """

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.said: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.WARNING):
                self.said.append(message)

    return Logger()


def register_plugins(trt: Any, logger: Any) -> None:
    """TensorRT's own plugins: an engine that has one loads only in a process that knows it.

    Raises:
        BackendError: their library does not start.
    """
    present(trt.init_libnvinfer_plugins(logger, ""), "register its own plugins", logger.said)


def quote(said: list[str]) -> str:
    """The last few things the logger heard, for an error message."""
    return "; ".join(line.strip() for line in said[-_QUOTED_LINES:]) or "it gave no reason"


def present(thing: Any, what: str, said: list[str]) -> Any:
    """`thing`, or a BackendError with the logger's text where TensorRT answered None (or a null factory)."""
    if thing is None or thing is False:
        raise BackendError(f"TensorRT could not {what}: {quote(said)}.")
    return thing


def open_builder(trt: Any, logger: Any) -> Workbench:
    """A builder, strongly typed network and parser that tell `logger`.

    Raises:
        BackendError: TensorRT returned a null pointer, which it does without a usable driver.
    """
    said: list[str] = logger.said
    try:
        builder = present(trt.Builder(logger), "create a builder", said)
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = present(builder.create_network(flags), "create a network", said)
        parser = present(trt.OnnxParser(network, logger), "create an ONNX parser", said)
    except TypeError as error:
        raise BackendError(f"TensorRT could not be opened ({error}): {quote(said)}.") from error
    return Workbench(trt, logger, builder, network, parser, said)


def parse(bench: Workbench, model: Path, name: str) -> None:
    """Reads the ONNX file into the network.

    Raises:
        ModelError: TensorRT's parser refuses the model; the message names the node.
    """
    parser = bench.parser
    if not parser.parse_from_file(str(model)):
        reasons = [_spell(parser.get_error(index)) for index in range(parser.num_errors)]
        raise ModelError(f"TensorRT cannot parse {name}: {'; '.join(reasons) or quote(bench.said)}.")


def _spell(failure: Any) -> str:
    text = " ".join(str(failure.desc()).split())
    return f"node '{failure.node_name()}' ({failure.node_operator()}): {text}"


def unsupported(bench: Workbench, model: Path) -> list[str]:
    """Why TensorRT refuses `model`, one sentence per node; empty if it takes all of it."""
    parser = bench.parser
    if parser.parse_from_file(str(model)):
        return []
    return [_spell(parser.get_error(index)) for index in range(parser.num_errors)] or [quote(bench.said)]


def configure(bench: Workbench, settings: Settings, shapes: Mapping[str, Profile]) -> Any:
    """A builder configuration: level, timing, TF32, streams, detailed layer information, dynamic shapes."""
    trt, builder = bench.trt, bench.builder
    config = present(builder.create_builder_config(), "create a builder configuration", bench.said)
    config.builder_optimization_level = settings.level
    config.avg_timing_iterations = settings.timing_iterations
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if settings.aux_streams is not None:
        config.max_aux_streams = settings.aux_streams
    if settings.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    if settings.precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
    else:
        config.set_flag(trt.BuilderFlag.TF32)
    _add_profile(bench, config, shapes)
    return config


def _add_profile(bench: Workbench, config: Any, shapes: Mapping[str, Profile]) -> None:
    network, dynamic = bench.network, []
    names = [network.get_input(index).name for index in range(network.num_inputs)]
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.is_shape_tensor:
            raise ModelError(
                f"input {tensor.name} decides shapes by its values, which TensorRT wants to know when it builds: halpc"
                " has no option for them. Make it a constant of the model."
            )
        if any(size < 0 for size in tuple(tensor.shape)):
            dynamic.append(tensor.name)
    missing = [name for name in dynamic if name not in shapes]
    unknown = [name for name in shapes if name not in names]
    if missing or unknown:
        raise ModelError(
            f"the dynamic inputs of the model are {dynamic}; shapes were given for {sorted(shapes)}. "
            "Give each by --min-shapes, --opt-shapes and --max-shapes, as in `--opt-shapes x:8x3x224x224`."
        )
    if dynamic:
        profile = present(bench.builder.create_optimization_profile(), "create a shape profile", bench.said)
        for name in dynamic:
            wanted = shapes[name]
            profile.set_shape(name, min=wanted.min, opt=wanted.opt, max=wanted.max)
        if config.add_optimization_profile(profile) < 0:
            raise ModelError(f"TensorRT refuses the shapes {dict(shapes)}: {quote(bench.said)}.")


def build(bench: Workbench, config: Any, settings: Settings, name: str) -> bytes:
    """The serialised engine of the parsed network; the timing cache is read before and written after.

    Raises:
        BackendError: the build failed; the message carries what TensorRT's logger heard.
    """
    cache = _load_cache(config, settings, bench.said)
    plan = bench.builder.build_serialized_network(bench.network, config)
    present(plan, f"build an engine for {name}", bench.said)
    if cache is not None and settings.cache is not None:
        _store_cache(config, Path(settings.cache))
    return bytes(plan)


def _load_cache(config: Any, settings: Settings, said: list[str]) -> Any | None:
    """A timing cache from the file, or a fresh one where there is none or it does not fit any more."""
    if settings.cache is None:
        return None
    cache = config.create_timing_cache(_stored(Path(settings.cache)))
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = present(config.create_timing_cache(b""), "create a timing cache", said)
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _stored(path: Path) -> bytes:
    """What the file holds; nothing where it cannot be read: a cache only saves time."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _store_cache(config: Any, path: Path) -> None:
    """Writes the timing cache, together with what another process stored meanwhile, by renaming; if it can."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    if stored := _stored(path):
        theirs = config.create_timing_cache(stored)
        if theirs is not None:
            cache.combine(theirs, ignore_mismatch=False)
    data = cache.serialize()
    if data is None:
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.write_bytes(bytes(data))
        temporary.replace(path)


def deserialize(trt: Any, logger: Any, plan: Path) -> tuple[Any, Any]:
    """(runtime, engine) of a plan file; keep both.

    Raises:
        BackendError: the plan is of another version or GPU, or there is no usable driver.
    """
    said = logger.said
    try:
        runtime = present(trt.Runtime(logger), "create a runtime", said)
    except TypeError as error:
        raise BackendError(f"TensorRT could not create a runtime ({error}): {quote(said)}.") from error
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    return runtime, present(engine, f"load the engine {plan.name} (engines are tied to GPU and version)", said)


def information(trt: Any, engine: Any, said: list[str], context: Any | None = None) -> str:
    """The engine's layers as JSON text, as detailed as the engine keeps them."""
    inspector = present(engine.create_engine_inspector(), "create an engine inspector", said)
    if context is not None:
        inspector.execution_context = context
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return str(present(text, "read the engine's layers", said))
