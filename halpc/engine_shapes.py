"""Shapes that an engine with dynamic axes must take: at least, to optimise for, at most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from halpc.errors import UsageError
from halpc.ir.model import Model
from profilers.trt_engine import Profile

Shapes = Mapping[str, tuple[int, ...]]
WHICH: Final = ("min", "opt", "max")


def engine_shapes(model: Model, given: Mapping[str, Shapes]) -> dict[str, Profile]:
    """A profile per input with dynamic axes; what is not given is the shape that the analysis used.

    Args:
        model: as loaded.
        given: `min`, `opt` and `max`, each input name → shape.

    Raises:
        UsageError: an input that the model lacks, fixed axes unlike the model's, or sizes that fall from min to max.
    """
    for which, shapes in given.items():
        for name, shape in shapes.items():
            _check(model, f"--{which}-shapes {name}:{'x'.join(map(str, shape))}", name, shape)
    profiles = {}
    for name, shape in model.shapes.items():
        if not model.dynamic.get(name):
            continue
        sizes = [given.get(which, {}).get(name, shape) for which in WHICH]
        if any(not (low <= best <= high) for low, best, high in zip(*sizes, strict=True)):
            spelled = ", ".join(f"{which} {'x'.join(map(str, size))}" for which, size in zip(WHICH, sizes, strict=True))
            raise UsageError(f"shapes of input '{name}' must not fall from min to opt to max: {spelled}")
        profiles[name] = Profile(*sizes)
    return profiles


def _check(model: Model, said: str, name: str, shape: tuple[int, ...]) -> None:
    if name not in model.shapes:
        raise UsageError(f"{said}: the model has no input '{name}', only {', '.join(model.shapes)}")
    known, free = model.shapes[name], model.dynamic.get(name, ())
    if len(shape) != len(known) or any(
        a != b for i, (a, b) in enumerate(zip(shape, known, strict=True)) if i not in free
    ):
        fixed = "x".join("?" if i in free else str(size) for i, size in enumerate(known))
        raise UsageError(f"{said}: input '{name}' takes {fixed}, ? being free")
