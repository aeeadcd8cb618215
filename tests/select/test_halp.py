from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instances import brute_force, check_every_budget_is_kept, lookup, outcome, random_problem

from halpc.errors import InfeasibleError, UsageError
from halpc.ir.dims import Leaf
from halpc.ir.problem import Charge, Choice, Problem, Resource
from passes.select import select
from passes.select.frozen import contributions
from passes.select.halp import augmented_knapsack, group_items, halp, schedule, solve

SEEDS = st.integers(0, 10**9)


def best_prefixes(worth, weights, capacity):
    """The most that prefixes of each group's chunks are worth within the capacity."""
    best = -np.inf
    for counts in itertools.product(*(range(len(w) + 1) for w in worth)):
        weight = sum(int(w[:n].sum()) for w, n in zip(weights, counts, strict=True))
        if weight <= capacity:
            best = max(best, sum(float(w[:n].sum()) for w, n in zip(worth, counts, strict=True)))
    return best


def knapsack(seed, low):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 5))
    sizes = [int(rng.integers(0, 5)) for _ in range(count)]
    worth = [np.sort(rng.random(n))[::-1] for n in sizes]
    weights = [rng.integers(low, 7, n) for n in sizes]
    return worth, weights, int(rng.integers(0, 20))


def total(worth, weights, chosen):
    kept = sum(float(w[:n].sum()) for w, n in zip(worth, chosen, strict=True))
    return kept, sum(int(w[:n].sum()) for w, n in zip(weights, chosen, strict=True))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(SEEDS, st.sampled_from([0, -4]))
def test_knapsack_keeps_the_capacity_and_never_beats_the_best_prefixes(seed, low):
    worth, weights, capacity = knapsack(seed, low)
    kept, weight = total(worth, weights, augmented_knapsack(worth, weights, capacity))
    assert weight <= capacity
    assert kept <= best_prefixes(worth, weights, capacity) + 1e-9


@settings(max_examples=300, deadline=None, derandomize=True)
@given(SEEDS)
def test_knapsack_is_optimal_where_weights_rise_as_importance_falls(seed):
    worth, weights, capacity = knapsack(seed, 1)
    weights = [np.sort(w) for w in weights]
    kept, _ = total(worth, weights, augmented_knapsack(worth, weights, capacity))
    assert kept == pytest.approx(best_prefixes(worth, weights, capacity))


def test_knapsack_is_optimal_on_most_small_staircases():
    hits = 0
    for seed in range(300):
        worth, weights, capacity = knapsack(seed, 0)
        kept, _ = total(worth, weights, augmented_knapsack(worth, weights, capacity))
        hits += kept >= best_prefixes(worth, weights, capacity) - 1e-9
    assert 0.6 < hits / 300 < 1.0


def test_negative_weight_pays_for_what_comes_after_it():
    worth = [np.array([1.0, 1.0]), np.array([5.0])]
    weights = [np.array([2, -3]), np.array([5])]
    assert augmented_knapsack(worth, weights, 4) == [2, 1]


def test_chunk_enters_only_after_the_one_before_it():
    assert augmented_knapsack([np.array([1.0, 100.0])], [np.array([10, 0])], 5) == [0]


def test_chunks_have_the_latency_step_and_end_where_the_group_stands():
    scores = np.arange(32, 0, -1).astype(float)
    choice = Choice("a", np.arange(4, 33, 4), np.zeros(8), 8, scores)
    items = group_items(choice, 28)
    assert items.widths.tolist() == [4, 8, 16, 24, 28]
    assert items.worth.tolist() == [scores[a:b].sum() for a, b in itertools.pairwise([4, 8, 16, 24, 28])]


def test_contribution_freezes_the_neighbour_at_its_current_width():
    widths = np.arange(1, 5)
    choices = tuple(Choice(n, widths, widths.astype(float)) for n in "ab")
    charge = Charge("c", (Leaf("a", 4), Leaf("b", 4)), lambda i, o: 10.0 * i * o)
    problem = Problem(choices, (Resource("t", "ms", 99.0, 0.0, (charge,)),))
    first, second = contributions(problem, problem.resources[0], {"a": 3, "b": 4})
    assert first.tolist() == [0.0] * 4
    assert second.tolist() == [-90.0, -60.0, -30.0, 0.0]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(SEEDS)
def test_one_solve_never_beats_the_best_prefixes_at_the_same_frozen_costs(seed):
    problem = random_problem(seed, groups=4)
    resource = problem.resources[0]
    full = {c.name: int(c.widths[-1]) for c in problem.choices}
    items = [group_items(c, full[c.name]) for c in problem.choices]
    columns = contributions(problem, resource, full)
    target = resource.limit
    best, reachable = -np.inf, False
    for ends in itertools.product(*(range(len(i.widths)) for i in items)):
        change = sum(
            float(col[np.searchsorted(c.widths, i.widths[n])])
            for c, col, i, n in zip(problem.choices, columns, items, ends, strict=True)
        )
        if resource.spent(full) + change <= target + 1e-9:
            reachable = True
            best = max(best, sum(float(i.worth[:n].sum()) for i, n in zip(items, ends, strict=True)))
    found = solve(problem, resource, full, target, augmented_knapsack)
    kept = sum(
        float(i.worth[: int(np.searchsorted(i.widths, found[c.name]))].sum())
        for c, i in zip(problem.choices, items, strict=True)
    )
    if reachable and sum(float(c[0]) for c in columns) + resource.spent(full) <= target:
        assert kept <= best + 1e-9


