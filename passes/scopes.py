"""Layers by the paths that Keras gives them, found in the scopes that TensorFlow leaves in names.

A converter names nodes and weights by scopes: the model's, its layers', the operation. TensorFlow numbers a scope
that it opens again, and tracing a Keras model opens each twice:

    conv1/kernel               functional_1/conv1_1/convolution/ReadVariableOp:0
    attention/query/kernel     functional_1/attention_1/query_1/Reshape:0

Whether the numbers at the ends are TensorFlow's or the layers' own is not to be seen in one name (`dense_1` is Keras'
second layer, or its first one traced). So all keys of a file are read in one way or in the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from halpc.errors import SaliencyError

VARIABLES = ("kernel", "embeddings", "gamma", "depthwise_kernel", "pointwise_kernel")


@dataclass(frozen=True, slots=True)
class Scoped:
    """A weight as names tell it.

    Attributes:
        weight: its own name; layers that share it are one.
        names: of the weight and of the node that reads it.
        channels: how many it puts out.
    """

    weight: str
    names: Sequence[str]
    channels: int


def scoped(keys: Mapping[str, int], table: Sequence[Scoped]) -> dict[str, int]:
    """Which entry of `table` each key names; empty where some name none, or one of another length.

    Args:
        keys: Keras' paths, and how many channels each has.

    Raises:
        SaliencyError: the keys name layers with and without the numbers, but not the same ones.
    """
    readings = [found for numbered in (False, True) if (found := _read(keys, table, numbered)) is not None]
    for key in keys:
        if len({table[found[key]].weight for found in readings}) > 1:
            either = " or ".join(repr(table[found[key]].weight) for found in readings)
            raise SaliencyError(f"{key!r} may be {either}: TensorFlow numbers its scopes; give one of these names")
    return readings[0] if readings else {}


def _read(keys: Mapping[str, int], table: Sequence[Scoped], numbered: bool) -> dict[str, int] | None:
    places = _places(table, numbered)
    found = {key: place for key in keys if (place := places.get(_path(key))) is not None}
    fits = len(found) == len(keys) and all(table[found[key]].channels == n for key, n in keys.items())
    return found if fits else None


def _places(table: Sequence[Scoped], numbered: bool) -> dict[str, int]:
    """Scope → the weight in it, where there is one only."""
    inside: dict[str, dict[str, int]] = {}
    for i, each in enumerate(table):
        for scope in {scope for name in each.names for scope in _scopes(name, numbered)}:
            inside.setdefault(scope, {}).setdefault(each.weight, i)
    return {scope: next(iter(found.values())) for scope, found in inside.items() if len(found) == 1}


def _scopes(name: str, numbered: bool) -> Iterator[str]:
    """Every scope that a name lies in, without the model's; TensorFlow Lite joins the names of what it fuses."""
    for piece in name.split(";"):
        parts = piece.partition(":")[0].split("/")
        if numbered:
            parts = [re.sub(r"_\d+$", "", part) for part in parts]
        yield from ("/".join(parts[1:end]) for end in range(2, len(parts) + 1))


def _path(key: str) -> str:
    """A layer's path from that of its variable."""
    layer, _, last = key.partition(":")[0].rpartition("/")
    return layer if last in VARIABLES else key
