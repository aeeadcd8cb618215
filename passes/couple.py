"""couple: from a static graph to groups of channels that stay or go together.

Requires a static twin (every shape known, shape subgraphs folded). Collects the facts of every rule, solves the
equations (`passes/coupling/unify.py`), then checks what sums over removed channels (`passes/coupling/zeros.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
import onnx_graphsurgeon as gs

from halpc.ir.dims import Dim, Leaf, Product, Sum, leaves
from halpc.ir.groups import Coupling, Follow, Group
from passes.coupling.members import members_of, name_leaves
from passes.coupling.unify import PinReason, Unifier
from passes.coupling.view import view
from passes.coupling.zeros import Zeros
from passes.rules import rule_for
from passes.rules.language import (
    Attribute,
    Axis,
    Contract,
    Count,
    Equal,
    Fact,
    Index,
    Input,
    Mean,
    Op,
    Operand,
    Pin,
    Renormalise,
    Zero,
)

log = logging.getLogger(__name__)

POSITIONS = "computed positions point into it"
FIXED_TYPES = ("int64", "uint64", "bool", "object", "str")


def couple(graph: gs.Graph, *, renormalise: bool = False, freeze: Iterable[str] = ()) -> Coupling:
    """Solve the dimension equations of `graph`.

    Args:
        graph: static twin of the model.
        renormalise: let axes shrink under a mean or a LayerNorm; the result is then approximate.
        freeze: names of nodes or tensors whose produced axes stay whole.
    """
    equations = _Equations(renormalise=renormalise)
    for op in view(graph):
        equations.add(op, _facts(op))
    equations.pin_interface(graph)
    equations.freeze(set(freeze))
    equations.pin_varying()
    equations.zeros.settle(equations.unifier, equations.variable)
    return equations.solved(graph)


def _facts(op: Op) -> list[Fact]:
    """What the operator's rule says, or a pin of everything for want of one, or where it does not take the operator."""
    function = rule_for(op.domain, op.type)
    label = f"{op.domain}::{op.type}" if op.domain else op.type
    if function is None:
        return _pinned(op, f"halpc has no rule for operator {label}")
    try:
        facts = list(function(op))
        _check(facts)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        log.warning("%s stays whole: its attributes and operands are none that halpc knows: %s", op.name, error)
        return _pinned(op, f"attributes and operands of {label} are none that halpc knows: {error}")
    spoken = _leaves(facts)
    for operand in _operands(op):
        for axis in operand.axes:
            if axis.size != 1 and axis not in spoken:
                facts.append(Pin(axis, f"{label} does not say what happens to axis {axis.index} of {operand.name}"))
    return facts


def _leaves(facts: Iterable[Fact]) -> set[Leaf]:
    return {leaf for fact in facts for dim in _dims(fact) for leaf in leaves(dim)}


def _check(facts: Iterable[Fact]) -> None:
    if any(leaf.size < 0 for leaf in _leaves(facts)):
        raise ValueError("an axis comes out with less than nothing")


def _pinned(op: Op, reason: str) -> list[Fact]:
    return [Pin(axis, reason) for x in _operands(op) for axis in x.axes]


def _operands(op: Op) -> list[Operand]:
    return [x for x in (*op.inputs, *op.outputs) if x is not None]


def _dims(fact: Fact) -> tuple[Dim, ...]:
    """The axes that a fact speaks about; zero-ness and counts alone are not speaking."""
    match fact:
        case Equal(a, b):
            return (a, b)
        case Pin(a) | Renormalise(a):
            return (a,)
        case Contract(axes) | Index(_, axes) | Mean(axes):
            return axes
        case _:
            return ()


