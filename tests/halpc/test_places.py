"""Names that no disk holds, places that take nothing, terminals without the letters: one line, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from halpc.cli import main
from passes.write import json_text
from tests.small import saved

LONG = "x" * 300
SOMEWHERE = {
    "model": ["compile", LONG, "--macs", "50%"],
    "importance": ["compile", "model.onnx", "--macs", "50%", "--importance", f"{LONG}.npz"],
    "calibration": ["compile", "model.onnx", "--macs", "50%", "--calibration", f"{LONG}.npz"],
    "plan": ["compile", "model.onnx", "--macs", "50%", "--resume", f"{LONG}.json"],
    "table": ["compile", "model.onnx", "--latency", "50%", "--table", LONG],
    "profile": ["profile", "model.onnx", "-o", LONG],
    "graph": ["inspect", "model.onnx", "--graph", f"{LONG}.svg"],
    "bench": ["bench", "model.onnx", LONG],
}


@pytest.mark.parametrize("what", SOMEWHERE)
def test_a_name_that_is_too_long_is_refused_by_itself(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path)
    assert main(SOMEWHERE[what]) == 3
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert said.startswith(f"halpc: {LONG}")
    assert "give another name" in said
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("where", ["model", "importance", "calibration", "plan", "table", "profile", "graph", "bench"])
def test_links_that_go_in_circles_are_refused_by_name(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path)
    arguments = [word.replace(LONG, "loop") for word in SOMEWHERE[where]]
    loop = next(word for word in arguments if word.startswith("loop"))
    Path(loop).symlink_to(loop)
    assert main(arguments) == 3
    assert capsys.readouterr().err == f"halpc: {loop}: Too many levels of symbolic links; give another name\n"


def run(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    with Path("/dev/full").open("wb") as full:
        return subprocess.run(
            [sys.executable, "-m", "halpc", *arguments],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **more},
            stdout=full if not more else subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "command", ["inspect model.onnx", "inspect model.onnx --json", "schedule --latency 50% --steps 2"]
)
def test_a_result_that_cannot_be_printed_is_one_line(command: str, tmp_path: Path) -> None:
    saved(tmp_path)
    done = run(tmp_path, *command.split())
    assert done.returncode == 3
    assert done.stderr.decode().strip().splitlines() == ["halpc: the result cannot be printed: No space left on device"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_files_of_a_result_that_cannot_be_printed_are_there_and_said_to_be(tmp_path: Path) -> None:
    saved(tmp_path)
    done = run(tmp_path, "compile", "model.onnx", "--macs", "60%", "-o", "out")
    assert done.returncode == 3
    assert done.stderr.decode().strip().endswith("No space left on device; everything was written: out")
    assert (tmp_path / "out" / "report.json").is_file()


REDIRECTED = {
    ">&-": 0, "2>&-": 0, "<&- >&- 2>&-": 0, "| true": 0, "--freeze nothing 2>/dev/full": 2, "--resume no 2>&-": 3,
    "--params 0.01% 2>/dev/full": 4, "--params 0.01% >&- 2>&-": 4,
}  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("where", REDIRECTED)
def test_where_nobody_listens_the_exit_code_is_what_happened(where: str, tmp_path: Path) -> None:
    saved(tmp_path)
    command = f"{sys.executable} -m halpc compile model.onnx --macs 60% -o out {where}"
    shell = ["bash", "-c", f'{command}; exit "${{PIPESTATUS[0]}}"']
    done = subprocess.run(shell, cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False)
    assert done.returncode == REDIRECTED[where]
    assert (tmp_path / "out" / "report.json").is_file() == (done.returncode == 0)


def test_a_sweep_whose_reader_has_gone_still_says_that_nothing_was_met(tmp_path: Path) -> None:
    saved(tmp_path)
    shell = f'{sys.executable} -m halpc sweep model.onnx --macs 0.01% -o out | true; exit "${{PIPESTATUS[0]}}"'
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(["bash", "-c", shell], cwd=tmp_path, env=environment, check=False).returncode == 4


@pytest.mark.parametrize("command", ["compile --macs 60% --dry-run", "inspect", "bench"])
@pytest.mark.parametrize("name", ["[/red]", "[bold]", ":smile:"])
def test_a_name_is_no_formatting(
    name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = f"{name}.onnx" if "/" not in name else f"{name}m.onnx"
    Path(path).parent.mkdir(exist_ok=True)
    saved(tmp_path, name=path)
    more = [str(saved(tmp_path)), "--seconds", "0", "--profiler", "onnxruntime"] if command == "bench" else []
    assert main([command.split()[0], path, *command.split()[1:], *more]) == 0
    assert path in capsys.readouterr().out


def test_letters_that_a_terminal_lacks_are_spelled(tmp_path: Path) -> None:
    path = saved(tmp_path, name="сеть.onnx")
    done = run(tmp_path, "compile", path.name, "--macs", "60%", "-o", "out", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u0441\\u0435\\u0442\\u044c.onnx" in done.stdout
    assert (tmp_path / "out" / "report.json").is_file()


def test_json_has_neither_infinity_nor_nan() -> None:
    said = json_text({"a": [float("inf"), np.float32("nan"), 1.5], "b": {"c": (-np.inf, np.int64(3))}, "d": Path("x")})
    assert json.loads(said, parse_constant=pytest.fail) == {"a": [None, None, 1.5], "b": {"c": [None, 3]}, "d": "x"}
