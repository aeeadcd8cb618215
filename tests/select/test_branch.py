"""Branch and bound against every choice there is, whole and with beams, prices and time that do not suffice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instances import brute_force, outcome, random_problem

from benchmarks.instances import instance
from benchmarks.judges import by_highs
from halpc.errors import InfeasibleError
from passes.select import branch
from passes.select.exact import Limits, exact_dual
from passes.select.joint import joint

SEEDS = st.integers(0, 10**9)
NO_GAP = 1e-8


def check(problem):
    """The selection, its value and bound on either side of the best of all choices; None where nothing fits."""
    best, _ = brute_force(problem)
    found = outcome(joint, problem)
    if isinstance(found, InfeasibleError):
        assert best is None
        return None
    assert best is not None
    assert problem.feasible(found.widths)
    assert found.value <= best <= found.bound
    return found


@settings(max_examples=250, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 3))
def test_every_small_problem_is_solved_and_proven(seed, resources):
    found = check(random_problem(seed, groups=5, resources=resources))
    assert found is None or found.gap <= NO_GAP


@settings(max_examples=120, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 2), st.sampled_from([(1,), (2,), (1, 3)]))
def test_what_a_beam_drops_stays_in_the_bound(seed, resources, beams):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branch, "BEAMS", beams)
        patch.setattr(branch, "AT_ONCE", 4)
        check(random_problem(seed, groups=5, resources=resources))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(SEEDS)
def test_a_search_that_time_cuts_short_keeps_the_bound(seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branch, "SECONDS", -1.0)
        check(random_problem(seed, groups=5))


def test_without_room_for_messages_nothing_is_searched():
    problem = next(p for p in map(random_problem, range(100)) if _without_search(p).gap > 1e-3)
    dual, oracle = exact_dual(problem, Limits())
    dual.floor(0)
    dual.minimise()
    known = max(filter(dual.within, dual.visits), key=lambda v: v.value)
    assert branch.close(dual, oracle, known, room=0) == (known, dual.bound)


def _without_search(problem):
    """What prices and local moves find."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branch, "BEAMS", ())
        return joint(problem)


@pytest.mark.parametrize("network", ["resnet50", "mobilenetv2", "vit"])
def test_highs_proves_the_same_optimum_of_whole_networks(network):
    problem = instance(network, 100, 0.5)
    verdict = by_highs(problem)
    assert verdict is not None
    found = joint(problem)
    assert found.gap <= NO_GAP
    assert found.value == pytest.approx(verdict.value, rel=1e-6)
    assert _without_search(problem).gap > 1e-4


def test_search_finds_what_local_moves_miss_and_proves_it_at_a_thousand_widths():
    problem = instance("densenet121", 1000, 0.5)
    before, found = _without_search(problem), joint(problem)
    assert before.value < found.value <= found.bound <= before.bound
    assert found.gap <= NO_GAP
    assert "branch and bound" in found.bound_means
