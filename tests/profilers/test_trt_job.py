"""Every way the child process can end is its own error."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from halpc.errors import BackendError, ModelError
from profilers import trt_job

JOB = {"action": "plan", "backend": "tensorrt", "needs_gpu": True}


def child(code: str) -> tuple[str, ...]:
    """A child process that runs `code`, the job's folder in `folder`."""
    return (
        sys.executable,
        "-c",
        f"import json, os, sys, pathlib; folder = pathlib.Path(sys.argv[1]); {code}",
    )


def test_a_segfault_is_an_error_naming_signal_and_stage(tmp_path: Path) -> None:
    crash = child(
        "(folder / 'stage').write_text('building an engine for net.onnx'); print('last gasp', flush=True);"
        "os.kill(os.getpid(), 11)"
    )
    with pytest.raises(BackendError, match=r"(?s)SIGSEGV \(signal 11\) while building .*net.onnx.*last gasp"):
        trt_job.run(JOB, tmp_path, command=crash)


def test_an_uncaught_error_quotes_the_child(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"(?s)exit code 1 while starting up.*ZeroDivisionError"):
        trt_job.run(JOB, tmp_path, command=child("1 / 0"))


def test_a_child_without_a_result_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="ended without a result"):
        trt_job.run(JOB, tmp_path, command=child("pass"))


def test_a_result_of_an_earlier_job_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"plans": []}')
    with pytest.raises(BackendError, match="ended without a result"):
        trt_job.run(JOB, tmp_path, command=child("pass"))


def test_a_child_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"did not finish starting up in 1 s"):
        trt_job.run(JOB, tmp_path, command=child("import time; time.sleep(60)"), timeout_s=1.0)


def test_a_command_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="could not be started"):
        trt_job.run(JOB, tmp_path, command=("/nonexistent/python",))


@pytest.mark.parametrize(("name", "kind"), [("ModelError", ModelError), ("NoSuchError", BackendError)])
def test_errors_keep_their_class_across_the_border(tmp_path: Path, name: str, kind: type[Exception]) -> None:
    report = child(f"(folder / 'result.json').write_text(json.dumps(dict(error='{name}', message='what to do')))")
    with pytest.raises(kind, match="what to do"):
        trt_job.run(JOB, tmp_path, command=report)


def test_a_result_comes_back_whole(tmp_path: Path) -> None:
    answer = child("(folder / 'result.json').write_text((folder / 'job.json').read_text())")
    assert trt_job.run(JOB, tmp_path, command=answer) == JOB


def test_a_module_in_the_folder_where_halpc_is_started_does_not_shadow_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "profilers.py").write_text("raise SystemExit(77)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    folder = tmp_path / "job"
    folder.mkdir()
    with pytest.raises(BackendError) as caught:
        trt_job.run({"action": "layers", "backend": "tensorrt", "needs_gpu": True}, folder)
    assert "77" not in str(caught.value)
