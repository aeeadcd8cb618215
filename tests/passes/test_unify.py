"""The laws of unification: it is symmetric, keeps sizes, and leaves both sides with the same mask whatever goes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from halpc.ir.dims import Dim, Leaf, Product, Sum, leaves, mask
from passes.coupling.unify import PinReason, Unifier

WHY = PinReason("test")
Tree = int | tuple[str, tuple["Tree", ...]]


@st.composite
def trees(draw: st.DrawFn, size: int, depth: int = 2) -> Tree:
    """A leaf, a sum or a product of `size` channels."""
    kinds = ["leaf"]
    if depth and size > 1:
        kinds += ["sum", "sum"]
        kinds += ["product", "product"] if any(size % f == 0 for f in range(2, size)) else []
    kind = draw(st.sampled_from(kinds))
    if kind == "leaf":
        return size
    if kind == "sum":
        cut = draw(st.integers(1, size - 1))
        return ("sum", (draw(trees(cut, depth - 1)), draw(trees(size - cut, depth - 1))))
    factor = draw(st.sampled_from([f for f in range(2, size) if size % f == 0]))
    return ("product", (draw(trees(factor, depth - 1)), draw(trees(size // factor, depth - 1))))


def build(unifier: Unifier, tree: Tree) -> int:
    if isinstance(tree, int):
        return unifier.leaf(tree)
    parts = [build(unifier, part) for part in tree[1]]
    return unifier.sum(parts) if tree[0] == "sum" else unifier.product(parts)


def resolved(unifier: Unifier, variables: list[int]) -> list[Dim]:
    names = {leaf: str(leaf) for v in variables for leaf in unifier.leaves(v)}
    memo: dict[int, Dim] = {}
    return [unifier.resolve(names, memo, v) for v in variables]


def pinned_names(unifier: Unifier, variables: list[int]) -> set[str]:
    return {str(leaf) for v in variables for leaf in unifier.leaves(v) if unifier.pinned(leaf)}


def random_masks(dims: list[Dim], pinned: set[str], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {leaf.name: leaf.size for dim in dims for leaf in leaves(dim)}
    drawn = {name: rng.random(n) < 0.5 for name, n in sorted(found.items())}
    return {name: np.ones_like(drawn[name]) if name in pinned else drawn[name] for name in drawn}


def check(unifier: Unifier, pairs: list[tuple[int, int]], seed: int) -> None:
    """Both sides of every equation keep the same channels."""
    variables = [v for pair in pairs for v in pair]
    dims = resolved(unifier, variables)
    masks = random_masks(dims, pinned_names(unifier, variables), seed)
    for a, b in zip(dims[::2], dims[1::2], strict=True):
        assert a.size == b.size
        assert np.array_equal(mask(a, masks), mask(b, masks))


@given(st.data(), st.sampled_from([4, 6, 8, 12, 24, 36, 60]), st.integers(0, 9))
@settings(max_examples=300, deadline=None)
def test_both_sides_keep_the_same_channels(data: st.DataObject, size: int, seed: int) -> None:
    unifier = Unifier()
    a, b = (build(unifier, data.draw(trees(size, 3))) for _ in range(2))
    unifier.equate(a, b, WHY)
    check(unifier, [(a, b)], seed)


@given(st.data(), st.sampled_from([6, 12, 24, 36]), st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_chains_of_equations_hold_together(data: st.DataObject, size: int, seed: int) -> None:
    unifier = Unifier()
    sides = [build(unifier, data.draw(trees(size, 2))) for _ in range(4)]
    pairs = [(sides[i], sides[j]) for i, j in data.draw(st.permutations([(0, 1), (2, 3), (1, 2), (0, 3)]))]
    for a, b in pairs:
        unifier.equate(a, b, WHY)
    check(unifier, pairs, seed)


@given(st.data(), st.sampled_from([6, 12, 24]), st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_leaves_shared_between_sides_stay_consistent(data: st.DataObject, size: int, seed: int) -> None:
    """Halves swapped, shuffled, repeated: x = a + b while y = b + a."""
    unifier = Unifier()
    cut = data.draw(st.integers(1, size - 1))
    a, b = build(unifier, data.draw(trees(cut, 2))), build(unifier, data.draw(trees(size - cut, 2)))
    x, y, z = unifier.sum([a, b]), unifier.sum([b, a]), build(unifier, data.draw(trees(size, 2)))
    unifier.equate(x, y, WHY)
    unifier.equate(z, y, WHY)
    check(unifier, [(x, y), (z, y), (x, z)], seed)


@given(st.data(), st.sampled_from([6, 12, 24, 36]))
@settings(max_examples=200, deadline=None)
def test_equating_is_symmetric(data: st.DataObject, size: int) -> None:
    trees_ = data.draw(trees(size, 3)), data.draw(trees(size, 3))
    sizes = []
    for first, second in ((0, 1), (1, 0)):
        unifier = Unifier()
        built = [build(unifier, tree) for tree in trees_]
        unifier.equate(built[first], built[second], WHY)
        dims = resolved(unifier, built)
        pinned = pinned_names(unifier, built)
        found = {leaf.name: leaf.size for dim in dims for leaf in leaves(dim)}
        sizes.append(sorted(n for name, n in found.items() if n > 1 and name not in pinned))
    assert sizes[0] == sizes[1]


@given(st.data(), st.sampled_from([6, 12, 24, 36]))
@settings(max_examples=100, deadline=None)
def test_equating_with_a_leaf_adds_no_pin(data: st.DataObject, size: int) -> None:
    unifier = Unifier()
    a, b = build(unifier, data.draw(trees(size, 3))), unifier.leaf(size)
    unifier.equate(a, b, WHY)
    assert pinned_names(unifier, [a, b]) == set()
    assert resolved(unifier, [a]) == resolved(unifier, [b])


def test_a_pin_reaches_what_is_refined_later() -> None:
    unifier = Unifier()
    a, b = unifier.leaf(12), unifier.sum([unifier.leaf(5), unifier.leaf(7)])
    unifier.pin(a, PinReason("it is read", "node"))
    unifier.equate(a, b, WHY)
    assert all(str(unifier.pinned(leaf)) == "it is read (node)" for leaf in unifier.leaves(b))


def test_different_sizes_pin_both_sides_and_say_so() -> None:
    unifier = Unifier()
    a, b = unifier.leaf(4), unifier.leaf(6)
    unifier.equate(a, b, PinReason("axes that do not fit together", "Add_3"))
    said = "axes that do not fit together: 4 channels against 6 (Add_3)"
    assert str(unifier.pinned(a)) == str(unifier.pinned(b)) == said


def test_a_long_sum_is_aligned_with_a_product_in_linear_time() -> None:
    unifier = Unifier()
    total = unifier.sum([unifier.leaf(1) for _ in range(4000)])
    folded = unifier.product([unifier.leaf(2), unifier.leaf(2000)])
    unifier.equate(total, folded, WHY)
    assert len(unifier.leaves(total)) == 2000


def test_a_block_that_stands_alone_in_a_sum_stays_in_the_products_that_it_is_part_of() -> None:
    """3·2·2·2 = 2·3·(1 + 3): 3·2 and 2·3 clash, so the first 2 of 2·2 = 1 + 3 remains a factor of the left side."""
    unifier = Unifier()
    left = unifier.product([unifier.leaf(n) for n in (3, 2, 2, 2)])
    right = unifier.product([unifier.leaf(2), unifier.leaf(3), unifier.sum([unifier.leaf(1), unifier.leaf(3)])])
    unifier.equate(left, right, WHY)
    for seed in range(10):
        check(unifier, [(left, right)], seed)


def test_shuffle_is_a_swapped_product() -> None:
    unifier = Unifier()
    groups, inner = unifier.leaf(3), unifier.leaf(8)
    x, y = unifier.product([groups, inner]), unifier.product([inner, groups])
    dims = resolved(unifier, [x, y])
    assert dims == [Product((Leaf("0", 3), Leaf("1", 8))), Product((Leaf("1", 8), Leaf("0", 3)))]
    other = unifier.product([unifier.leaf(3), unifier.leaf(8)])
    unifier.equate(y, other, WHY)
    check(unifier, [(y, other)], 0)


def test_a_sum_keeps_its_parts_in_order() -> None:
    unifier = Unifier()
    a, b = unifier.leaf(2), unifier.leaf(3)
    assert resolved(unifier, [unifier.sum([a, b])]) == [Sum((Leaf("0", 2), Leaf("1", 3)))]
