"""The relaxation, with so little memory that whole tables never fit, against every choice there is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instances import outcome, random_problem

from benchmarks.instances import instance
from benchmarks.judges import by_highs
from halpc.errors import HalpcError, InfeasibleError
from halpc.ir.dims import Leaf, Product, Sum
from halpc.ir.problem import Charge, Choice, Problem, Resource
from passes.select.exact import Limits
from passes.select.joint import joint
from passes.select.scan import SLAB

SEEDS = st.integers(0, 10**9)
LITTLE = Limits(entries=1 << 10, work=1 << 12, seconds=20.0)


def bumpy(rng, tile):
    """A staircase over two axes that falls behind every tile, is zero where an axis is, and has ties."""
    macs, tail, launch = rng.uniform(0.5, 2.0), rng.uniform(0.0, 0.3), rng.uniform(0.0, 20.0)

    def cost(inner, outer):
        tiles = np.ceil(inner / 3) * 3 * np.ceil(outer / tile) * tile
        return np.where((inner > 0) & (outer > 0), launch + macs * tiles * (1.0 + tail * (outer % tile != 0)), 0.0)

    return cost


def wide(seed, resources=1):
    """Three groups of up to 40 widths, some of which may vanish; sums and products; value in plateaus at times."""
    rng = np.random.default_rng(seed)
    choices, dims = [], []
    for g in range(3):
        size = int(rng.integers(20, 41))
        scores = np.sort(np.round(rng.lognormal(size=size), int(rng.integers(0, 3))))[::-1].copy()
        widths = np.arange(int(rng.random() > 0.3), size + 1)
        choices.append(Choice(f"g{g}", widths, np.concatenate([[0.0], np.cumsum(scores)])[widths], 4, scores))
        dims.append(Leaf(f"g{g}", size))
    axes = [*dims, Sum(tuple(dims[:2])), Sum(tuple(dims)), Sum((*dims[1:], Leaf("image", 3))), Product(tuple(dims[:2]))]
    budgets = []
    for r in range(resources):
        charges = []
        for c in range(int(rng.integers(3, 7))):
            inner, outer = (axes[int(i)] for i in rng.integers(len(axes), size=2))
            charges.append(Charge(f"c{c}", (inner, outer), bumpy(rng, int(rng.choice([4, 7, 8])))))
        free = Resource(f"r{r}", "u", np.inf, 1.0, tuple(charges))
        top = free.spent({c.name: int(c.widths[-1]) for c in choices})
        budgets.append(Resource(f"r{r}", "u", float(rng.uniform(0.05, 0.9)) * top, 1.0, tuple(charges)))
    return Problem(tuple(choices), tuple(budgets))


def optimum(problem):
    """The most that any choice within the limits keeps, None where there is none: all at once, as arrays."""
    names = [c.name for c in problem.choices]
    grid = {c.name: c.widths.reshape([-1 if c.name == n else 1 for n in names]) for c in problem.choices}
    value = sum(c.value.reshape(grid[c.name].shape) for c in problem.choices)
    fits = np.ones(value.shape, dtype=bool)
    for r in problem.resources:
        fits &= r.fixed + sum(charge.at(grid) for charge in r.charges) <= r.limit * (1 + 1e-12)
    return float(value[fits].max()) if fits.any() else None


def check(problem, limits=LITTLE, means=("relaxation",)):
    """The relaxation's answer held against every choice; the gap, None where nothing fits."""
    best = optimum(problem)
    found = outcome(lambda p: joint(p, limits), problem)
    if isinstance(found, InfeasibleError):
        return None if best is None else pytest.fail(f"keeps {best}, yet: {found}")
    assert best is not None
    assert problem.feasible(found.widths)
    assert found.bound >= best * (1 - 1e-12)
    assert best * (1 + 1e-12) >= found.value
    assert any(word in found.bound_means for word in means)
    return found.gap


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SEEDS, st.sampled_from([1, 2]))
def test_bound_is_above_every_choice_of_wide_groups(seed, resources):
    check(wide(seed, resources))


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, derandomize=True)
@given(SEEDS, st.sampled_from([1, 2, 3]), st.sampled_from([6, 8, 10]))
def test_bound_is_above_every_choice_on_many(seed, resources, room):
    limits = Limits(entries=1 << room, work=1 << room + 2, seconds=20.0)
    check(wide(seed, resources), limits, means=("relaxation", "without any limit"))  # memory may hold no block


