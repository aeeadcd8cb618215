"""Every way the child process can end is its own error; it lives as long as its profiler, and no longer."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from halpc.errors import BackendError, ModelError
from profilers import trt_job

JOB = {"action": "plan", "backend": "tensorrt", "needs_gpu": True}


def child(code: str) -> tuple[str, ...]:
    """A child process that runs `code` for every job, whose folder is in `folder`."""
    lines = ("import json, os, sys, pathlib", "for line in sys.stdin:", "    folder = pathlib.Path(line.strip())",
             f"    {code}", "    print('done', flush=True)")  # fmt: skip
    return (sys.executable, "-c", "\n".join(lines))


def run(folder: Path, code: str, timeout_s: float = 60.0) -> dict[str, Any]:
    """One job in a child process of its own."""
    with trt_job.Child(child(code)) as process:
        return process.run(JOB, folder, timeout_s=timeout_s)


def test_a_segfault_is_an_error_naming_signal_and_stage(tmp_path: Path) -> None:
    crash = (
        "(folder / 'stage').write_text('building an engine for net.onnx'); "
        "print('last gasp', file=sys.stderr, flush=True);"
        "os.kill(os.getpid(), 11)"
    )
    with pytest.raises(BackendError, match=r"(?s)SIGSEGV \(signal 11\) while building .*net.onnx.*last gasp"):
        run(tmp_path, crash)


def test_an_uncaught_error_quotes_the_child(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"(?s)exit code 1 while starting up.*ZeroDivisionError"):
        run(tmp_path, "1 / 0")


def test_a_child_without_a_result_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="ended without a result"):
        run(tmp_path, "pass")


def test_a_result_of_an_earlier_job_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"plans": []}')
    with pytest.raises(BackendError, match="ended without a result"):
        run(tmp_path, "pass")


def test_a_child_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"did not finish starting up in 1 s"):
        run(tmp_path, "import time; time.sleep(60)", timeout_s=1.0)


def test_a_command_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="could not be started"):
        trt_job.Child(("/nonexistent/python",)).run(JOB, tmp_path)


@pytest.mark.parametrize(("name", "kind"), [("ModelError", ModelError), ("NoSuchError", BackendError)])
def test_errors_keep_their_class_across_the_border(tmp_path: Path, name: str, kind: type[Exception]) -> None:
    report = f"(folder / 'result.json').write_text(json.dumps(dict(error='{name}', message='what to do')))"
    with pytest.raises(kind, match="what to do"):
        run(tmp_path, report)


def test_a_result_comes_back_whole(tmp_path: Path) -> None:
    assert run(tmp_path, "(folder / 'result.json').write_text((folder / 'job.json').read_text())") == JOB


def test_a_module_in_the_folder_where_halpc_is_started_does_not_shadow_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "profilers.py").write_text("raise SystemExit(77)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    folder = tmp_path / "job"
    folder.mkdir()
    with pytest.raises(BackendError) as caught:
        trt_job.Child().run({"action": "layers", "backend": "tensorrt", "needs_gpu": True}, folder)
    assert "77" not in str(caught.value)


PID = "(folder / 'result.json').write_text(json.dumps(dict(pid=os.getpid())))"


def is_gone(pid: int, within_s: float = 10.0) -> bool:
    """Whether a process ends in time; a dead one that nobody has waited for counts as gone."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        stat = Path(f"/proc/{pid}/stat")
        with contextlib.suppress(OSError):
            if stat.read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.02)
                continue
        return True
    return False


def test_one_process_does_job_after_job(tmp_path: Path) -> None:
    with trt_job.Child(child(PID)) as process:
        first, second = (process.run(JOB, tmp_path)["pid"] for _ in range(2))
    assert first == second != os.getpid()
    assert is_gone(first)


def test_a_process_that_died_between_jobs_is_started_again(tmp_path: Path) -> None:
    with trt_job.Child(child(PID)) as process:
        first = process.run(JOB, tmp_path)["pid"]
        os.kill(first, signal.SIGKILL)
        assert is_gone(first)
        assert process.run(JOB, tmp_path)["pid"] != first


REFUSING = "(folder / 'result.json').write_text(json.dumps(dict(error='x', message='y')))"


