"""Admissible widths: axes of weights are multiples of the alignment, and factors of products need only what lacks."""

from __future__ import annotations

import itertools
from pathlib import Path

import networkx as nx
import pytest

from halpc.ir.dims import Dim, Leaf, Product, Sum, leaves, width
from halpc.ir.groups import Coupling, Group, Member
from passes.couple import couple
from passes.load import load
from passes.score import score_from_weights
from passes.widths import choices, grids
from tests.small import model, saved, weights

ATTENTION = """
<ir_version: 9, opset_import: ["" : 17]>
net (float[1, 6, 96] x) => (float[1, 6, 96] y)
<int64[4] split = {1, 6, 3, 32}, int64[3] join = {1, 6, 96}>
{
    q = MatMul (x, wq)
    k = MatMul (x, wk)
    v = MatMul (x, wv)
    q4 = Reshape (q, split)
    k4 = Reshape (k, split)
    v4 = Reshape (v, split)
    qh = Transpose <perm = [0, 2, 1, 3]> (q4)
    kh = Transpose <perm = [0, 2, 3, 1]> (k4)
    vh = Transpose <perm = [0, 2, 1, 3]> (v4)
    s = MatMul (qh, kh)
    p = Softmax <axis = -1> (s)
    o = MatMul (p, vh)
    ot = Transpose <perm = [0, 2, 1, 3]> (o)
    o3 = Reshape (ot, join)
    y = MatMul (o3, wo)
}
"""


def coupling_of(*dims: Dim, pinned: tuple[str, ...] = ()) -> Coupling:
    """One weight per dim, which is its first axis."""
    axes = {(f"w{i}", 0): dim for i, dim in enumerate(dims)}
    found = {leaf.name: leaf.size for dim in dims for leaf in leaves(dim)}
    members = {
        name: tuple(
            Member(t, 0, t, "MatMul", "out") for (t, _), dim in axes.items() if name in {x.name for x in leaves(dim)}
        )
        for name in found
    }
    groups = {n: Group(n, size, members[n], "pinned" if n in pinned else None) for n, size in found.items()}
    return Coupling(axes, groups, (), nx.Graph(), {})


HEADS, DIMS, FEW, CHANNELS = Leaf("heads", 3), Leaf("dims", 64), Leaf("few", 4), Leaf("channels", 20)


@pytest.mark.parametrize(
    ("dims", "pinned", "expected"),
    [
        ((CHANNELS,), (), {"channels": 8}),
        ((Product((HEADS, DIMS)),), (), {"heads": 1, "dims": 8}),
        ((Product((HEADS, DIMS)),), ("dims",), {"heads": 1}),
        ((Product((HEADS, FEW)),), ("few",), {"heads": 2}),
        ((Product((HEADS, FEW)),), (), {"heads": 2, "few": 8}),
        ((Product((HEADS, DIMS)), HEADS), (), {"heads": 8, "dims": 8}),
        ((Sum((Product((HEADS, DIMS)), CHANNELS)),), (), {"heads": 1, "dims": 8, "channels": 8}),
        ((Product((HEADS, HEADS, DIMS)),), (), {"heads": 8, "dims": 8}),
    ],
)
def test_a_factor_is_a_multiple_of_what_the_others_lack(
    dims: tuple[Dim, ...], pinned: tuple[str, ...], expected: dict[str, int]
) -> None:
    assert grids(coupling_of(*dims, pinned=pinned), 8) == expected


def test_heads_go_one_by_one_and_weights_stay_aligned(tmp_path: Path) -> None:
    shapes = dict.fromkeys(("wq", "wk", "wv", "wo"), (96, 96))
    loaded = load(saved(tmp_path, model(ATTENTION, weights(shapes))))
    coupling = couple(loaded.twin)
    found = {
        c.name: c.widths.tolist() for c in choices(coupling, score_from_weights("l2", loaded.twin, coupling), align=8)
    }
    assert sorted(found.values()) == [[1, 2, 3], [8, 16, 24, 32], [8, 16, 24, 32]]
    members = {(m.tensor, m.axis) for name in found for m in coupling.groups[name].members}
    assert len(members) == 4
    for chosen in itertools.product(*found.values()):
        widths = dict(zip(found, chosen, strict=True))
        assert all(width(coupling.axes[member], widths) % 8 == 0 for member in members)
