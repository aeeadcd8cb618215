"""What couple found: every axis as a dim, the groups (leaves) these dims share, and what follows a width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import networkx as nx

from halpc.ir.dims import Dim, Leaf, leaves


@dataclass(frozen=True, slots=True)
class Member:
    """One weight axis that shrinks with a group.

    Attributes:
        tensor: initializer name.
        axis: which of its axes.
        node: the node that uses it, for people.
        op: that node's operator.
        role: `out` where the axis is what the node produces, `in` where it is what it consumes.
    """

    tensor: str
    axis: int
    node: str
    op: str
    role: Literal["out", "in", "other"]


@dataclass(frozen=True, slots=True)
class Group:
    """Channels that stay or go together in all of their members: a coupled group of HALP.

    Attributes:
        name: the leaf's name, made from the first layer that produces it.
        size: channels before pruning.
        members: weight axes made of it.
        pin: why it may not shrink, or None.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    pin: str | None = None


@dataclass(frozen=True, slots=True)
class Follow:
    """An attribute or integer operand of a node that counts (or points into) axes.

    Attributes:
        node: name of the node.
        attribute: its attribute, or "".
        operand: its input index, or −1.
        kind: `count`: entry i becomes the width of `entries[i]`; `index`: entries are positions on `entries`;
            `share`: the node's output is a mean over `entries`, to be divided by their old sizes; `root`: it is
            divided by the root of a mean square over `entries`, and multiplied by the operand.
        entries: dims; None leaves an entry alone.
    """

    node: str
    attribute: str
    operand: int
    kind: Literal["count", "index", "share", "root"]
    entries: tuple[Dim | None, ...]


@dataclass(frozen=True, slots=True)
class Coupling:
    """The solved dimension equations of one model.

    Attributes:
        axes: (tensor, axis) → dim, for every axis longer than 1.
        groups: leaf name → group, pinned ones included.
        follows: what must be rewritten.
        graph: axes as nodes `("tensor", axis)`, edges carry `node` and `op`; for explanations.
        renormalised: leaf names that only an approximate model may shrink, with the reason.
    """

    axes: Mapping[tuple[str, int], Dim]
    groups: Mapping[str, Group]
    follows: tuple[Follow, ...]
    graph: nx.Graph
    renormalised: Mapping[str, str]

    def free(self) -> dict[str, Group]:
        """Groups that may shrink."""
        return {name: group for name, group in self.groups.items() if group.pin is None and group.size > 0}

    def shape_of(self, tensor: str, sizes: Sequence[int]) -> tuple[Dim, ...]:
        """A tensor's axes; sizes that are not those that were solved are of another tensor of that name, in a body."""
        solved = (self.axes.get((tensor, i)) for i in range(len(sizes)))
        return tuple(
            Leaf("", int(n)) if dim is None or dim.size != n else dim for dim, n in zip(solved, sizes, strict=True)
        )

    def shrinks(self, tensor: str, axis: int) -> bool:
        """Whether any leaf of this axis may shrink."""
        dim = self.axes.get((tensor, axis))
        return dim is not None and any(self.groups[leaf.name].pin is None for leaf in leaves(dim))
