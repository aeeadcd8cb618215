from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instances import brute_force, every_choice, lookup, outcome, random_problem

from benchmarks.judges import by_highs
from halpc.errors import InfeasibleError, UsageError
from halpc.ir.dims import Leaf, Product, Sum
from halpc.ir.problem import Charge, Choice, Problem, Resource
from passes.select import select
from passes.select.joint import Limits, cheapest, frontier, joint

SEEDS = st.integers(0, 10**9)
TINY = Limits(entries=4000, work=400, seconds=5.0)  # nothing fits: the relaxation has to answer


def check(problem, limits=None):
    """Run `joint` and hold it against every choice there is; the relative loss, None where infeasible."""
    best, _ = brute_force(problem)
    found = outcome(lambda p: joint(p, limits), problem)
    if isinstance(found, InfeasibleError):
        assert best is None, "a feasible choice exists"
        assert found.floor > found.budget
        return None
    assert best is not None
    assert problem.feasible(found.widths)
    assert found.value == problem.value(found.widths)
    assert found.bound >= best >= found.value
    assert all(found.spent[r.name] == r.spent(found.widths) for r in problem.resources)
    assert all(step.gain == 0.0 or step.next_width is not None for step in found.steps)
    return (best - found.value) / max(abs(best), 1e-12)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(SEEDS)
def test_bound_is_above_and_value_below_the_optimum_with_one_budget(seed):
    check(random_problem(seed))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(SEEDS, st.integers(2, 3))
def test_bound_is_above_and_value_below_the_optimum_with_several_budgets(seed, resources):
    check(random_problem(seed, resources=resources))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 2))
def test_relaxation_keeps_the_bound_and_the_budget(seed, resources):
    check(random_problem(seed, resources=resources), TINY)


@pytest.mark.slow
@settings(max_examples=6000, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 3))
def test_bound_and_budget_hold_on_thousands(seed, resources):
    check(random_problem(seed, groups=6, resources=resources))


@pytest.mark.parametrize("seed", range(12))
def test_highs_agrees_with_bound_and_value(seed):
    problem = random_problem(1000 + seed, groups=12, options=6, resources=1 + seed % 2, compound=False, tight=0.4)
    verdict = by_highs(problem)
    assert verdict is not None
    best = verdict.value
    if np.isnan(best):
        with pytest.raises(InfeasibleError):
            joint(problem)
        return
    found = joint(problem)
    assert found.bound >= best - 1e-6 * abs(best)
    assert found.value == pytest.approx(best, rel=1e-6)
    assert found.gap < 1e-8


def test_floor_of_an_infeasible_budget_is_exact_and_named():
    problem = random_problem(6, tight=0.5)
    _, least = brute_force(problem)
    resource = replace(problem.resources[0], limit=float(least[0]) - 0.5)
    problem = Problem(problem.choices, (resource,))
    with pytest.raises(InfeasibleError, match="floor is") as caught:
        joint(problem)
    assert caught.value.floor == pytest.approx(least[0], rel=1e-12)
    assert caught.value.budget == problem.resources[0].limit


@pytest.mark.parametrize("seed", range(40))
def test_cheapest_costs_the_least(seed):
    problem = random_problem(seed)
    _, least = brute_force(problem)
    problem = Problem(problem.choices, (replace(problem.resources[0], limit=float(1.0 + 2.0 * least[0])),))
    assert problem.resources[0].spent(cheapest(problem)) == pytest.approx(least[0], rel=1e-12, abs=1e-12)


def test_budget_met_exactly_in_integers_is_feasible():
    widths = np.arange(1, 6)
    choice = Choice("a", widths, widths.astype(float))
    cost = Charge("c", (Leaf("a", 5),), lambda w: w * 3.0)
    found = joint(Problem((choice,), (Resource("t", "ms", 9.0, 0.0, (cost,)),)))
    assert found.widths == {"a": 3}
    assert found.spent == {"t": 9.0}


def test_budget_met_exactly_in_floats_is_feasible():
    widths = np.arange(1, 4)
    choices = tuple(Choice(n, widths, widths.astype(float)) for n in "abc")
    charges = tuple(Charge(n, (Leaf(n, 3),), lambda w: w * 0.1) for n in "abc")
    limit = Resource("t", "ms", np.inf, 0.0, charges).spent({"a": 1, "b": 1, "c": 1})
    found = joint(Problem(choices, (Resource("t", "ms", limit, 0.0, charges),)))
    assert found.spent["t"] <= limit


def test_no_groups_cost_what_is_fixed():
    found = joint(Problem((), (Resource("t", "ms", 2.0, 2.0, ()),)))
    assert found.widths == {}
    with pytest.raises(InfeasibleError):
        joint(Problem((), (Resource("t", "ms", 1.0, 2.0, ()),)))


def test_unlimited_resource_costs_nothing():
    problem = random_problem(3)
    free = Problem(problem.choices, tuple(replace(r, limit=np.inf) for r in problem.resources))
    found = joint(free)
    assert found.value == sum(float(c.value.max()) for c in problem.choices)
    assert found.gap < 1e-12


def test_forbidden_combinations_are_never_chosen():
    widths = np.arange(1, 5)
    choices = tuple(Choice(n, widths, widths.astype(float)) for n in "ab")
    table = np.add.outer(np.arange(5.0), np.arange(5.0))
    table[4, :] = np.inf
    table[3, 3] = np.inf
    charge = Charge("c", (Leaf("a", 4), Leaf("b", 4)), lookup(table))
    found = joint(Problem(choices, (Resource("t", "ms", 100.0, 0.0, (charge,)),)))
    assert found.value == 7.0 or found.value == 6.0
    assert found.widths == {"a": 3, "b": 4}
    assert found.bound >= found.value


