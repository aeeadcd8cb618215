"""Interpolation of kernel costs: exact where its assumptions hold, sane where they do not."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from passes.latency.interpolate import line, on_line, step_of, surface
from passes.latency.sampling import NOISE, Box, box_of, rounds

Cost = Callable[..., float]


def tiles(width: int, tile: int) -> int:
    return -(-width // tile)


def sampled(cost: Cost, box: Box) -> dict[tuple[int, ...], float]:
    """What the sampling rounds would have measured."""
    samples = {w: cost(*w) for w in box.first()}
    for _ in rounds():
        samples.update({w: cost(*w) for w in box.finer(samples)})
    return samples


@pytest.mark.parametrize("tile", [8, 16, 32, 64])
def test_a_staircase_is_continued_beyond_what_was_sampled_densely(tile: int) -> None:
    box = box_of([(1024,)], (8,))
    found = line(on_line(sampled(lambda w: 1.0 + 0.1 * tiles(w, tile), box), box.centre, 0), 1024)
    truth = np.array([1.0 + 0.1 * tiles(w, tile) for w in range(1025)])
    grid = np.arange(8, 1025, 8)
    assert np.abs(found[grid] / truth[grid] - 1).max() < 0.01


def test_a_cost_that_is_no_staircase_stays_linear() -> None:
    box = box_of([(512,)], (8,))
    found = line(on_line(sampled(lambda w: 2.0 + 0.01 * w, box), box.centre, 0), 512)
    assert found[8:] == pytest.approx(2.0 + 0.01 * np.arange(8, 513))


def test_nothing_is_assumed_to_be_monotone() -> None:
    costs = {8: 1.0, 16: 3.0, 24: 2.0, 32: 2.5}
    assert [line(costs, 32)[w] for w in costs] == list(costs.values())


def test_no_channels_cost_nothing() -> None:
    assert line({8: 1.0, 16: 2.0}, 16)[0] == 0
    found = surface({(8, 8): 1.0, (16, 8): 2.0, (8, 16): 2.0}, (16, 16), (8, 8))
    assert found(0, 8) == found(8, 0) == found(0, 0) == 0
    assert found(8, 8) > 0


def bilinear(a: int, b: int) -> float:
    return 0.5 + 0.1 * tiles(a, 16) + 0.05 * tiles(b, 16) + 0.02 * tiles(a, 16) * tiles(b, 16)


def product(a: int, b: int) -> float:
    return 0.02 * tiles(a, 16) * tiles(b, 32)


def added(a: int, b: int) -> float:
    return 0.5 + 0.1 * a + 0.05 * b


@pytest.mark.parametrize("cost", [bilinear, product, added])
@pytest.mark.parametrize("sizes", [(64, 64), (256, 512)])
def test_costs_that_are_bilinear_in_tiles_are_found_from_few_samples(cost: Cost, sizes: tuple[int, int]) -> None:
    box = box_of([sizes], [8] * len(sizes))
    samples = sampled(cost, box)
    found = surface(samples, sizes, box.centre)
    points = list(itertools.product(range(8, sizes[0] + 1, 8), range(8, sizes[1] + 1, 8)))
    errors = [abs(float(found(a, b)) / cost(a, b) - 1) for a, b in points]
    assert np.percentile(errors, 90) < 0.03
    assert len(samples) < min(60, len(points))


def test_a_surface_passes_through_its_lines_and_takes_arrays() -> None:
    box = box_of([(64, 64)], (8, 8))
    samples = sampled(bilinear, box)
    found = surface(samples, (64, 64), box.centre)
    for axis in range(2):
        for width, ms in on_line(samples, box.centre, axis).items():
            point = (width, box.centre[1]) if axis == 0 else (box.centre[0], width)
            assert float(found(*point)) == pytest.approx(ms, rel=0.02)
    grid = found(np.arange(8, 65, 8)[:, None], np.arange(8, 65, 8)[None, :])
    assert grid.shape == (8, 8)
    assert float(grid[2, 5]) == pytest.approx(float(found(24, 48)))


def test_three_axes_combine() -> None:
    def cost(a: int, b: int, c: int) -> float:
        return 0.1 + 0.001 * a * b * c

    box = box_of([(16, 16, 16)], (8, 8, 8))
    found = surface(sampled(cost, box), (16, 16, 16), box.centre)
    for point in itertools.product((8, 16), repeat=3):
        assert float(found(*point)) == pytest.approx(cost(*point), rel=0.1)


@pytest.mark.parametrize("tile", [8, 16, 32, 64])
def test_the_step_of_a_staircase_is_its_tile(tile: int) -> None:
    box = box_of([(256,)], (8,))
    samples = sampled(lambda w: 1.0 + tiles(w, tile), box)
    assert step_of(on_line(samples, box.centre, 0), NOISE / 2) in ((1, 8) if tile == 8 else (tile,))


def test_a_straight_line_has_no_step() -> None:
    assert step_of({w: 1.0 + w / 64 for w in range(8, 129, 8)}, NOISE / 2) == 1


def test_noise_alone_is_no_step() -> None:
    rng = np.random.default_rng(0)
    assert step_of({w: 1.0 + 0.01 * rng.standard_normal() for w in range(8, 129, 8)}, NOISE / 2) == 1


def test_samples_wider_than_the_axis_do_no_harm() -> None:
    samples = {width: float(width) for width in (8, 16, 32, 64, 96, 128, 192, 256, 384)}
    assert np.allclose(line(samples, 256)[[8, 64, 128, 256]], [8, 64, 128, 256])
    assert line(samples, 256).shape == (257,)
