"""Widths and masks of sums and products."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from halpc.ir.dims import Dim, Leaf, Mask, Product, Sum, leaves, mask, width
from halpc.ir.saliency import project

LEAVES = [Leaf(name, size) for name, size in (("a", 2), ("b", 3), ("c", 4), ("d", 1))]


def trees() -> st.SearchStrategy[Dim]:
    def wider(children: st.SearchStrategy[Dim]) -> st.SearchStrategy[Dim]:
        several = st.lists(children, min_size=1, max_size=3).map(tuple)
        return several.map(Sum) | several.map(Product)

    return st.recursive(st.sampled_from(LEAVES), wider, max_leaves=6)


masks = st.fixed_dictionaries(
    {leaf.name: st.lists(st.booleans(), min_size=leaf.size, max_size=leaf.size).map(np.array) for leaf in LEAVES}
)


@given(trees(), masks)
def test_a_mask_is_as_long_as_its_dim_and_keeps_its_width(dim: Dim, kept: dict[str, Mask]) -> None:
    result = mask(dim, kept)
    assert result.size == dim.size
    assert int(result.sum()) == width(dim, {name: int(m.sum()) for name, m in kept.items()})


@given(trees())
def test_leaves_that_are_not_named_stay_whole(dim: Dim) -> None:
    assert mask(dim, {}).all()
    assert width(dim, {}) == dim.size


def test_a_sum_concatenates_and_a_product_is_row_major() -> None:
    a, b = LEAVES[0], LEAVES[1]
    kept = {"a": np.array([True, False]), "b": np.array([True, False, True])}
    assert mask(Sum((a, b)), kept).tolist() == [True, False, True, False, True]
    assert mask(Product((a, b)), kept).tolist() == [True, False, True, False, False, False]


def test_widths_broadcast() -> None:
    a, b = LEAVES[0], LEAVES[1]
    got = width(Product((a, b)), {"a": np.array([[1], [2]]), "b": np.array([1, 2, 3])})
    assert got.tolist() == [[1, 2, 3], [2, 4, 6]]


@given(trees())
def test_projected_scores_count_every_channel_once_per_leaf_it_belongs_to(dim: Dim) -> None:
    onto: dict[str, np.ndarray] = {}
    project(dim, np.ones(dim.size), onto)
    assert set(onto) == {leaf.name for leaf in leaves(dim)}


def test_a_leaf_of_a_product_gets_the_scores_of_all_it_takes_along() -> None:
    onto: dict[str, np.ndarray] = {}
    project(Product((LEAVES[0], LEAVES[1])), np.arange(6.0), onto)
    assert onto["a"].tolist() == [3.0, 12.0]
    assert onto["b"].tolist() == [3.0, 5.0, 7.0]