def dense_block(layers, limit_share, width=6):
    """A concat grows by one group a layer; the bottleneck of each layer reads all of it."""
    rng = np.random.default_rng(layers)
    choices, charges, features = [], [], [Leaf("stem", width)]

    def group(name):
        widths = np.arange(2, width + 1, 2)
        choices.append(Choice(name, widths, np.cumsum(np.sort(rng.random(len(widths)))[::-1])))
        return Leaf(name, width)

    group("stem")
    for layer in range(layers):
        inner, grown = group(f"inner{layer}"), group(f"grown{layer}")
        charges.append(Charge(f"a{layer}", (Sum(tuple(features)), inner), lambda i, o: np.ceil(i / 4) * o))
        charges.append(Charge(f"b{layer}", (inner, grown), lambda i, o: 3.0 * i * np.ceil(o / 4)))
        features.append(grown)
    free = Resource("t", "ms", np.inf, 1.0, tuple(charges))
    top = free.spent({c.name: int(c.widths[-1]) for c in choices})
    return Problem(tuple(choices), (Resource("t", "ms", limit_share * top, 1.0, tuple(charges)),))


def test_dense_block_is_a_chain_and_exact():
    small = dense_block(3, 0.5)
    assert check(small) == 0.0
    large = joint(dense_block(30, 0.5))
    assert "exactly" in large.bound_means
    assert large.gap < 1e-8


def test_heads_times_dims_are_exact():
    heads = Choice("heads", np.arange(1, 7), np.arange(1, 7).astype(float))
    dims = Choice("dims", np.arange(1, 9), np.sqrt(np.arange(1, 9)) * 3)
    model = Choice("model", np.arange(4, 33, 4), np.arange(4, 33, 4) / 4.0)
    inner = Product((Leaf("heads", 6), Leaf("dims", 8)))
    charges = (
        Charge("qkv", (Leaf("model", 32), inner), lambda i, o: 3.0 * i * o),
        Charge("out", (inner, Leaf("model", 32)), lambda i, o: 1.0 * i * o),
        Charge("softmax", (Leaf("heads", 6),), lambda h: 49.0 * h),
    )
    problem = Problem((heads, dims, model), (Resource("macs", "", 2500.0, 0.0, charges),))
    assert check(problem) == 0.0


def mesh(width, layers, share=0.5):
    """Every group of a layer feeds every group of the next: treewidth grows with `width`."""
    rng = np.random.default_rng(width)
    widths = np.arange(2, 17, 2)
    names = [[f"g{layer}.{i}" for i in range(width)] for layer in range(layers)]
    choices = [Choice(n, widths, np.cumsum(np.sort(rng.random(8))[::-1])) for row in names for n in row]
    charges = tuple(
        Charge(f"{a}-{b}", (Leaf(a, 16), Leaf(b, 16)), lambda i, o: np.ceil(i / 4) * o)
        for above, below in itertools.pairwise(names)
        for a in above
        for b in below
    )
    top = Resource("t", "ms", np.inf, 1.0, charges).spent({c.name: 16 for c in choices})
    return Problem(tuple(choices), (Resource("t", "ms", share * top, 1.0, charges),))


def test_copies_keep_a_bound_where_tables_would_outgrow_memory():
    problem = mesh(4, 3)
    exact = joint(problem)
    coarse = joint(problem, Limits(entries=1 << 16, work=1 << 13, seconds=5.0))
    assert "relaxation" in coarse.bound_means
    assert coarse.bound >= exact.value
    assert exact.bound >= coarse.value
    assert coarse.gap < 0.15
    assert problem.feasible(coarse.widths)


def test_frontier_is_the_upper_hull_of_all_choices():
    problem = random_problem(11, tight=0.5, compound=False)
    points = frontier(problem)
    resource = problem.resources[0]
    cost = [p.spent[resource.name] for p in points]
    value = [p.value for p in points]
    assert cost == sorted(cost)
    assert value == sorted(value)
    assert value[-1] == sum(float(c.value.max()) for c in problem.choices)
    for widths in every_choice(problem):
        at = resource.spent(widths)
        assert problem.value(widths) <= np.interp(at, cost, value) + 1e-9 or at < cost[0]
    assert all(p.bound >= p.value and p.gap < 1e-9 for p in points)


def test_unknown_solver_is_a_usage_error():
    with pytest.raises(UsageError, match="joint"):
        select(random_problem(1, tight=1.0), solver="magic")


def test_same_problem_gives_the_same_answer():
    first, second = joint(random_problem(21, tight=0.5)), joint(random_problem(21, tight=0.5))
    assert first.widths == second.widths
    assert first.bound == second.bound


def test_next_step_is_reported_with_gain_and_cost():
    problem = random_problem(8, tight=0.5)
    found = joint(problem)
    for step, choice in zip(found.steps, problem.choices, strict=True):
        assert step.width == found.widths[choice.name]
        if step.next_width is None:
            assert step.width == choice.widths[-1]
            continue
        wider = {**found.widths, step.group: step.next_width}
        assert step.gain == pytest.approx(problem.value(wider) - found.value)
        for resource in problem.resources:
            more = resource.spent(wider) - resource.spent(found.widths)
            assert step.cost[resource.name] == pytest.approx(more, abs=1e-9)


def test_kernel_whose_table_is_too_large_still_gets_an_answer():
    problem = mesh(3, 2)
    found = joint(problem, Limits(entries=10, work=10, seconds=5.0))
    assert problem.feasible(found.widths)
    assert found.bound >= joint(problem).value
    assert "memory bound" in found.bound_means
