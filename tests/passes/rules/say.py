"""Solved dims in the notation of the rows."""

from __future__ import annotations

from halpc.ir.dims import Dim, Leaf, Product, Sum, leaves
from halpc.ir.groups import Coupling


def say(coupling: Coupling, inputs: list[tuple[str, int]], outputs: list[tuple[str, int]]) -> str:
    """Axes of the named tensors (with their ranks) on both sides of an arrow, letters in order of appearance."""
    letters: dict[str, str] = {}
    sides = [
        " ".join(",".join(_axis(coupling, name, i, letters) for i in range(rank)) or "." for name, rank in side)
        for side in (inputs, outputs)
    ]
    return " -> ".join(sides)


def _axis(coupling: Coupling, tensor: str, axis: int, letters: dict[str, str]) -> str:
    dim = coupling.axes.get((tensor, axis))
    return "1" if dim is None else _spell(dim, coupling, letters)


def _spell(dim: Dim, coupling: Coupling, letters: dict[str, str]) -> str:
    if not any(_free(leaf, coupling) for leaf in leaves(dim)):
        return "!"
    match dim:
        case Leaf(name):
            return letters.setdefault(name, chr(ord("a") + len(letters)))
        case Sum(parts):
            return "+".join(_spell(part, coupling, letters) for part in parts)
        case Product(factors):
            return "·".join(
                f"({_spell(f, coupling, letters)})" if isinstance(f, Sum) else _spell(f, coupling, letters)
                for f in factors
            )


def _free(leaf: Leaf, coupling: Coupling) -> bool:
    return leaf.size > 1 and coupling.groups[leaf.name].pin in (None, "no weight is made of it")
