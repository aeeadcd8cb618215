"""Whatever ends a run from outside leaves nothing half-written."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.small import saved

WAITING = """
import time
from halpc.apart import apart

def work():
    import halpc.cli, halpc.compile
    halpc.compile.verify = lambda *args, **more: time.sleep(60)
    return halpc.cli.main()

raise SystemExit(apart(work))
"""
PATIENCE_S = 60


def _heard() -> None:
    """Signals do what they do on a terminal, also where the tests run in the background of a script."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_is_130_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    saved(tmp_path)
    command = [sys.executable, "-c", WAITING, "compile", "model.onnx", "--macs", "50%", "-o", "out"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
                          env={"PYTHONPATH": ":".join(sys.path)}, preexec_fn=_heard) as run:  # fmt: skip
        deadline = time.monotonic() + PATIENCE_S
        while not list(tmp_path.glob(".out-*.tmp")) and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        run.send_signal(getattr(signal, name))
        _, said = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 130
    assert said.strip().splitlines()[-1].startswith("halpc: interrupted")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx"]
