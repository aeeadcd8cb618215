"""The command line's work in a process of its own, so that a library that dies takes no sentence with it.

onnxruntime, or a system that is short of memory, can kill the process that they run in, and then nothing of it can
still say what happened, or tidy up. So a first process, which loads nothing, starts the one that works and waits for
it: a death by a signal becomes one line and the exit code of a failed runtime, and scratch folders go. Both know a
folder, the ledger: `stage` says what was being done, `owned` lists scratch folders elsewhere, `code` is the exit code,
for a library that dies when all is done; temporary files are made in it. Signals are handed on, and the worker ends
itself where the first process is gone. Without `os.fork` the work is done here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from halpc.streams import tell

FAILED = 6  # the exit code of `halpc.errors.BackendError`, which is not loaded here
ONCE_S = 1.0  # signals that come closer together are one: a terminal's reaches both processes, and is handed on, too
HANDED_ON = ("SIGINT", "SIGTERM", "SIGHUP")

_ledger: Path | None = None  # of the process that works


def doing(stage: str) -> None:
    """Note what is being done from now on."""
    if _ledger is not None:
        _note(_ledger / "stage", stage, "w")


def own(folder: Path) -> None:
    """Note a scratch folder that is to go where this process dies."""
    if _ledger is not None:
        _note(_ledger / "owned", f"{folder.absolute()}\n", "a")


def apart(work: Callable[[], int]) -> int:
    """What `work` returns, which a child of this process does; a line and 6 where it is killed by a signal.

    Signals that end a program raise KeyboardInterrupt in `work`, except those that somebody has ignored.
    """
    if not hasattr(os, "fork"):
        _interruptible()
        return work()
    try:
        ledger = Path(tempfile.mkdtemp(prefix="halpc-"))
    except OSError:  # who needs temporary files will say so
        _interruptible()
        return work()
    here, there = os.pipe()  # nothing is ever written: it closes where the first process ends
    first = os.getpid()
    try:
        worker = os.fork()
    except OSError:  # no more processes may be made
        shutil.rmtree(ledger, ignore_errors=True)
        _interruptible()
        return work()
    if worker == 0:
        os.close(there)
        try:
            return _work(work, ledger, here)
        finally:
            if os.getppid() != first:
                shutil.rmtree(ledger, ignore_errors=True)
    os.close(here)
    try:
        return _outcome(_wait(worker), ledger)
    finally:
        shutil.rmtree(ledger, ignore_errors=True)


def _work(work: Callable[[], int], ledger: Path, leash: int) -> int:
    global _ledger
    _ledger = ledger
    tempfile.tempdir = str(ledger)
    _interruptible()
    threading.Thread(target=_end_with, args=(leash,), daemon=True).start()
    code = work()
    _note(ledger / "code", str(code), "w")
    return code


def _end_with(leash: int) -> None:
    """Interrupt this process where the one that waits for it is gone."""
    os.read(leash, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _interruptible() -> None:
    """Every signal that ends a program is KeyboardInterrupt, once."""
    last = -ONCE_S

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before >= ONCE_S:
            raise KeyboardInterrupt

    for number in _heard():
        signal.signal(number, interrupt)


def _heard() -> list[signal.Signals]:
    """Signals that end a program, as far as nobody has them ignored (`nohup`, a script's background)."""
    usual = (signal.SIG_DFL, signal.default_int_handler)
    numbers = [getattr(signal, name) for name in HANDED_ON if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) in usual]


def _wait(worker: int) -> int:
    """The worker's exit code, less than 0 where a signal killed it."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, number)

    for number in _heard():
        signal.signal(number, hand_on)
    _, status = os.waitpid(worker, 0)  # goes on after a signal
    return os.waitstatus_to_exitcode(status)


def _outcome(code: int, ledger: Path) -> int:
    """The exit code that the caller sees; of a worker that was killed its epitaph is printed."""
    if code >= 0:
        return code
    done = ledger / "code"
    if done.is_file():  # it died on its way out
        return int(done.read_text())
    _tidy(ledger)
    tell(_epitaph(-code, ledger))
    return FAILED


def _tidy(ledger: Path) -> None:
    owned = ledger / "owned"
    for folder in owned.read_text().splitlines() if owned.is_file() else ():
        shutil.rmtree(folder, ignore_errors=True)


def _epitaph(number: int, ledger: Path) -> str:
    stage = ledger / "stage"
    when = f" during {stage.read_text()}" if stage.is_file() else ""
    if number == getattr(signal, "SIGKILL", None):
        why = "the system was short of memory, or somebody killed it: make room, or take a smaller --batch"
    else:
        why = "a library crashed, most likely onnxruntime on this model: try whether it runs there alone"
    return f"killed by {signal_name(number)}{when}: {why}; no file is half-written"


def signal_name(number: int) -> str:
    """What people call a signal."""
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"


def _note(path: Path, text: str, mode: str) -> None:
    with contextlib.suppress(OSError), path.open(mode, encoding="utf-8") as file:
        file.write(text)
