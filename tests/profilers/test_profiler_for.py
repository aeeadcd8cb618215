"""Choosing a backend: what is named is used or refused, `auto` says what it took."""

from __future__ import annotations

import sys

import pytest

import profilers
from halpc.errors import BackendError, UsageError
from profilers import profiler_for


def test_onnxruntime_by_name_has_the_threads_and_precision_asked_for() -> None:
    choice = profiler_for("onnxruntime", threads=2, precision="fp16")
    assert choice.backend == "onnxruntime"
    assert (choice.profiler.device.threads, choice.profiler.device.precision) == (2, "fp16")
    assert choice.passed_over == ()


def test_an_unknown_name_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="choose auto, onnxruntime, openvino, tensorrt, tensorrt_rtx"):
        profiler_for("stopwatch")


@pytest.mark.parametrize("name", profilers.BACKENDS)
def test_every_name_that_may_be_asked_for_is_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profilers.importlib, "import_module", missing)
    with pytest.raises(BackendError, match="no driver"):
        profiler_for(name)


def missing(*_: object) -> None:
    raise BackendError("no driver: install one")


def test_a_named_backend_that_is_missing_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profilers, "_tensorrt", missing)
    for name in ("tensorrt", "tensorrt_rtx"):
        with pytest.raises(BackendError, match="no driver"):
            profiler_for(name)


def test_auto_says_what_it_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profilers, "_tensorrt", missing)
    choice = profiler_for("auto")
    assert choice.backend == "onnxruntime"
    assert choice.passed_over == ("tensorrt: no driver: install one",)


def test_a_reason_names_its_backend_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise BackendError("tensorrt: no driver")

    monkeypatch.setattr(profilers, "_tensorrt", refused)
    assert profiler_for("auto").passed_over == ("tensorrt: no driver",)


def test_auto_prefers_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    there = profiler_for("onnxruntime").profiler
    monkeypatch.setattr(profilers, "_tensorrt", lambda *_: there)
    assert profiler_for("auto").backend == "tensorrt"


def test_auto_with_nothing_installed_names_every_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profilers, "_tensorrt", missing)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match=r"tensorrt: no driver.*; onnxruntime: onnxruntime cannot be imported"):
        profiler_for("auto")


def test_onnxruntime_missing_is_a_backend_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match="pip install onnxruntime") as caught:
        profiler_for("onnxruntime")
    assert caught.value.exit_code == 6