@settings(max_examples=250, deadline=None, derandomize=True)
@given(SEEDS, st.sampled_from([1, 3]))
def test_budget_is_kept_or_proven_infeasible(seed, steps):
    problem = random_problem(seed)
    best, least = brute_force(problem)
    found = outcome(lambda p: select(p, solver="halp", steps=steps), problem)
    if isinstance(found, InfeasibleError):
        assert best is None
        assert found.floor == pytest.approx(least[0], rel=1e-9, abs=1e-9)
        return
    assert best is not None
    assert problem.feasible(found.widths)
    assert found.value <= best
    assert found.bound == np.inf
    assert len(found.steps) == len(problem.choices)


def chain(layers=12, share=0.55):
    rng = np.random.default_rng(3)
    choices, charges, before = [], [], None
    for layer in range(layers):
        scores = np.sort(rng.lognormal(size=64))[::-1].copy()
        widths = np.arange(8, 65, 8)
        choices.append(Choice(f"g{layer}", widths, np.cumsum(scores)[widths - 1], 8, scores))
        if before is not None:
            charges.append(Charge(f"c{layer}", (before, Leaf(f"g{layer}", 64)), lambda i, o: 1e-3 * i * o))
        before = Leaf(f"g{layer}", 64)
    free = Resource("t", "ms", np.inf, 0.0, tuple(charges))
    top = free.spent({c.name: 64 for c in choices})
    return Problem(tuple(choices), (Resource("t", "ms", share * top, 0.0, tuple(charges)),))


def test_more_steps_land_nearer_to_the_budget():
    problem = chain()
    spent = [halp(problem, steps=k).spent["t"] / problem.resources[0].limit for k in (1, 5, 30)]
    assert spent[0] < 0.8
    assert spent[0] < spent[1] < spent[2] <= 1.0
    assert spent[2] > 0.95


def test_joint_keeps_at_least_what_halp_keeps():
    for share in (0.3, 0.55, 0.8):
        problem = chain(share=share)
        assert select(problem).value >= halp(problem, steps=30).value


def test_resumed_groups_only_shrink():
    problem = chain(share=0.8)
    first = halp(problem, steps=3)
    tighter = Problem(problem.choices, chain(share=0.5).resources)
    second = halp(tighter, steps=3, start=first.widths)
    assert all(second.widths[name] <= first.widths[name] for name in first.widths)
    assert tighter.feasible(second.widths)


def test_start_that_is_no_admissible_width_is_a_usage_error():
    with pytest.raises(UsageError, match="g0"):
        halp(chain(), start={"g0": 5})


@settings(max_examples=120, deadline=None, derandomize=True)
@given(SEEDS)
def test_several_budgets_are_all_kept(seed):
    check_every_budget_is_kept(halp, random_problem(seed, resources=2, tight=0.6))


def test_a_second_budget_that_binds_costs_no_more_than_it_must():
    problem = chain(share=0.7)
    time_budget = problem.resources[0]
    charges = tuple(Charge(f"p{c.name}", (Leaf(c.name, 64),), lambda w: 1.0 * w) for c in problem.choices)
    params = Resource("params", "parameters", 0.5 * 64 * len(charges), 0.0, charges)
    both = Problem(problem.choices, (time_budget, params))
    found, best = halp(both, steps=5), select(both)
    assert both.feasible(found.widths)
    assert found.spent["params"] > 0.9 * params.limit
    assert best.value >= found.value > 0.9 * best.value


def test_budgets_that_no_choice_keeps_together_say_what_to_do():
    widths = np.arange(1, 5)
    choices = tuple(Choice(n, widths, widths.astype(float)) for n in "ab")
    rising = Charge("up", (Leaf("a", 4),), lambda w: 1.0 * w)
    falling = Charge("down", (Leaf("a", 4),), lambda w: 5.0 - w)
    budgets = (Resource("t", "ms", 2.0, 0.0, (rising,)), Resource("m", "bytes", 2.0, 0.0, (falling,)))
    with pytest.raises(InfeasibleError, match="--solver joint") as caught:
        halp(Problem(choices, budgets))
    assert "t and m together" in str(caught.value)


def test_group_that_may_vanish_is_removed_whole():
    choice = Choice("a", np.array([0, 8]), np.array([0.0, 1.0]), 8, np.full(8, 0.125))
    keep = Choice("b", np.array([8]), np.array([9.0]), 8, np.ones(8))
    table = np.concatenate([[0.0], np.full(8, 5.0)])
    charge = Charge("c", (Leaf("b", 8), Leaf("a", 8)), lambda i, o: lookup(table)(o) + 0.0 * i)
    problem = Problem((choice, keep), (Resource("t", "ms", 3.0, 1.0, (charge,)),))
    assert halp(problem).widths == {"a": 0, "b": 8}


def test_targets_fall_geometrically_and_end_at_the_budget():
    targets = schedule(100.0, 25.0, 4)
    assert targets[-1] == 25.0
    ratios = [b / a for a, b in itertools.pairwise([100.0, *targets])]
    assert ratios == pytest.approx([0.25**0.25] * 4)
    assert schedule(100.0, 55.0, 1) == [55.0]
    with pytest.raises(UsageError):
        schedule(100.0, 55.0, 0)
