"""--min-shapes, --opt-shapes and --max-shapes: what fits the model becomes a profile, the rest is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from halpc.cli import main
from halpc.engine_shapes import engine_shapes
from halpc.errors import UsageError
from passes.load import load
from tests.small import saved


def test_what_is_not_given_is_what_was_analysed(tmp_path: Path) -> None:
    model = load(saved(tmp_path), batch=4)
    profile = engine_shapes(model, {"max": {"x": (16, 3, 8, 8)}})["x"]
    assert (profile.min, profile.opt, profile.max) == ((4, 3, 8, 8), (4, 3, 8, 8), (16, 3, 8, 8))


@pytest.mark.parametrize(
    ("which", "shapes", "complaint"),
    [
        ("max", {"y": (1, 3, 8, 8)}, "no input 'y', only x"),
        ("max", {"x": (1, 3, 9, 8)}, r"takes \?x3x8x8"),
        ("min", {"x": (1, 3, 8)}, r"--min-shapes x:1x3x8: input 'x' takes \?x3x8x8"),
        ("max", {"x": (2, 3, 8, 8)}, "must not fall from min to opt to max: min 4x3x8x8, opt 4x3x8x8, max 2x3x8x8"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, which: str, shapes: dict[str, tuple[int, ...]], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        engine_shapes(load(saved(tmp_path), batch=4), {which: shapes})


def test_the_command_line_refuses_it_before_anything_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compile", str(saved(tmp_path)), "--macs", "50%", "--max-shapes", "z:1x3", "-o", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "no input 'z'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_shapes_of_an_engine_that_is_not_built_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "compile",
        str(saved(tmp_path)),
        "--macs",
        "50%",
        "--max-shapes",
        "x:4x3x8x8",
        "-o",
        str(tmp_path / "o"),
    ]
    assert main(arguments) == 0
    notes = json.loads((tmp_path / "o" / "report.json").read_text())["notes"]
    assert any("--max-shapes" in note and "none is built here" in note for note in notes)
