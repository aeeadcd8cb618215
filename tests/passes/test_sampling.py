"""Where kernels are measured: on the grid, inside the box, where it pays."""

from __future__ import annotations

from pathlib import Path

import pytest

from passes.couple import couple
from passes.latency.calibrate import mixes, ramps
from passes.latency.interpolate import line
from passes.latency.sampling import LEVELS, Box, box_of, rounds
from passes.load import load
from tests.small import saved

BOXES = [
    box_of([(64, 64)], (8, 8)), box_of([(64, 256), (512, 128)], (8, 8)), box_of([(3, 20)], (8, 8)),
    box_of([(12, 64)], (1, 8)), box_of([(2048,)], (16,)),
    box_of([(64, 256), (512, 128)], (8, 8), built=True), box_of([(3, 20, 36)], (8, 8, 4), built=True),
]  # fmt: skip


@pytest.mark.parametrize("box", BOXES)
def test_points_are_inside_and_on_the_grid_or_at_an_end(box: Box) -> None:
    points = box.first()
    assert box.centre in points
    assert len(points) == len(set(points))
    for point in points:
        for axis, width in enumerate(point):
            assert 0 < width <= box.sizes[axis]
            assert width % box.grids[axis] == 0 or width in (*box.ends[axis], box.sizes[axis])


@pytest.mark.parametrize("box", BOXES)
def test_every_full_width_is_measured(box: Box) -> None:
    for axis, ends in enumerate(box.ends):
        for end in ends:
            assert any(point[axis] == end for point in box.first())


def test_a_flat_line_is_not_refined() -> None:
    box = box_of([(64, 512)], (8, 8))
    assert box.finer(dict.fromkeys(box.first(), 1.0)) == []


def test_a_jump_is_found_to_the_grid() -> None:
    box = box_of([(64,)], (1,))
    samples = {w: 1.0 if w[0] <= 41 else 2.0 for w in box.first()}
    for _ in rounds():
        samples.update({w: 1.0 if w[0] <= 41 else 2.0 for w in box.finer(samples)})
    assert {(41,), (42,)} <= samples.keys()


def test_refinement_ends() -> None:
    box = box_of([(128, 128)], (8, 8))
    samples = {w: 1.0 + w[0] * w[1] for w in box.first()}
    for _ in range(20):
        new = box.finer(samples)
        samples.update({w: 1.0 + w[0] * w[1] for w in new})
    assert box.finer(samples) == []
    assert len(samples) <= 2 * 16 + 9


def test_a_box_covers_all_kernels_of_a_signature() -> None:
    box = box_of([(64, 256), (512, 128)], (8, 8))
    assert box.sizes == (512, 256)
    assert box.ends == ((64, 512), (128, 256))


def test_what_is_built_is_measured_at_the_levels_of_whole_networks(tmp_path: Path) -> None:
    """So that the builder has timed the networks' layers before; each kernel of a signature has levels of its own."""
    path = saved(tmp_path)
    coupling = couple(load(path).twin)
    sizes = {name: group.size for name, group in coupling.free().items()}
    wide, narrow = sorted(sizes, key=sizes.__getitem__, reverse=True)
    box = box_of([(sizes[narrow], sizes[wide]), (sizes[wide], sizes[narrow])], (4, 4), built=True)
    for widths in (*mixes(coupling, 17, 4, 0, LEVELS), *ramps(coupling, 3, 4, 0, LEVELS)):
        assert {(widths[narrow], widths[wide]), (widths[wide], widths[narrow])} <= {*box.first()}
    assert (sizes[wide], sizes[wide] * 3 // 4) not in box.first()


@pytest.mark.parametrize("size", [192, 256, 384, 512])
@pytest.mark.parametrize("step", [32, 64])
def test_what_is_built_is_refined_where_it_steps(size: int, step: int) -> None:
    def cost(width: int) -> float:
        return -(-width // step) * 1.0

    box = box_of([(size,)], (8,), built=True)
    samples = {w: cost(*w) for w in box.first()}
    for _ in rounds():
        samples.update({w: cost(*w) for w in box.finer(samples)})
    curve = line({w: ms for (w,), ms in samples.items()}, size)
    widths = range(8, size + 1, 8)
    assert max(abs(curve[w] / cost(w) - 1) for w in widths) < 0.01
    assert len(samples) < len(widths) / 2 + 8
