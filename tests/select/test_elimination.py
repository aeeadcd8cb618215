from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instances import every_choice, random_problem

from halpc.ir.dims import Leaf, Product, Sum
from halpc.ir.problem import Charge, Choice, Problem, Resource
from passes.select.elimination import Eliminator, plan
from passes.select.entangled import fit, prepare
from passes.select.exact import Limits
from passes.select.factors import sketch, tabulate
from passes.select.relax import Coarse
from passes.select.scan import Scan

SEEDS = st.integers(0, 10**9)


def best_at(problem, prices, weight):
    """max weight · V − Σ λ C, the fixed parts included in C."""
    return max(
        weight * problem.value(widths)
        - sum(p * r.spent(widths) for p, r in zip(prices, problem.resources, strict=True))
        for widths in every_choice(problem)
    )


def exact(problem, compound, by_fill):
    drawn = sketch(problem, compound=compound, room=1 << 20)
    scopes = list(dict.fromkeys(entry.scope for entry in drawn.entries if entry.scope))
    model = tabulate(drawn)
    return model, Eliminator(model, plan(drawn.sizes, scopes, drawn.links, by_fill=by_fill))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 3), st.booleans(), st.sampled_from([0.0, 1.0]))
def test_elimination_is_exact_at_any_price_and_encoding(seed, compound, by_fill, weight):
    problem = random_problem(seed, groups=4, resources=2)
    prices = np.random.default_rng(seed).exponential(1.0, 2)
    model, eliminate = exact(problem, compound, by_fill)
    answer = eliminate(prices, weight)
    want = best_at(problem, prices, weight)
    assert answer.upper - prices @ model.constants == pytest.approx(want, rel=1e-9, abs=1e-9)
    widths = {c.name: int(c.widths[i]) for c, i in zip(problem.choices, answer.position, strict=True)}
    there = weight * problem.value(widths)
    there -= sum(p * r.spent(widths) for p, r in zip(prices, problem.resources, strict=True))
    assert there == pytest.approx(want, rel=1e-9, abs=1e-9)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(SEEDS, st.sampled_from([1 << 20, 400, 40]))
def test_relaxation_is_never_below_the_maximum(seed, work):
    problem = random_problem(seed, groups=5, options=6, resources=2)
    rng = np.random.default_rng(seed)
    prices = rng.exponential(1.0, 2)
    limits = Limits(entries=1 << 20, work=4 * work)
    stage = prepare(problem, limits)
    origin = stage.whole(np.array([rng.integers(len(c.widths)) for c in problem.choices]))
    fitted = fit(stage, origin, None, limits)
    scan = Scan(stage.drawn, origin, fitted.blocks)
    coarse = Coarse(stage.values, stage.constants, scan, fitted.loose, fitted.split, fitted.order)
    for copy in coarse.urges:
        coarse.urges[copy] += rng.normal(size=len(coarse.urges[copy]))
    answer = coarse(prices, 1.0)
    assert answer.upper - prices @ stage.constants >= best_at(problem, prices, 1.0) - 1e-9
    value, costs = answer.plane
    assert value - prices @ costs == pytest.approx(answer.upper - prices @ stage.constants, rel=1e-9, abs=1e-9)


def group(name, size):
    widths = np.arange(1, size + 1)
    return Choice(name, widths, widths.astype(float))


def test_sums_that_start_alike_share_their_prefix():
    names = "abcdef"
    features = [Leaf(n, 3) for n in names]
    charges = tuple(Charge(f"c{k}", (Sum(tuple(features[:k])),), lambda w: w * 1.0) for k in range(2, 7))
    problem = Problem(tuple(group(n, 3) for n in names), (Resource("t", "", 9.0, 0.0, charges),))
    drawn = sketch(problem, compound=1, room=1 << 20)
    assert len(drawn.links) == 5
    assert [len(w) for w in drawn.widths[6:]] == [5, 7, 9, 11, 13]


def test_prefix_is_shared_in_either_order_of_concat():
    features = [Leaf(n, 3) for n in "abcd"]
    charges = tuple(Charge(f"c{k}", (Sum(tuple(features[:k][::-1])),), lambda w: w * 1.0) for k in (2, 3, 4))
    problem = Problem(tuple(group(n, 3) for n in "abcd"), (Resource("t", "", 9.0, 0.0, charges),))
    assert len(sketch(problem, compound=1, room=1 << 20).links) == 3


def test_product_of_a_sum_and_a_leaf_has_the_right_widths():
    axis = Product((Leaf("const", 2), Sum((Leaf("a", 3), Leaf("b", 2), Leaf("const", 1))), Leaf("h", 2)))
    charge = Charge("c", (axis,), lambda w: w * 1.0)
    problem = Problem((group("a", 3), group("b", 2), group("h", 2)), (Resource("t", "", 9.0, 0.0, (charge,)),))
    drawn = sketch(problem, compound=1, room=1 << 20)
    want = {2 * (a + b + 1) * h for a in (1, 2, 3) for b in (1, 2) for h in (1, 2)}
    term = drawn.entries[0].axes[0]
    assert term is not None
    assert set((drawn.widths[term.variable] * term.scale + term.offset).tolist()) == want


def test_chain_is_eliminated_pair_by_pair():
    charges = tuple(
        Charge(f"c{k}", (Leaf(f"g{k}", 9), Leaf(f"g{k + 1}", 9)), lambda i, o: i * o * 1.0) for k in range(30)
    )
    problem = Problem(tuple(group(f"g{k}", 9) for k in range(31)), (Resource("t", "", 9.0, 0.0, charges),))
    drawn = sketch(problem, compound=2, room=1 << 20)
    order = plan(drawn.sizes, [e.scope for e in drawn.entries], drawn.links, by_fill=True)
    assert max(len(bucket.joint) for bucket in order.buckets) == 2