@pytest.mark.parametrize("failing", ["os.kill(os.getpid(), 11)", "import time; time.sleep(60)", "1 / 0", REFUSING])
def test_after_a_job_that_failed_the_next_finds_a_new_process(tmp_path: Path, failing: str) -> None:
    pids: list[int] = []
    code = (
        f"(folder / 'pid').write_text(str(os.getpid()));\n    if (folder / 'fail').exists(): {failing}\n    else: {PID}"
    )
    with trt_job.Child(child(code)) as process:
        for fails in (False, True, False):
            (tmp_path / "fail").touch() if fails else (tmp_path / "fail").unlink(missing_ok=True)
            with pytest.raises(BackendError) if fails else contextlib.nullcontext():
                process.run(JOB, tmp_path, timeout_s=1.0)
            pids.append(int((tmp_path / "pid").read_text()))
    assert pids[0] == pids[1] != pids[2]
    assert all(map(is_gone, pids))


def test_the_last_words_are_those_of_the_job_that_failed(tmp_path: Path) -> None:
    code = (
        f"print('warning of an earlier job', file=sys.stderr, flush=True); (folder / 'fail').exists() and 1 / 0; {PID}"
    )
    with trt_job.Child(child(code)) as process:
        process.run(JOB, tmp_path)
        (tmp_path / "fail").touch()
        with pytest.raises(BackendError, match="ZeroDivisionError") as caught:
            process.run(JOB, tmp_path)
    assert str(caught.value).count("warning of an earlier job") == 1


def test_the_process_ends_with_the_last_reference(tmp_path: Path) -> None:
    process = trt_job.Child(child(PID))
    pid = process.run(JOB, tmp_path)["pid"]
    del process
    gc.collect()
    assert is_gone(pid)


PARENT = """
import os, pathlib, signal, sys
from profilers import trt_job

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background without

folder, command = pathlib.Path(sys.argv[1]), tuple(sys.argv[2:])
process = trt_job.Child(command)
job = {"action": "plan", "backend": "tensorrt", "needs_gpu": True}
process.run(job, folder)
"""
WAITING = {
    "the program ends": "pass",
    "an exception that nobody catches": "raise RuntimeError",
    "sys.exit in a with block": "with process: sys.exit(3)",
}


def started(tmp_path: Path, then: str) -> subprocess.Popen[bytes]:
    """A program that has run a job in a child, whose number is in `result.json`, and goes on with `then`."""
    code = f"(folder / 'hang').exists() and __import__('time').sleep(60); {PID}"
    return subprocess.Popen(
        [sys.executable, "-c", PARENT + then, str(tmp_path), *child(code)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )


def its_child(tmp_path: Path, program: subprocess.Popen[bytes]) -> int:
    until = time.monotonic() + 30
    while not (tmp_path / "pid").exists():
        assert time.monotonic() < until
        assert program.poll() is None
        time.sleep(0.02)
    return int((tmp_path / "pid").read_text())


@pytest.mark.parametrize("how", WAITING)
def test_no_process_stays_when(how: str, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    program = started(
        tmp_path, f"(folder / 'pid').write_bytes((folder / 'result.json').read_bytes()[8:-1])\n{WAITING[how]}"
    )
    program.wait(60)
    assert result.exists()
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_no_process_stays_when_the_program_is_interrupted_while_it_waits(tmp_path: Path) -> None:
    program = started(
        tmp_path,
        "(folder / 'hang').touch()\n"
        "(folder / 'pid').write_bytes((folder / 'result.json').read_bytes()[8:-1])\n"
        "process.run(job, folder)",
    )
    pid = its_child(tmp_path, program)
    time.sleep(0.2)
    assert not is_gone(pid, within_s=0.1)
    program.send_signal(signal.SIGINT)
    program.wait(30)
    assert is_gone(pid)


def test_the_real_child_ends_in_the_middle_of_a_job_when_its_parent_is_gone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "job.json")  # reading it waits for a writer
    process = subprocess.Popen(trt_job.CHILD, stdin=subprocess.PIPE, env=trt_job._environment())
    assert process.stdin is not None
    process.stdin.write(f"{tmp_path}\n".encode())
    process.stdin.flush()
    time.sleep(1.0)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)  # Ctrl-C in a terminal reaches it too; its parent decides
    time.sleep(0.2)
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(10) == 0
