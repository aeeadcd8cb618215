from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instances import brute_force, check_every_budget_is_kept, outcome, random_problem

from halpc.errors import InfeasibleError
from halpc.ir.problem import Problem
from passes.select import select, sp_lamp_scores
from passes.select.sp_lamp import group_knapsack, sp_lamp, top_filter_kept

SEEDS = st.integers(0, 10**9)
NORMS = st.lists(st.floats(0.0, 1e100, allow_subnormal=False), min_size=1, max_size=40)


def test_scores_of_four_filters_by_hand():
    norms = np.sqrt([4.0, 1.0, 3.0, 2.0])
    assert sp_lamp_scores(norms) == pytest.approx([1.0, 0.1, 3 / 7, 2 / 9])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(NORMS)
def test_scores_rank_as_norms_and_the_largest_is_one(norms):
    norms = np.array(norms)
    scores = sp_lamp_scores(norms)
    assert scores.max() == 1.0
    assert scores[np.argmax(norms)] == 1.0 or norms.max() in np.delete(norms, np.argmax(norms))
    assert np.all((scores >= 0) & (scores <= 1))
    order = np.argsort(norms, kind="stable")
    assert np.all(np.diff(scores[order]) >= -1e-12)


def test_scores_do_not_change_with_scale():
    norms = np.array([0.3, 5.0, 2.0, 1.0])
    assert sp_lamp_scores(norms * 1e120) == pytest.approx(sp_lamp_scores(norms))
    assert sp_lamp_scores(np.zeros(3)).sum() == 1.0
    assert len(sp_lamp_scores(np.zeros(0))) == 0


@settings(max_examples=400, deadline=None, derandomize=True)
@given(SEEDS)
def test_group_knapsack_is_optimal(seed):
    rng = np.random.default_rng(seed)
    sizes = [int(rng.integers(1, 5)) for _ in range(int(rng.integers(1, 5)))]
    values = [np.round(rng.random(n), 1) for n in sizes]
    weights = [rng.integers(0, 8, n) for n in sizes]
    for weight in weights:
        weight[int(rng.integers(len(weight)))] = 0
    capacity = int(rng.integers(0, 15))
    chosen = group_knapsack(values, weights, capacity)
    assert sum(int(w[k]) for w, k in zip(weights, chosen, strict=True)) <= capacity
    best = max(
        sum(float(v[k]) for v, k in zip(values, pick, strict=True))
        for pick in itertools.product(*(range(n) for n in sizes))
        if sum(int(w[k]) for w, k in zip(weights, pick, strict=True)) <= capacity
    )
    assert sum(float(v[k]) for v, k in zip(values, chosen, strict=True)) == pytest.approx(best)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(SEEDS)
def test_budget_is_kept_or_proven_infeasible(seed):
    problem = random_problem(seed)
    kept = Problem(tuple(top_filter_kept(c) for c in problem.choices), problem.resources)
    best, least = brute_force(kept)
    found = outcome(lambda p: select(p, solver="sp-lamp"), problem)
    if isinstance(found, InfeasibleError):
        assert best is None
        assert found.floor == pytest.approx(least[0], rel=1e-9, abs=1e-9)
        return
    assert best is not None
    assert problem.feasible(found.widths)
    assert found.value <= best
    assert all(w > 0 or c.widths.tolist() == [0] for c, w in zip(problem.choices, found.widths.values(), strict=True))


def test_top_filter_stays_where_the_group_could_vanish():
    for seed in range(200):
        problem = random_problem(seed, tight=0.6)
        if any(c.widths[0] == 0 and len(c.widths) > 1 for c in problem.choices):
            assert (
                top_filter_kept(next(c for c in problem.choices if c.widths[0] == 0 and len(c.widths) > 1)).widths[0]
                > 0
            )
            return
    pytest.fail("no instance has a group that may vanish")


def test_nothing_is_pruned_within_a_loose_budget():
    problem = random_problem(4, tight=2.0)
    assert sp_lamp(problem).widths == {c.name: int(c.widths[-1]) for c in problem.choices}


@settings(max_examples=120, deadline=None, derandomize=True)
@given(SEEDS)
def test_several_budgets_are_all_kept(seed):
    problem = random_problem(seed, resources=2, tight=0.6)
    kept = Problem(tuple(top_filter_kept(c) for c in problem.choices), problem.resources)
    check_every_budget_is_kept(sp_lamp, problem, kept)
