"""The command line's arguments as they are written, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from halpc.arguments import joined
from halpc.cli import main
from tests.small import saved


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return saved(tmp_path)


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that is said of a usage error."""
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1, said
    return said


@pytest.mark.parametrize("option", ["--latency", "--macs", "--peak-memory", "--shape", "--batch", "--max-drop"])
@pytest.mark.parametrize("value", ["-5ms", "-.5", "-60%", "-1:3x8x8"])
def test_a_value_below_zero_is_refused_as_if_joined(
    option: str, value: str, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--evaluate", "e.npz"] if option == "--max-drop" else []
    more += ["--macs", "60%"] if option in ("--shape", "--batch") else []
    apart = refusal(["compile", str(network), option, value, *more], capsys)
    assert apart == refusal(["compile", str(network), f"{option}={value}", *more], capsys)
    assert value.partition(":")[0] in apart


@pytest.mark.parametrize("option", ["--latency", "--freeze", "--importance", "-o/--output"])
def test_a_value_that_looks_like_an_option_is_told_how_to_be_given(
    option: str, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(["compile", str(network), option.split("/")[0], "-inf"], capsys)
    assert f"given as {option.split('/')[-1]}=VALUE" in said


def test_only_what_follows_an_option_is_joined_to_it() -> None:
    assert joined(["schedule", "-5", "--steps", "-2", "-o", "-1.x"]) == ["schedule", "-5", "--steps=-2", "-o=-1.x"]
    assert joined(["--steps=3", "-2", "--", "-o", "-1"]) == ["--steps=3", "-2", "--", "-o", "-1"]


def test_a_folder_may_begin_with_a_minus(network: Path) -> None:
    assert main(["compile", str(network), "-q", "--macs", "60%", "-o", "-1.out"]) == 0
    assert Path("-1.out/report.json").is_file()
