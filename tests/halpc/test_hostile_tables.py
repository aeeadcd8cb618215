"""Damaged, foreign and misplaced latency tables, and devices that are not there: one line, the right exit code."""

from __future__ import annotations

import functools
import importlib
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from halpc.cli import main
from tests.small import saved


@functools.cache
def profiled() -> str:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "t.jsonl")
        assert main(["profile", str(saved(Path(name))), "-o", str(path), "-q", "--profiler", "onnxruntime"]) == 0
        return path.read_text()


@pytest.fixture
def table() -> str:
    """What `halpc profile` writes for the small network, once for all tests."""
    return profiled()


def compiling(folder: Path, *more: str) -> list[str]:
    return ["compile", str(saved(folder)), "-o", str(folder / "out"), "-q", "--latency", "70%", "--dry-run", *more]


def refused(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """One line on stderr with all of `words`, and this exit code."""
    capsys.readouterr()
    assert main(arguments) == code
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1, said
    assert all(word in said for word in words), said


def changed(pattern: str, by: str) -> Callable[[str], str]:
    return lambda text: re.sub(pattern, by, text)


DAMAGE: dict[str, tuple[Callable[[str], str], tuple[str, ...]]] = {
    "nan": (changed(r'"ms": [0-9.e-]+', '"ms": NaN'), ("line", "ms is nan", "profile anew")),
    "infinite": (changed(r'"ms": [0-9.e-]+', '"ms": 1e999'), ("line", "ms is inf")),
    "negative": (changed(r'"ms": ', '"ms": -'), ("line", "ms is -")),
    "beyond time": (changed(r'"ms": [0-9.e-]+', '"ms": 1e300'), ("line", "ms is 1e+300")),
    "of another program": (lambda text: text + '{"future": 1}\n', ("line", "it has no")),
    "another encoding": (lambda text: text + "\x00{\x00\n", ("line", "damaged")),
    "a list": (lambda text: text + "[1, 2]\n", ("line", "no record of a table")),
    "without end": (lambda text: text + "[" * 100_000 + "\n", ("line", "no record of a table")),
    "of two devices": (
        lambda text: text + text.replace('"threads": 1', '"threads": 2'),
        ("line", "another device", "threads 1, not 2"),
    ),
    "zero": (changed(r'"ms": [0-9.e-]+', '"ms": 0'), ("line", "ms is 0")),
    "cut in the middle": (lambda text: text[: len(text) // 2] + "\n" + text[len(text) // 2 :], ("line", "damaged")),
    "of another version": (changed('"version": 2', '"version": 9'), ("version 9",)),
    "a header alone": (lambda text: text.partition("\n")[0] + "\n", ("does not fit the model", "halpc profile")),
    "empty": (lambda text: "", ("is empty", "halpc profile")),
    "no table": (lambda text: "\x08\x07onnx", ("is not a latency table",)),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_table_is_refused(how: str, table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, words = DAMAGE[how]
    (tmp_path / "t.jsonl").write_text(damage(table))
    given = ("--table", str(tmp_path / "t.jsonl"), "--accept-table-from-other-device")
    refused(compiling(tmp_path, *given), 3, capsys, "t.jsonl", *words)


OTHER: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "precision": (("--precision", "fp16"), ("precision fp32, not fp16",)),
    "threads": (("--threads", "2"), ("threads 1, not 2",)),
    "precision, as if it were the device's": (
        ("--precision", "fp16", "--accept-table-from-other-device"),
        ("measured at fp32", "this compile is at fp16"),
    ),
}


@pytest.mark.parametrize("what", OTHER)
def test_a_table_of_other_conditions_is_refused(
    what: str, table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.jsonl").write_text(table)
    arguments, words = OTHER[what]
    given = ("--table", str(tmp_path / "t.jsonl"), "--profiler", "onnxruntime", *arguments)
    refused(compiling(tmp_path, *given), 3, capsys, *words)


def test_a_table_that_is_not_there_cannot_stand_in_for_a_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--table", str(tmp_path / "t.jsonl"), "--accept-table-from-other-device")
    refused(compiling(tmp_path, *given), 3, capsys, "t.jsonl: cannot be read")


@pytest.mark.parametrize("command", ["compile", "profile"])
def test_a_table_where_nothing_can_be_written_is_refused(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(saved(tmp_path) / "inside a file" / "t.jsonl")
    arguments = {
        "compile": compiling(tmp_path, "--table", path, "--profiler", "onnxruntime"),
        "profile": ["profile", str(tmp_path / "model.onnx"), "-o", path, "-q", "--profiler", "onnxruntime"],
    }[command]
    refused(arguments, 3, capsys, "cannot be written", "--table", "HALPC_CACHE")


@pytest.mark.parametrize("name", ["openvino", "tensorrt", "tensorrt_rtx"])
def test_a_backend_that_was_named_and_is_missing_is_6(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.import_module

    def without(module: str, *package: Any) -> Any:
        if module == "openvino":
            raise ModuleNotFoundError("No module named 'openvino'")
        return real(module, *package)

    monkeypatch.setattr(importlib, "import_module", without)
    monkeypatch.setattr("profilers.cuda.DRIVER_LIBRARY", "libcuda-that-nobody-has.so")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # of the child process
    refused(compiling(tmp_path, "--profiler", name), 6, capsys, name)


@pytest.mark.parametrize(
    "arguments",
    [("--seconds", "inf"), ("--seconds", "nan"), ("--seconds", "-1"), ("--percentile", "0"), ("--percentile", "101"),
     ("--threads", "100000", "--profiler", "onnxruntime")],
    ids=" ".join,
)  # fmt: skip
def test_a_comparison_that_makes_no_sense_is_a_usage_error(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [str(saved(tmp_path, name=name)) for name in ("a.onnx", "b.onnx")]
    refused(["bench", *models, "-q", *arguments], 2, capsys, arguments[0])
