from __future__ import annotations

import numpy as np
import pytest
from instances import every_choice

from halpc.errors import InfeasibleError
from halpc.ir.cost import Proportional
from halpc.ir.dims import Leaf, Product, Sum
from halpc.ir.problem import Charge, Choice, Problem, Resource
from passes.select.exact import Limits, best_plan
from passes.select.factors import TooLargeError
from passes.select.joint import joint
from passes.select.parts import in_parts


def harmonic(layers, width, share=0.5, cost=Proportional):
    """HarDNet's pattern: layer n reads the layers n - 1, n - 2, n - 4, … whose distance divides n."""
    rng = np.random.default_rng(layers)
    widths = np.arange(1, width + 1)
    choices = tuple(Choice(f"g{n}", widths, np.cumsum(np.sort(rng.random(width))[::-1])) for n in range(layers))
    charges = []
    for n in range(1, layers):
        read = [n - 2**k for k in range(n.bit_length()) if n % 2**k == 0 and n >= 2**k]
        axes = (Sum(tuple(Leaf(f"g{i}", width) for i in (*read, 0))), Leaf(f"g{n}", width))
        charges.append(Charge(f"c{n}", axes, cost(1.0 + n)))
    full = Resource("macs", "MACs", np.inf, 0.0, tuple(charges)).spent({c.name: width for c in choices})
    return Problem(choices, (Resource("macs", "MACs", share * full, 0.0, tuple(charges)),))


def test_parts_cost_what_the_whole_costs():
    heads = Product((Leaf("g1", 3), Sum((Leaf("g2", 3), Leaf("there", 2)))))
    charges = (
        *harmonic(5, 3).resources[0].charges,
        Charge("product", (heads, Leaf("g0", 3)), Proportional(0.5)),
        Charge("stairs", (Sum((Leaf("g1", 3), Leaf("g2", 3))),), np.sqrt),
    )
    problem = Problem(harmonic(5, 3).choices, (Resource("macs", "MACs", 100.0, 2.0, charges),))
    parts = in_parts(problem)
    assert not any(isinstance(axis, Sum) for c in parts.resources[0].charges[:-1] for axis in c.axes)
    assert parts.resources[0].charges[-1] is charges[-1]
    for widths in every_choice(problem):
        assert parts.resources[0].spent(widths) == pytest.approx(problem.resources[0].spent(widths), rel=1e-12)


def test_layers_that_read_a_few_before_them_are_eliminated_in_parts():
    few = Limits(work=1 << 17)
    problem = harmonic(24, 8)
    drawn, _ = best_plan(problem, few)
    assert not drawn.links
    with pytest.raises(TooLargeError):
        best_plan(harmonic(24, 8, cost=lambda factor: lambda a, b: factor * a * np.ceil(b)), few)
    found = joint(problem, few)
    assert found.gap <= 1e-8
    assert problem.feasible(found.widths)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_answer_is_the_best_of_every_choice(share):
    problem = harmonic(6, 4, share)
    best = max((problem.value(widths) for widths in every_choice(problem) if problem.feasible(widths)), default=None)
    if best is None:
        with pytest.raises(InfeasibleError):
            joint(problem)
    else:
        assert joint(problem, Limits(work=1 << 10)).value == pytest.approx(best, rel=1e-12)
