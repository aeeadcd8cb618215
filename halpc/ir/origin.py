"""Where a weight of the loaded model comes from, when load folded it out of weights of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import onnx
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Source:
    """An initializer (or the result of a `Constant` node) of the file.

    Attributes:
        name: as in the file.
        shape: its sizes.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """One output of a node that only moves entries: Transpose, Reshape, Concat, ….

    Attributes:
        node: as it was; None for one that leaves every entry in its place (Identity, Cast).
        output: its name.
        parents: what is moved, by operand name.
        others: its other operands (shapes, positions) by name.
    """

    node: onnx.NodeProto | None
    output: str
    parents: Mapping[str, Origin]
    others: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mixed:
    """Anything else: entries of the result are not entries of one of the sources.

    Attributes:
        why: completes "derived: ".
        parents: what it was made of.
    """

    why: str
    parents: tuple[Origin, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a constant is computed.

    Attributes:
        nodes: in order; one of the last one's outputs is the constant.
        sources: what they read, by name.
    """

    nodes: tuple[onnx.NodeProto, ...]
    sources: Mapping[str, NDArray[Any]]

    @property
    def size_bytes(self) -> int:
        """What it takes in a file."""
        text = sum(int(node.ByteSize()) for node in self.nodes)
        return text + sum(int(values.nbytes) for values in self.sources.values())


Origin: TypeAlias = Source | Moved | Mixed


def sources(origin: Origin) -> Iterator[Source]:
    """Every source under an origin."""
    return (each for each in _under(origin) if isinstance(each, Source))


def mixed(origin: Origin) -> Mixed | None:
    """The first thing under an origin that is not a pure move, or None."""
    return next((each for each in _under(origin) if isinstance(each, Mixed)), None)


def _under(origin: Origin) -> Iterator[Origin]:
    """An origin and all that it was made of, depth first; what is shared comes once, or a chain of x + x would take
    exponential time.
    """
    seen: set[int] = set()
    left: list[Origin] = [origin]
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        match each:
            case Moved():
                left.extend(reversed(tuple(each.parents.values())))
            case Mixed():
                left.extend(reversed(each.parents))
