"""The linear model that the general solvers get: exact, though equal slices of a table stand there once."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.instances import staircase
from benchmarks.judges import condensed, linear
from halpc.ir.dims import Leaf, Product
from halpc.ir.problem import Charge, Choice, Problem, Resource


@pytest.mark.parametrize("cost", [staircase(3.0, 32), lambda a, b: a * b * 1.0, lambda a, b: 0.0 * a * b])
def test_a_condensed_table_says_what_the_whole_one_says(cost: object) -> None:
    widths = {"a": np.arange(1, 70), "b": np.arange(3, 130, 2)}
    charge = Charge("k", (Leaf("a", 69), Leaf("b", 129)), cost)  # type: ignore[arg-type]
    whole = charge.at({"a": widths["a"][:, None], "b": widths["b"]})
    found = condensed(charge, ["a", "b"], widths)
    assert found is not None
    table, classes = found
    assert np.array_equal(table[np.ix_(*classes)], whole)
    assert len(np.unique(table, axis=0)) == table.shape[0]
    assert len(np.unique(table, axis=1).T) == table.shape[1]


def test_a_condensed_table_of_three_groups_says_what_the_whole_one_says() -> None:
    widths = {"h": np.arange(1, 5), "d": np.arange(1, 40), "m": np.arange(1, 60)}
    charge = Charge("k", (Product((Leaf("h", 4), Leaf("d", 39))), Leaf("m", 59)), staircase(1.0, 16))
    found = condensed(charge, ["h", "d", "m"], widths)
    assert found is not None
    table, classes = found
    whole = charge.at({"h": widths["h"][:, None, None], "d": widths["d"][:, None], "m": widths["m"]})
    assert table.size < whole.size
    assert np.array_equal(table[np.ix_(*classes)], whole)


def test_costs_that_touch_no_group_come_off_the_room() -> None:
    choice = Choice("a", np.arange(1, 4), np.arange(1.0, 4.0))
    charges = (Charge("c", (Leaf("other", 5),), lambda w: 2.0 * w), Charge("d", (Leaf("a", 3),), lambda w: 1.0 * w))
    model = linear(Problem((choice,), (Resource("t", "ms", 20.0, 3.0, charges),)))
    assert model is not None
    assert model.uses[0].room == 7.0
    assert model.uses[0].costs == [1.0, 2.0, 3.0]


def test_a_model_that_would_be_too_large_is_none() -> None:
    n = 3000
    choices = tuple(Choice(name, np.arange(1, n + 1), np.arange(1.0, n + 1)) for name in "ab")
    charge = Charge("k", (Leaf("a", n), Leaf("b", n)), lambda a, b: np.sqrt(1.0 * a * a + b))
    assert linear(Problem(choices, (Resource("t", "ms", 20.0, 0.0, (charge,)),))) is None