def separable(groups, size):
    """Groups that share nothing but the budget: staircases and falling tails of one width each, bumpy values."""
    rng = np.random.default_rng(groups * size)
    choices, charges = [], []
    for g in range(groups):
        scores = np.sort(rng.lognormal(size=size))[::-1].copy()
        value = np.cumsum(scores) + rng.random(size) * scores[0]
        choices.append(Choice(f"g{g}", np.arange(1, size + 1), value, 8, scores))
        tile, macs = int(rng.integers(50, 200)), rng.uniform(0.5, 2.0)
        charges.append(
            Charge(f"c{g}", (Leaf(f"g{g}", size),), lambda w, t=tile, m=macs: m * (np.ceil(w / t) * t + w % 7))
        )
    free = Resource("t", "ms", np.inf, 1.0, tuple(charges))
    top = free.spent({c.name: size for c in choices})
    return Problem(tuple(choices), (Resource("t", "ms", 0.4 * top, 1.0, tuple(charges)),))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "room"),
    [
        pytest.param(lambda: separable(20, 500), 10, id="separable, 10,000 widths"),
        pytest.param(lambda: separable(40, 2500), 10, id="separable, 100,000 widths"),
        pytest.param(lambda: instance("resnet50", 10_000, 0.5), 18, id="resnet50, 10,000 widths"),
        pytest.param(lambda: instance("mobilenetv2", 10_000, 0.5), 18, id="mobilenetv2, 10,000 widths"),
        pytest.param(lambda: instance("vit", 3_000, 0.5), 14, id="vit, 3,000 widths"),
    ],
)
def test_highs_finds_nothing_above_the_bound_of_very_many_widths(problem, room):
    problem = problem()
    verdict = by_highs(problem, seconds=60.0)
    assert verdict is not None
    assert np.isfinite(verdict.value)
    found = joint(problem, Limits(entries=1 << room, work=1 << room + 2, seconds=20.0))
    assert "relaxation" in found.bound_means
    assert problem.feasible(found.widths)
    assert found.bound >= verdict.value * (1 - 1e-7)
    assert found.value <= verdict.bound * (1 + 1e-7)


def test_gaps_are_small_on_most():
    gaps = [gap for seed in range(40) if (gap := check(wide(seed))) is not None]
    assert len(gaps) > 20
    assert np.median(gaps) < 0.03


def chain(groups, size):
    """Groups of `size` widths one by one, every second of which feeds a sum of all so far."""
    rng = np.random.default_rng(groups * size)
    choices, charges, features = [], [], []
    for g in range(groups):
        scores = np.sort(rng.lognormal(size=size))[::-1].copy()
        choices.append(Choice(f"g{g}", np.arange(1, size + 1), np.cumsum(scores), 8, scores))
        here = Leaf(f"g{g}", size)
        if features:
            charges.append(Charge(f"c{g}", (Sum(tuple(features)), here), bumpy(rng, 8)))
        features.append(here)
    free = Resource("t", "ms", np.inf, 1.0, tuple(charges))
    top = free.spent({c.name: size for c in choices})
    return Problem(tuple(choices), (Resource("t", "ms", 0.5 * top, 1.0, tuple(charges)),))


def test_sums_in_blocks_keep_a_bound_and_a_small_gap():
    problem = chain(9, 40)
    exact = joint(problem)
    assert "exactly" in exact.bound_means
    coarse = joint(problem, Limits(entries=1 << 17, work=1 << 19, seconds=20.0))
    assert "sums in blocks" in coarse.bound_means
    assert exact.bound >= coarse.value
    assert coarse.bound >= exact.value
    assert coarse.gap < 0.02


def test_memory_does_not_grow_with_the_tables():
    import tracemalloc

    problem = chain(3, 3000)
    problem.feasible({c.name: 1 for c in problem.choices})
    tracemalloc.start()
    found = joint(problem, Limits(entries=1 << 16, work=1 << 20, seconds=30.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.gap < 1e-2
    assert peak < 8 * 8 * SLAB < 8 * 3000 * 3000


def test_cost_that_is_no_number_is_an_error_that_names_the_kernel():
    choice = Choice("a", np.arange(1, 40), np.arange(1.0, 40.0))
    other = Choice("b", np.arange(1, 40), np.arange(1.0, 40.0))
    charge = Charge("odd", (Leaf("a", 39), Leaf("b", 39)), lambda a, b: np.where(a * b == 35 * 31, np.nan, a * b))
    problem = Problem((choice, other), (Resource("t", "ms", 500.0, 0.0, (charge,)),))
    with pytest.raises(HalpcError, match="odd"):
        joint(problem, LITTLE)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(SEEDS)
def test_small_problems_keep_their_bound_too(seed):
    problem = random_problem(seed, groups=3, options=6)
    best = optimum(problem)
    found = outcome(lambda p: joint(p, Limits(entries=200, work=200, seconds=20.0)), problem)
    if isinstance(found, InfeasibleError):
        assert best is None or problem.resources[0].limit < found.floor
        return
    assert found.bound >= best * (1 - 1e-12)
