"""What a rule may say about one node.

A rule is a pure function `rule(op) -> iterator of facts`. It sees the operator, its attributes, the static
shapes of its operands and small integer constants (shapes, axes, pads); never weights or the rest of the
graph. Facts:

    Equal(a, b)            two axis expressions are the same axis
    Pin(a, reason)         this axis may not shrink
    Zero(y, (x, …))        what is removed from y is exactly zero if it is in all (or, with `any`, one) of x
    Contract(axes, reason) these axes are equal and summed away; that is exact only if what is removed is
                           zero in at least one of them
    Count(place, entries)  this attribute or integer operand counts axes and must follow them
    Index(place, axes)     this integer operand holds positions on `axes` and must follow them
    Mean(axes, reason)     y is a mean over these axes: exact if what is removed is zero and y is still divided by
                           the old count; with `scale` y is x over the root of a mean square
    Renormalise(a, reason) the result depends on how many entries `a` has: pinned, unless the user allows
                           an approximate model

Silence pins: every axis (longer than 1) of every operand that no fact mentions is pinned by the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from halpc.ir.dims import Dim, Leaf, Product, Sum

__all__ = [
    "Attribute", "Axis", "Body", "Contract", "Count", "Dim", "Equal", "Fact", "Facts", "Index", "Input", "Leaf", "Mean",
    "Op", "Operand", "Pin", "Place", "Product", "Renormalise", "Sign", "Sum", "Zero", "rule", "rule_for", "same",
]  # fmt: skip


Sign: TypeAlias = Literal["unknown", "not negative", "positive"]


@dataclass(frozen=True, slots=True)
class Axis(Leaf):
    """Axis `index` of tensor `tensor`; equal to itself wherever it is written."""

    tensor: str = ""
    index: int = 0


@dataclass(frozen=True, slots=True)
class Operand:
    """An input or output of a node.

    Attributes:
        name: tensor name.
        shape: static sizes.
        dtype: numpy dtype name (`float32`, `int64`, …).
        constant: whether it is an initializer (a weight or a literal).
        value: its entries, for integer and boolean constants and for constants of a few entries; else None.
        computed: a constant of the twin that the model computes from its dynamic axes.
        varying: which of its entries (flat) vary with them.
        adding: which of these vary otherwise than by whole factors.
        sign: of all of its entries, whatever the weights.
        masked: a constant whose removed slices are zero in the masked original.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    constant: bool = False
    value: NDArray[Any] | None = None
    computed: bool = False
    varying: frozenset[int] = frozenset()
    adding: frozenset[int] = frozenset()
    sign: Sign = "unknown"
    masked: bool = True

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """All axes, outermost first."""
        return tuple(Axis(f"{self.name}:{i}", n, self.name, i) for i, n in enumerate(self.shape))

    def axis(self, index: int) -> Axis:
        """One axis; negative indices count from the last."""
        i = range(len(self.shape))[index]
        return Axis(f"{self.name}:{i}", self.shape[i], self.name, i)

    def ints(self) -> list[int] | None:
        """A constant's entries as a flat list of integers, or None where it is not constant."""
        return None if self.value is None else [int(v) for v in np.asarray(self.value).reshape(-1)]


@dataclass(frozen=True, slots=True)
class Body:
    """What the body of a loop takes and gives, in order."""

    inputs: tuple[Operand | None, ...]
    outputs: tuple[Operand | None, ...]


