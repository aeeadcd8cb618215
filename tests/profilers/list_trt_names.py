"""Writes `trt_names.json`: the public names of the real TensorRT bindings, taken without the libraries.

The bindings on PyPI are the real ones; the libraries they link are not there. Empty libraries that export the
few factory functions the bindings link are compiled here, and the bindings are imported over them:

    pip download --no-deps --only-binary=:all: --python-version 3.11 --platform manylinux_2_28_x86_64 \\
        --implementation cp --dest wheels tensorrt-cu13-bindings==10.16.1.11
    pip download … tensorrt-cu13-bindings==11.4.0.106
    python tests/profilers/list_trt_names.py --out tests/profilers/trt_names.json wheels/*.whl tensorrt_rtx

Needs `gcc`, and the interpreter version the wheels are for. An argument that is no file is imported as it is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CLASSES = [
    "Builder",
    "BuilderFlag",
    "DataType",
    "EngineInspector",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProfiler",
    "ITensor",
    "ITimingCache",
    "LayerInformationFormat",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "ProfilingVerbosity",
    "Runtime",
    "TensorIOMode",
]
SYMBOLS = [
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
]
LIST = """
import importlib, json, sys
trt = importlib.import_module(sys.argv[1])
public = lambda thing: sorted(n for n in dir(thing) if not n.startswith("_"))
names = {c: public(getattr(trt, c)) for c in sys.argv[2:] if hasattr(trt, c)}
print(json.dumps({"version": trt.__version__, "module": public(trt), "classes": names}))
"""


def stub_libraries(folder: Path, major: str) -> None:
    """Compiles empty `libnvinfer.so.N`, `libnvinfer_plugin.so.N` and `libnvonnxparser.so.N` into `folder`."""
    source = folder / "stub.c"
    source.write_text("\n".join(f"void* {name}(void) {{ return 0; }}" for name in SYMBOLS))
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        name = f"lib{library}.so.{major}"
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)]
        subprocess.run(command, check=True)


def names_of(module: str, paths: list[Path]) -> dict[str, object]:
    """Public names of `module`, imported in a fresh process with `paths` for modules and libraries."""
    joined = ":".join(map(str, paths))
    command = [sys.executable, "-c", LIST, module, *CLASSES]
    environment = {"PYTHONPATH": joined, "LD_LIBRARY_PATH": joined, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return dict(json.loads(done.stdout))


def names_of_wheel(wheel: Path) -> dict[str, object]:
    """Public names of the bindings in `wheel`, imported over empty libraries."""
    major = wheel.name.split("-")[1].split(".")[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        stub_libraries(folder, major)
        return names_of("tensorrt_bindings", [folder])


def main() -> None:
    """Writes one entry per wheel or module named on the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    found = {}
    for source in arguments.sources:
        is_file = Path(source).is_file()
        names = names_of_wheel(Path(source)) if is_file else names_of(source, [])
        found[f"{'tensorrt' if is_file else source} {names['version']}"] = names
    arguments.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