@dataclass
class _Equations:
    """Equations under construction: variables of axes, follows, the graph for explanations."""

    renormalise: bool
    unifier: Unifier = field(default_factory=Unifier)
    zeros: Zeros = field(default_factory=Zeros)
    graph: nx.Graph = field(default_factory=nx.Graph)
    variables: dict[tuple[str, int], int] = field(default_factory=dict)
    follows: list[tuple[Op, Count | Index | Mean, dict[str, int]]] = field(default_factory=list)
    softened: dict[int, str] = field(default_factory=dict)

    def variable(self, axis: Axis) -> int:
        """The variable of an axis."""
        key = (axis.tensor, axis.index)
        if key not in self.variables:
            self.variables[key] = self.unifier.leaf(axis.size)
        return self.variables[key]

    def _build(self, dim: Dim, local: dict[str, int]) -> int:
        """A rule's expression as a variable; its own leaves are local to the node."""
        match dim:
            case Axis():
                return self.variable(dim)
            case Leaf(name, size):
                if name not in local:
                    local[name] = self.unifier.leaf(size)
                return local[name]
            case Sum(parts):
                return self.unifier.sum([self._build(part, local) for part in parts])
            case Product(factors):
                return self.unifier.product([self._build(factor, local) for factor in factors])

    def add(self, op: Op, facts: list[Fact]) -> None:
        """Take in what one node says."""
        local: dict[str, int] = {}
        positions = {fact.place.index for fact in facts if isinstance(fact, Index)}
        for i, operand in enumerate(op.inputs):
            if operand is not None and operand.constant:
                self._constant(operand, rigid=i not in positions)
        for fact in facts:
            self._connect(op, fact)
            match fact:
                case Equal(a, b):
                    why = PinReason("axes that do not fit together", op.name)
                    self.unifier.equate(self._build(a, local), self._build(b, local), why)
                case Pin(a, reason):
                    self.unifier.pin(self._build(a, local), PinReason(reason, op.name))
                case Renormalise(a, reason):
                    self._soften(self._build(a, local), PinReason(reason, op.name))
                case Zero(y, sources, any_):
                    self.zeros.carry(y, sources, any_)
                case Contract(axes, reason):
                    for other in axes[1:]:
                        self.unifier.equate(self.variable(axes[0]), self.variable(other), PinReason(reason, op.name))
                    self.zeros.need(axes, PinReason(f"{reason}, and what is removed would not be zero there", op.name))
                case Mean():
                    self._mean(op, fact)
                case Count() | Index():
                    self._followed(op, fact, local)

    def _mean(self, op: Op, fact: Mean) -> None:
        """Approximate where that is allowed; else exact over zeros, and y is scaled from the new count to the old."""
        axes, reason = fact.axes, fact.reason
        if self.renormalise:
            for axis in axes:
                self._soften(self.variable(axis), PinReason(reason, op.name))
            return
        for axis in axes if op.inside else ():
            self.unifier.pin(self.variable(axis), PinReason(f"{reason} in the body of a loop", op.name))
        for axis in axes:
            self.zeros.need((axis,), PinReason(f"{reason}, and what is removed would not be zero there", op.name))
        self.follows.append((op, fact, {}))

    def _followed(self, op: Op, fact: Count | Index, local: dict[str, int]) -> None:
        """Remember what must be rewritten; where that cannot be, the axes stay.

        Positions must be a constant; what is computed in the body of a loop has no place to be scaled at.
        """
        operand = op.maybe(fact.place.index) if isinstance(fact.place, Input) else None
        literal = isinstance(fact.place, Attribute) or (
            operand is not None and operand.constant and not operand.computed
        )
        if literal or (isinstance(fact, Count) and not op.inside):
            self.follows.append((op, fact, local))
            return
        counted = "it is counted in the body of a loop"
        dims, reason = (fact.entries, counted) if isinstance(fact, Count) else (fact.axes, POSITIONS)
        for dim in dims:
            if dim is not None:
                self.unifier.pin(self._build(dim, local), PinReason(reason, op.name))

    def pin_varying(self) -> None:
        """A count that depends on a dynamic axis can be scaled by what is kept, if that axis is a factor of it."""
        for op, fact, local in self.follows:
            if not isinstance(fact, Count) or not isinstance(fact.place, Input):
                continue
            operand = op.maybe(fact.place.index)
            if operand is None:
                continue
            for i, entry in enumerate(fact.entries):
                if entry is not None and i in operand.adding:
                    v = self._build(entry, local)
                    if not self.unifier.scales(v):
                        why = "its size depends on a dynamic axis in a way that halpc cannot rewrite"
                        self.unifier.pin(v, PinReason(why, op.name))

    def _constant(self, operand: Operand, *, rigid: bool) -> None:
        """Weights that are removed are zero; what the model computes, and integers, stay whole.

        Unless they are positions on an axis (`rigid` is false): these are sliced and renumbered.
        """
        for axis in operand.axes:
            if operand.computed:
                self.unifier.pin(self.variable(axis), PinReason(f"{operand.name} is computed from dynamic axes"))
            elif (rigid and operand.dtype in FIXED_TYPES) or (not rigid and operand.dtype != "int64"):
                self.unifier.pin(self.variable(axis), PinReason(f"constant {operand.name} is no weight"))
            elif rigid and operand.masked:
                self.zeros.constant(axis)

    def _soften(self, v: int, why: PinReason) -> None:
        if self.renormalise:
            for leaf in self.unifier.leaves(v):
                self.softened.setdefault(leaf, str(why))
        else:
            self.unifier.pin(v, why)

    def _connect(self, op: Op, fact: Fact) -> None:
        """Edges for "why are these two tied": every axis on one side with every axis on the other."""
        sides = [[leaf for leaf in leaves(dim) if isinstance(leaf, Axis)] for dim in _dims(fact)]
        for i, left in enumerate(sides):
            for right in sides[i + 1 :]:
                for a in left:
                    for b in right:
                        self.graph.add_edge((a.tensor, a.index), (b.tensor, b.index), node=op.name, op=op.type)

    def pin_interface(self, graph: gs.Graph) -> None:
        """Shapes of graph inputs and outputs are the model's contract."""
        for tensors, word in ((graph.inputs, "input"), (graph.outputs, "output")):
            for tensor in tensors:
                for i, size in enumerate(tensor.shape or ()):
                    v = self.variables.get((tensor.name, i))
                    if v is not None and size != 1:
                        self.unifier.pin(v, PinReason(f"it is the shape of graph {word} {tensor.name}"))

    def freeze(self, names: set[str]) -> None:
        """Keep what the user asked to keep: all axes of these tensors."""
        for (tensor, _), v in self.variables.items():
            if tensor in names:
                self.unifier.pin(v, PinReason("frozen by option"))

    def solved(self, graph: gs.Graph) -> Coupling:
        """Everything in terms of named leaves."""
        names = name_leaves(graph, self.variables, self.unifier)
        memo: dict[int, Dim] = {}
        axes = {
            key: self.unifier.resolve(names, memo, v) for key, v in self.variables.items() if self.unifier.size(v) != 1
        }
        follows = tuple(f for entry in self.follows if (f := self._follow(*entry, names, memo)) is not None)
        members = members_of(graph, axes)
        pins = {name: self.unifier.pinned(v) for v, name in names.items()}
        sizes = {name: self.unifier.size(v) for v, name in names.items()}
        groups = {
            name: Group(
                name, sizes[name], members.get(name, ()), _pin_text(sizes[name], pins[name], members.get(name, ()))
            )
            for name in {leaf.name for dim in axes.values() for leaf in leaves(dim)}
        }
        soft = self._renormalised(names)
        return Coupling(axes, dict(sorted(groups.items())), follows, self.graph, soft)

    def _renormalised(self, names: dict[int, str]) -> dict[str, str]:
        """Leaves that are free only because an approximate model is allowed, with the reason."""
        soft = ((leaf, why) for v, why in self.softened.items() for leaf in self.unifier.leaves(v))
        return {names[leaf]: why for leaf, why in soft if leaf in names and self.unifier.pinned(leaf) is None}

    def _follow(
        self, op: Op, fact: Count | Index | Mean, local: dict[str, int], names: dict[int, str], memo: dict[int, Dim]
    ) -> Follow | None:
        """A follow over solved dims; None where nothing in it can shrink."""
        if isinstance(fact, Mean):
            dims = tuple(dim for axis in fact.axes if (dim := self._movable(axis, local, names, memo)) is not None)
            if not dims:
                return None
            return (
                Follow(op.name, "", -1, "share", dims)
                if fact.scale is None
                else Follow(op.name, "", fact.scale, "root", dims)
            )
        entries = fact.entries if isinstance(fact, Count) else fact.axes
        literals = _literals(op, fact)
        solved = tuple(
            None
            if dim is None
            else self._movable(dim, local, names, memo, relative=n is not None and n >= 0 and n != dim.size)
            for dim, n in zip(entries, literals, strict=True)
        )
        index = -1 if isinstance(fact.place, Attribute) else fact.place.index
        movable = any(dim is not None for dim in solved)
        if isinstance(fact, Index):
            movable |= any(self._movable(axis, local, names, memo) is not None for axis in op.x(index).axes)
        if not movable:
            return None
        attribute = fact.place.name if isinstance(fact.place, Attribute) else ""
        return Follow(op.name, attribute, index, "count" if isinstance(fact, Count) else "index", solved)

    def _movable(
        self, entry: Dim, local: dict[str, int], names: dict[int, str], memo: dict[int, Dim], *, relative: bool = False
    ) -> Dim | None:
        """The solved dim, or None where it stays whole (and is not written relative to something that may not)."""
        v = self._build(entry, local)
        if not relative and all(self.unifier.pinned(leaf) for leaf in self.unifier.leaves(v)):
            return None
        return self._resolve_late(v, names, memo)

    def _resolve_late(self, v: int, names: dict[int, str], memo: dict[int, Dim]) -> Dim:
        """Dims of a follow may have leaves that no axis has (a group count of a depthwise convolution, say)."""
        for leaf in self.unifier.leaves(v):
            names.setdefault(leaf, f"local {leaf}")
        return self.unifier.resolve(names, memo, v)


def _literals(op: Op, fact: Count | Index) -> list[int] | list[None]:
    """What the place of a count says now, None for entries that are not known."""
    if isinstance(fact, Index):
        return [None] * len(fact.axes)
    if isinstance(fact.place, Attribute):
        return [int(v) for v in np.atleast_1d(op.attributes[fact.place.name])]
    return op.x(fact.place.index).ints() or [None] * len(fact.entries)


def _pin_text(size: int, why: PinReason | None, members: tuple[object, ...]) -> str | None:
    if why is not None:
        return str(why)
    if size == 1:
        return "it has one channel"
    return None if members else "no weight is made of it"
