"""A job for the TensorRT child process: handed over as files, and every way it can end told apart.

TensorRT may end its process (a null pointer, a failed assertion, the kernel's memory killer). Here that is an
error message naming the signal and the stage, not the end of the compiler.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from halpc import errors
from halpc.errors import BackendError, HalpcError

# -P: a folder in which halpc happens to be started must not shadow its modules
CHILD: tuple[str, ...] = (sys.executable, "-P", "-X", "faulthandler", "-m", "profilers.trt_child")
TIMEOUT_SECONDS = 3600.0
_TAIL = 1500  # characters of the child's own output quoted in an error


def run(
    job: Mapping[str, Any],
    folder: Path,
    *,
    command: Sequence[str] = CHILD,
    timeout_s: float = TIMEOUT_SECONDS,
) -> dict[str, Any]:
    """Does `job` in a child process, with `folder` for its messages, and gives back its result.

    Raises:
        BackendError: the child died, took too long, or reported that TensorRT failed.
        HalpcError: whatever else halpc raised on purpose in the child.
    """
    (folder / "job.json").write_text(json.dumps(job))
    for stale in ("result.json", "stage"):
        (folder / stale).unlink(missing_ok=True)
    backend = str(job["backend"])
    with (folder / "log.txt").open("wb") as log:
        try:
            done = subprocess.run(
                [*command, str(folder)],
                stdout=log,
                stderr=log,
                env=_environment(),
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BackendError(f"{backend} did not finish {_stage(folder)} in {timeout_s:.0f} s.") from error
        except OSError as error:
            raise BackendError(f"{backend}'s process could not be started: {error}.") from error
    if done.returncode != 0:
        raise BackendError(_epitaph(backend, done.returncode, folder))
    return _result(backend, folder)


def _environment() -> dict[str, str]:
    """The parent's environment, with every folder modules are imported from."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


def _stage(folder: Path) -> str:
    path = folder / "stage"
    return path.read_text() if path.is_file() else "starting up"


def _epitaph(backend: str, code: int, folder: Path) -> str:
    said = (folder / "log.txt").read_text(errors="replace").strip()
    tail = f" Its last words: {said[-_TAIL:]}" if said else ""
    if code < 0:
        return (
            f"{backend}'s process was killed by {_signal(-code)} while {_stage(folder)}. Look for "
            f"a TensorRT, driver and GPU that do not fit each other, or for too little memory.{tail}"
        )
    return f"{backend}'s process failed with exit code {code} while {_stage(folder)}.{tail}"


def _signal(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"


def _result(backend: str, folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    if not path.is_file():
        raise BackendError(f"{backend}'s process ended without a result while {_stage(folder)}.")
    result: dict[str, Any] = json.loads(path.read_text())
    if "error" in result:
        kind = getattr(errors, str(result["error"]), BackendError)
        raise (kind if issubclass(kind, HalpcError) else BackendError)(str(result["message"]))
    return result
