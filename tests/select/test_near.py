"""`joint(near=)`: local moves from given widths, held against every choice there is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instances import brute_force, every_choice, outcome, random_problem

from halpc.errors import InfeasibleError, UsageError
from halpc.ir.dims import Leaf
from halpc.ir.problem import Charge, Choice, Problem, Resource
from passes.select import select
from passes.select.exact import Limits
from passes.select.joint import joint

SEEDS = st.integers(0, 10**9)
TINY = Limits(entries=4000, work=400, seconds=5.0)


def anywhere(problem, seed):
    rng = np.random.default_rng([seed, 1])
    return {choice.name: int(rng.choice(choice.widths)) for choice in problem.choices}


def with_less(problem):
    """The same, every limit lower by more than rounding."""
    lower = (replace(r, limit=r.limit - 1e-9 * abs(r.limit)) for r in problem.resources)
    return Problem(problem.choices, tuple(lower))


def singly_better(problem, widths):
    """Choices that differ in one group, fit with more than rounding to spare, and keep more."""
    less = with_less(problem)
    others = ({**widths, c.name: int(w)} for c in problem.choices for w in c.widths)
    return [other for other in others if less.feasible(other) and problem.value(other) > problem.value(widths)]


def check(problem, seed, limits=None):
    """From admissible widths anywhere: within the limits, below the bound, and never worth less than where it began."""
    best, _ = brute_force(problem)
    near = anywhere(problem, seed)
    found = outcome(lambda p: joint(p, limits, near), problem)
    if isinstance(found, InfeasibleError):
        assert best is None, "a feasible choice exists"
        return
    assert problem.feasible(found.widths)
    assert found.value == problem.value(found.widths)
    assert found.bound >= best >= found.value
    if problem.feasible(near):
        assert found.value >= problem.value(near)
        better = [problem.value(w) - found.value for w in singly_better(problem, found.widths)]
        assert max(better, default=0.0) <= 1e-9 * abs(found.value)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 3))
def test_near_keeps_every_limit_and_loses_nothing(seed, resources):
    check(random_problem(seed, resources=resources), seed)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 2))
def test_near_keeps_them_where_the_tables_are_too_large(seed, resources):
    check(random_problem(seed, resources=resources), seed, TINY)


@pytest.mark.slow
@settings(max_examples=4000, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 3))
def test_near_keeps_every_limit_on_thousands(seed, resources):
    check(random_problem(seed, resources=resources), seed)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(SEEDS)
def test_near_the_optimum_stays_as_good_as_it(seed):
    problem = random_problem(seed)
    best, _ = brute_force(problem)
    if best is None:
        return
    near = next(w for w in every_choice(problem) if problem.feasible(w) and problem.value(w) == best)
    assert joint(problem, near=near).value == best


def chain(limit):
    """Twelve groups in a row; each kernel costs the product of its two widths."""
    rng = np.random.default_rng(4)
    widths = np.arange(8, 65, 8)
    choices = tuple(Choice(f"g{i}", widths, np.cumsum(np.sort(rng.random(8))[::-1])) for i in range(12))
    leaf = [Leaf(c.name, 64) for c in choices]
    charges = tuple(Charge(f"c{i}", (leaf[i], leaf[i + 1]), lambda a, b: a * b / 64.0) for i in range(11))
    return Problem(choices, (Resource("t", "ms", limit, 0.0, charges),))


@pytest.mark.parametrize("change", [0.97, 1.03])
def test_a_small_change_of_the_limit_changes_few_groups(change):
    before = joint(chain(400.0))
    after = joint(chain(400.0 * change), near=before.widths)
    changed = [name for name in before.widths if before.widths[name] != after.widths[name]]
    assert 1 <= len(changed) <= 4
    assert after.spent["t"] <= 400.0 * change
    assert (after.value - before.value) * (change - 1) > 0
    assert after.gap < 0.01


def test_near_says_what_is_infeasible():
    problem = chain(1.0)
    with pytest.raises(InfeasibleError):
        joint(problem, near={c.name: 64 for c in problem.choices})


def test_near_widths_that_are_not_admissible_are_an_error():
    problem = chain(400.0)
    near = {c.name: 64 for c in problem.choices}
    with pytest.raises(UsageError, match="g3"):
        joint(problem, near={**near, "g3": 63})


@pytest.mark.parametrize("solver", ["halp", "sp-lamp"])
def test_the_papers_solvers_know_no_near(solver):
    scored = [replace(c, scores=np.diff(c.value, prepend=0.0).repeat(8) / 8) for c in chain(400.0).choices]
    problem = Problem(tuple(scored), chain(400.0).resources)
    near = {c.name: 8 for c in problem.choices}
    assert select(problem, solver=solver, near=near).widths == select(problem, solver=solver).widths
