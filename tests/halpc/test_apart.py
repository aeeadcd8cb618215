"""A library that kills the process leaves a sentence, an exit code and a clean disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.small import saved

DYING = """
import os, signal
from halpc.apart import apart

def work():
    import halpc.cli, halpc.compile
    halpc.compile.verify = lambda *args, **more: os.kill(os.getpid(), signal.{})
    return halpc.cli.main()

raise SystemExit(apart(work))
"""
WAITING = """
import time
from halpc.apart import apart

def work():
    import halpc.cli, halpc.compile
    halpc.compile.verify = lambda *args, **more: time.sleep(60)
    return halpc.cli.main()

raise SystemExit(apart(work))
"""
LATE = """
import os, signal
from halpc.apart import apart
def work():
    import atexit
    atexit.register(os.kill, os.getpid(), signal.SIGSEGV)
    return 4
raise SystemExit(apart(work))
"""
PATIENCE_S = 60


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


def _command(code: str, *words: str) -> Sequence[str]:
    return [sys.executable, "-c", code, *words]


def _environment(scratch: Path) -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path), "TMPDIR": str(scratch)}


@pytest.mark.parametrize("name, why", [("SIGSEGV", "a library crashed"), ("SIGKILL", "short of memory")])
def test_a_killed_worker_is_said_and_nothing_is_left(name: str, why: str, tmp_path: Path, scratch: Path) -> None:
    saved(tmp_path)
    command = _command(DYING.format(name), "compile", "model.onnx", "--macs", "50%", "-o", "out")
    run = subprocess.run(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=_environment(scratch), timeout=60
    )
    assert run.returncode == 6
    assert run.stderr.splitlines()[-1].startswith(f"halpc: killed by {name}")
    assert "during the stage verify" in run.stderr
    assert why in run.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "tmp"]
    assert not list(scratch.iterdir())


def test_who_dies_on_its_way_out_has_done_its_work(tmp_path: Path, scratch: Path) -> None:
    run = subprocess.run(_command(LATE), stderr=subprocess.PIPE, text=True, env=_environment(scratch), timeout=60)
    assert (run.returncode, run.stderr) == (4, "")


def test_the_worker_ends_with_the_process_that_waits_for_it(tmp_path: Path, scratch: Path) -> None:
    saved(tmp_path)
    command = _command(WAITING, "compile", "model.onnx", "--macs", "50%", "-o", "out")
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, env=_environment(scratch)) as run:
        deadline = time.monotonic() + PATIENCE_S
        while not list(tmp_path.glob(".out-*.tmp")) and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(run.pid, signal.SIGKILL)
    while list(tmp_path.glob(".out-*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "tmp"]
    while list(scratch.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list(scratch.iterdir())
