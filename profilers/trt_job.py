"""The TensorRT child process: it lives as long as its profiler, is handed jobs as files, and may end in any way.

TensorRT may end its process (a null pointer, a failed assertion, the kernel's memory killer). Here that is an
error message naming the signal and the stage, not the end of the compiler; the next job finds a new process. What
has failed may have left CUDA in a state in which everything fails, so a job that failed ends its process too.

The child reads folders from its standard input and answers each with a line. When that input ends, for whatever
reason its parent is gone, so does the child, in the middle of a job if need be.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from halpc import errors
from halpc.apart import signal_name
from halpc.errors import BackendError, HalpcError

# -P: a folder in which halpc happens to be started must not shadow its modules
CHILD: tuple[str, ...] = (sys.executable, "-P", "-X", "faulthandler", "-m", "profilers.trt_child")
TIMEOUT_SECONDS = 3600.0
_TAIL = 1500  # characters of the child's own output quoted in an error


class Child:
    """A process for one job after the other, started with the first; a context manager that ends it.

    It is ended as well when nobody refers to this object any more, and when the interpreter ends.
    """

    def __init__(self, command: Sequence[str] = CHILD) -> None:
        self._command = tuple(command)
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[bytes] | None = None
        self._ended: weakref.finalize[..., Any] | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process, if there is one; the next job starts another."""
        if self._ended is not None:
            self._ended()
        self._process = self._log = self._ended = None

    def run(self, job: Mapping[str, Any], folder: Path, *, timeout_s: float = TIMEOUT_SECONDS) -> dict[str, Any]:
        """Does `job` in the child process, with `folder` for its messages, and gives back its result.

        Raises:
            BackendError: the child died, took too long, or reported that TensorRT failed.
            HalpcError: whatever else halpc raised on purpose in the child.
        """
        (folder / "job.json").write_text(json.dumps(job))
        for stale in ("result.json", "stage"):
            (folder / stale).unlink(missing_ok=True)
        backend = str(job["backend"])
        try:
            process, log = self._alive(backend)
            said_before = os.fstat(log.fileno()).st_size
            if not _answers(process, folder, timeout_s, backend) and (code := process.wait()) != 0:
                raise BackendError(_epitaph(backend, code, folder, _read(log, said_before)))
            return _result(backend, folder)
        except BaseException:
            self.close()
            raise

    def _alive(self, backend: str) -> tuple[subprocess.Popen[str], IO[bytes]]:
        """The process and its log: the one there is, or a new one where there is none or it has died meanwhile."""
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None or self._log is None:
            log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
            try:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=_environment(),
                    text=True,
                )
            except OSError as error:
                log.close()
                raise BackendError(f"{backend}'s process could not be started: {error}.") from error
            self._log = log
            self._ended = weakref.finalize(self, _end, self._process, log)
        return self._process, self._log


def _end(process: subprocess.Popen[str], log: IO[bytes]) -> None:
    process.kill()
    process.communicate()
    log.close()


def _answers(process: subprocess.Popen[str], folder: Path, timeout_s: float, backend: str) -> bool:
    """Hands over the folder of a job; whether the child said that it is done, False where it died.

    Raises:
        BackendError: it said nothing in time; it has been killed.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    clock = threading.Timer(timeout_s, end)
    clock.daemon = True
    clock.start()
    try:
        process.stdin.write(f"{folder}\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except BrokenPipeError:
        answer = ""
    finally:
        clock.cancel()
    if not answer and late.is_set():
        raise BackendError(f"{backend} did not finish {_stage(folder)} in {timeout_s:.0f} s.")
    return bool(answer)


def _environment() -> dict[str, str]:
    """The parent's environment, with every folder modules are imported from."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


def _stage(folder: Path) -> str:
    path = folder / "stage"
    return path.read_text() if path.is_file() else "starting up"


def _read(log: IO[bytes], start: int) -> str:
    """What the child, which is dead, has said since."""
    log.seek(start)
    return log.read().decode(errors="replace").strip()


def _epitaph(backend: str, code: int, folder: Path, said: str) -> str:
    tail = f" Its last words: {said[-_TAIL:]}" if said else ""
    if code < 0:
        return (
            f"{backend}'s process was killed by {signal_name(-code)} while {_stage(folder)}. Look for "
            f"a TensorRT, driver and GPU that do not fit each other, or for too little memory.{tail}"
        )
    return f"{backend}'s process failed with exit code {code} while {_stage(folder)}.{tail}"


def _result(backend: str, folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    if not path.is_file():
        raise BackendError(f"{backend}'s process ended without a result while {_stage(folder)}.")
    result: dict[str, Any] = json.loads(path.read_text())
    if "error" in result:
        kind = getattr(errors, str(result["error"]), BackendError)
        raise (kind if issubclass(kind, HalpcError) else BackendError)(str(result["message"]))
    return result
