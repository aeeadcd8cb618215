"""Every TensorRT name that halpc uses exists in the real bindings of every version it works with.

`trt_names.json` was written by `list_trt_names.py` from the wheels on PyPI; its docstring has the commands.
In the source a name is used as `trt.X.Y`, or on a variable whose name says its class.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = ("trt_engine.py", "trt_time.py", "trt_child.py")
CLASS_OF = {
    "builder": "Builder", "config": "IBuilderConfig", "network": "INetworkDefinition", "parser": "OnnxParser",
    "engine": "ICudaEngine", "context": "IExecutionContext", "inspector": "EngineInspector",
    "cache": "ITimingCache", "runtime": "Runtime",
    "profile": "IOptimizationProfile", "tensor": "ITensor", "failure": "ParserError",
    "plan": "IHostMemory", "kind": "DataType",
}  # fmt: skip
KNOWN = json.loads((HERE / "trt_names.json").read_text())


def chain(node: ast.expr) -> list[str]:
    """`a.b.c` as its parts; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return [node.id, *parts] if isinstance(node, ast.Name) else []


def uses(source: Path) -> Iterator[tuple[str, str]]:
    """(class or "module", name) of every TensorRT name in a source file."""
    for node in ast.walk(ast.parse(source.read_text())):
        parts = chain(node) if isinstance(node, ast.Attribute) else []
        for start, part in enumerate(parts[:-1]):
            rest = parts[start + 1 :]
            if part == "trt":
                yield "module", rest[0]
                if len(rest) > 1:
                    yield rest[0], rest[1]
            elif part in CLASS_OF and source.name != "trt_child.py":
                yield CLASS_OF[part], rest[0]


USED = sorted({use for name in SOURCES for use in uses(HERE.parents[1] / "profilers" / name)})
NOT_TENSORRT = {("IHostMemory", "read_bytes"), ("IHostMemory", "name"), ("module", "__version__")}


@pytest.mark.parametrize("version", sorted(KNOWN))
def test_every_name_used_exists(version: str) -> None:
    names = {"module": KNOWN[version]["module"], **KNOWN[version]["classes"]}
    ours = [use for use in USED if use not in NOT_TENSORRT and use[1] != "__init__"]
    missing = [use for use in ours if use[1] not in names.get(use[0], ())]
    assert not missing


def test_the_names_used_are_found_at_all() -> None:
    assert {("module", "Builder"), ("IExecutionContext", "execute_async_v3")} <= set(USED)
    assert ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED") in USED
    assert len(USED) > 50


def test_both_major_versions_are_known() -> None:
    assert {name.split(".")[0] for name in KNOWN} >= {"tensorrt 10", "tensorrt 11", "tensorrt_rtx 1"}


@pytest.mark.slow
def test_the_list_is_what_the_wheels_have(tmp_path: Path) -> None:
    """Downloads the two small wheels and lists them afresh; skipped where the index is out of reach."""
    tag = f"{sys.version_info.major}{sys.version_info.minor}"
    for version in (name.split()[1] for name in KNOWN if name.startswith("tensorrt ")):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", tag, "--implementation", "cp", "--platform", "manylinux_2_28_x86_64"]
        command += ["--dest", str(tmp_path), f"tensorrt-cu13-bindings=={version}"]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip(f"pip cannot download the bindings of TensorRT {version}")
    out = tmp_path / "names.json"
    wheels = [str(wheel) for wheel in sorted(tmp_path.glob("*.whl"))]
    script = [sys.executable, str(HERE / "list_trt_names.py"), "--out", str(out), *wheels]
    subprocess.run(script, check=True)
    found = json.loads(out.read_text())
    assert len(found) == 2
    assert found == {name: KNOWN[name] for name in found}
