"""The frontier's search brings any way of pruning to a speedup; its page says what failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.frontier import page
from benchmarks.frontier.others import module_path
from benchmarks.frontier.search import LONG, SHORT, Ladder
from halpc.errors import UsageError


def _ladder(speedup: Callable[[float], float], most: float = 1.0) -> tuple[Ladder[float], list[float]]:
    measured: list[float] = []

    def measure(strength: float) -> float:
        measured.append(strength)
        return speedup(strength)

    return Ladder(lambda strength: strength if strength <= most else None, measure), measured


@pytest.mark.parametrize("target", [1.6, 2.5, 4.0])
@pytest.mark.parametrize("power", [1, 2])
def test_every_target_is_met_within_its_tolerance(target: float, power: int) -> None:
    ladder, _ = _ladder(lambda strength: 1 / max(1 - strength, 1e-3) ** power)
    found = ladder.climb(target)
    assert found is not None
    assert SHORT * target <= found[2] <= LONG * target


def test_a_staircase_gives_the_nearest_step_above() -> None:
    ladder, _ = _ladder(lambda strength: 1.0 + 2.0 * (strength > 0.4))
    found = ladder.climb(2.0)
    assert found is not None
    assert found[2] == 3.0


def test_what_cannot_be_reached_is_none() -> None:
    ladder, measured = _ladder(lambda strength: 1 + strength, most=0.5)
    assert ladder.climb(4.0) is None
    assert measured
    assert max(measured) <= 0.5


def test_measurements_serve_the_next_target() -> None:
    ladder, measured = _ladder(lambda strength: 1 / (1 - strength))
    ladder.climb(4.0)
    before = len(measured)
    ladder.climb(4.0)
    assert len(measured) == before


@pytest.mark.parametrize(
    ("node", "path"),
    [
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/features/features.1/conv/conv.0/conv.0.0/Conv", "features.1.conv.0.0"),
        ("/fc/Gemm", "fc"),
    ],
)
def test_a_node_name_is_its_module_path(node: str, path: str) -> None:
    assert module_path(node) == path


ROWS = [
    {"network": "net", "way": "unpruned", "speedup": 1.0, "status": "ok", "measured": 1.0, "top1": 0.9},
    {"network": "net", "way": "halpc", "speedup": 2.0, "status": "ok", "measured": 2.04, "top1": 0.88, "device": "D",
     "onnxruntime": "1", "date": "2026-01-01"},
    {"network": "net", "way": "onnxsim", "speedup": 2.0, "status": "not reached: 1.50x at most", "tool": "onnxsim 1"},
]  # fmt: skip


def test_the_page_says_what_was_measured_what_failed_and_what_was_not_run(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"before\n\n{page.START}\nold\n{page.END}\n\nafter\n")
    page.write(ROWS, path, tmp_path)
    text = path.read_text()
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| halpc | 88.00% (2.04x) |" in text
    assert "| onnxsim | not reached: 1.50x at most |" in text
    assert "| torch-pruning | not run |" in text
    assert (tmp_path / "recovery-net.png").stat().st_size > 1000
    page.write(ROWS, path, tmp_path)
    assert path.read_text() == text


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("nothing")
    with pytest.raises(UsageError, match="expected the lines"):
        page.write(ROWS, path, tmp_path)
    assert path.read_text() == "nothing"
