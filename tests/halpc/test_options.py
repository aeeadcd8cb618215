"""`Options`: what an option cannot be is refused where the record is made, by whoever makes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from halpc import Options, compile_model, parse_budget
from halpc.errors import InputError, UsageError
from tests.small import saved

MACS = (parse_budget("macs", "50%"),)
WRONG: dict[str, tuple[Any, str]] = {
    "score": ("magnitude", "expected one of auto, l1"), "solver": ("greedy", "joint, halp, sp-lamp"),
    "precision": ("int4", "fp32"), "profiler": ("stopwatch", "onnxruntime"), "provider": ("rocm", "cpu, cuda"),
    "recover": ("full", "refit, bias, off"), "align": (0, "from 1"), "min_width": (-5, "from 1"),
    "threads": (-1, "from 1"), "rounds": (0, "from 1"), "steps": (20_000, "to 10000"), "batch": (2.0, "whole number"),
    "percentile": (200, "up to 100"), "budgets": ("50%", "parse_budget"), "freeze": ("l0", "tuple of patterns"),
    "importance": (Path("i.npz"), "tuple of paths"), "calibration": (3, "a path"), "out": (None, "a path"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_an_option_cannot_be_is_refused_with_what_it_can(name: str) -> None:
    value, said = WRONG[name]
    with pytest.raises(UsageError, match=said) as refused:
        Options(**{"model": Path("m.onnx"), "budgets": MACS, name: value})
    assert name in str(refused.value)


def test_paths_may_be_text_and_budgets_a_list(tmp_path: Path) -> None:
    options = Options(str(saved(tmp_path)), list(MACS), out=str(tmp_path / "out"))  # type: ignore[arg-type]
    assert compile_model(options).status == "met"
    assert (tmp_path / "out" / "report.json").is_file()


def test_links_that_go_in_circles_are_no_path(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="Too many levels"):
        Options(tmp_path / "loop", MACS)


@pytest.mark.parametrize(
    "options, said",
    [
        (Options(Path("m.onnx"), ()), "no budget"),
        (Options(Path("m.onnx"), (*MACS, parse_budget("macs", "30%"))), "two budgets on macs"),
        (Options(Path("m.onnx"), MACS, table=Path("t")), "--table is of a budget on --latency"),
        (Options(Path("m.onnx"), MACS, mean=(0.5,)), "--mean is of the images"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_read(options: Options, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compile_model(options)
