"""Where kernels are measured: on the grid, inside the box, where it pays."""

from __future__ import annotations

import pytest

from passes.latency.sampling import Box, box_of, rounds

BOXES = [
    box_of([(64, 64)], (8, 8)), box_of([(64, 256), (512, 128)], (8, 8)), box_of([(3, 20)], (8, 8)),
    box_of([(12, 64)], (1, 8)), box_of([(2048,)], (16,)),
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