@dataclass(frozen=True, slots=True)
class Op:
    """One node as a rule sees it; absent optional operands are None.

    `body`: what the body of a loop takes and gives, where halpc sees through it; `inside`: the node is in one.
    """

    name: str
    type: str
    domain: str
    opset: int
    inputs: tuple[Operand | None, ...]
    outputs: tuple[Operand | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    body: Body | None = None
    inside: bool = False

    def x(self, index: int = 0) -> Operand:
        """Input `index`, which must be there."""
        operand = self.inputs[index]
        assert operand is not None, f"{self.type} without input {index}"
        return operand

    def maybe(self, index: int) -> Operand | None:
        """Input `index`, or None where it is absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def y(self, index: int = 0) -> Operand:
        """Output `index`, which must be there."""
        operand = self.outputs[index]
        assert operand is not None, f"{self.type} without output {index}"
        return operand

    def attr(self, name: str, default: Any = None) -> Any:
        """Attribute `name`, or `default`."""
        return self.attributes.get(name, default)

    def varies(self, index: int, entry: int) -> bool:
        """Whether an entry of integer operand `index` depends on a dynamic axis of the model."""
        operand = self.maybe(index)
        return operand is not None and entry in operand.varying

    def ints(self, name: str, index: int) -> list[int] | None:
        """Integers that older opsets keep in attribute `name` and newer ones in input `index`; None if unknown."""
        if name in self.attributes:
            return [int(v) for v in np.atleast_1d(self.attributes[name])]
        operand = self.maybe(index)
        return None if operand is None else operand.ints()


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of the node, as the place of a count."""

    name: str


@dataclass(frozen=True, slots=True)
class Input:
    """An integer operand of the node, as the place of a count."""

    index: int


Place: TypeAlias = Attribute | Input


@dataclass(frozen=True, slots=True)
class Equal:
    """`a` and `b` are the same axis."""

    a: Dim
    b: Dim


@dataclass(frozen=True, slots=True)
class Pin:
    """`a` may not shrink; `reason` completes "… stays whole: "."""

    a: Dim
    reason: str


@dataclass(frozen=True, slots=True)
class Renormalise:
    """The result depends on how many entries `a` has: pinned unless an approximate model is allowed."""

    a: Dim
    reason: str


@dataclass(frozen=True, slots=True)
class Zero:
    """What is removed from axis `y` is exactly zero if that holds for all (or any) of `sources`."""

    y: Axis
    sources: tuple[Axis, ...]
    any: bool = False


@dataclass(frozen=True, slots=True)
class Contract:
    """`axes` are equal and summed away; something removed must be zero in at least one of them."""

    axes: tuple[Axis, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Count:
    """`place` holds integers that count axes: its entry i becomes the width of `entries[i]` (None: left alone).

    An entry below zero counts from the end, and becomes minus that width.
    """

    place: Place
    entries: tuple[Dim | None, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """The integer operand `place` holds positions on an axis: they are renumbered to what is kept of it.

    With several axes the operand's last axis holds one coordinate for each. Where the operand is a constant its
    own axes may shrink: entries that they lose disappear, the others must point to kept positions.
    """

    place: Input
    axes: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Mean:
    """Output 0 is a mean over `axes`: slim multiplies it by the share that is kept.

    Where operand `scale` is given, output 0 is x / √(mean of x² + epsilon) · scale: slim divides epsilon by the share,
    and the scale by its root.
    """

    axes: tuple[Axis, ...]
    reason: str
    scale: int | None = None


Fact: TypeAlias = Equal | Pin | Renormalise | Zero | Contract | Count | Index | Mean
Facts: TypeAlias = Iterator[Fact]
Rule: TypeAlias = Callable[[Op], Facts]

_RULES: dict[tuple[str, str], Rule] = {}


def rule(*types: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register a rule for operator types of a domain. A second rule for an operator is an error at import."""

    def register(function: Rule) -> Rule:
        for type_ in types:
            if (domain, type_) in _RULES:
                raise ValueError(f"two rules for operator {domain or 'ai.onnx'}::{type_}")
            _RULES[domain, type_] = function
        return function

    return register


def rule_for(domain: str, type_: str) -> Rule | None:
    """The rule of an operator, or None: then the engine pins all that it touches."""
    return _RULES.get(("" if domain == "ai.onnx" else domain, type_))


def rules() -> Mapping[tuple[str, str], Rule]:
    """All registered rules by (domain, operator type), for the test that walks the registry."""
    return dict(_RULES)


def same(x: Operand, y: Operand, *, skip: Sequence[int] = (), zero: bool = True) -> Facts:
    """Axis by axis `x` and `y` are equal, except those in `skip`; what is removed is zero in y if it is in x."""
    skipped = {i % max(x.rank, 1) for i in skip}
    for a, b in zip(x.axes, y.axes, strict=True):
        if a.index not in skipped:
            yield Equal(a, b)
            if zero:
                yield Zero(b, (a,))
