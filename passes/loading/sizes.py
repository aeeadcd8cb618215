"""Sizes of dynamic axes: those given, those assumed, and others to tell what depends on them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import onnx_graphsurgeon as gs

from halpc.errors import ModelError, UsageError

log = logging.getLogger(__name__)

IMAGE, SEQUENCE, VOLUME = 224, 32, 64  # sizes assumed for dynamic axes that nobody gave a size
SMALLEST = 16  # assumed sizes are not halved below this
# What is added to a dynamic first axis, and to other dynamic axes. Networks take sizes of whole strides:
USUAL_STEPS = ((1, 32), (2, 64))
# but where they take any size, what they pad, round or crop shows only at others.
ODD_STEPS = ((3, 5), (4, 16), (6, 44))

Shapes = Mapping[str, tuple[int, ...]]


def static_shapes(
    graph: gs.Graph, given: dict[str, tuple[int, ...]], batch: int | None
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """A static shape per input, and which axes are dynamic in the model.

    Raises:
        ModelError: an input has no shape at all.
        UsageError: a shape or a batch that the model cannot take.
    """
    names = [t.name for t in graph.inputs]
    for name in given:
        if name not in names:
            raise UsageError(f"--shape {name}: the model has no such input; its inputs are {', '.join(names)}")
    symbols: dict[str, int] = {}
    static: dict[str, tuple[int, ...]] = {}
    dynamic: dict[str, tuple[int, ...]] = {}
    for tensor in graph.inputs:
        if tensor.shape is None:
            raise ModelError(
                f"input {tensor.name} has no shape; give --shape {tensor.name}:1x3x224x224 or export again"
            )
        free = tuple(i for i, n in enumerate(tensor.shape) if not isinstance(n, int) or n < 0)
        shape = _given(tensor, given[tensor.name]) if tensor.name in given else _assumed(tensor, free, batch, symbols)
        static[tensor.name], dynamic[tensor.name] = shape, free
    if batch is not None and all(shape[:1] != (batch,) for shape in static.values()):
        fixed = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in static.items())
        raise UsageError(f"--batch {batch}: no input has a dynamic first axis ({fixed}); export it with one")
    return static, dynamic


def _given(tensor: gs.Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    fits = len(shape) == len(tensor.shape) and all(
        not isinstance(n, int) or n < 0 or n == m for n, m in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        taken = "x".join("?" if not isinstance(n, int) or n < 0 else str(n) for n in tensor.shape)
        raise UsageError(
            f"--shape {tensor.name}:{'x'.join(map(str, shape))}: the model's input is {taken}, ? being free"
        )
    return shape


def _assumed(tensor: gs.Tensor, free: tuple[int, ...], batch: int | None, symbols: dict[str, int]) -> tuple[int, ...]:
    """Sizes for dynamic axes: the batch as given, image and sequence sizes by the input's rank."""
    shape: list[int] = []
    for i, n in enumerate(tensor.shape):
        if i not in free:
            shape.append(int(n))
            continue
        usual = (batch or 1) if i == 0 else {4: IMAGE, 5: VOLUME}.get(len(tensor.shape), SEQUENCE)
        shape.append(symbols.setdefault(n, usual) if isinstance(n, str) and n else usual)
    return tuple(shape)


def tell(static: Shapes, dynamic: Shapes, given: Shapes) -> None:
    """Say which sizes were assumed."""
    for name, shape in static.items():
        if name not in given and any(i > 0 for i in dynamic[name]):
            text = "x".join(map(str, shape))
            log.warning("input %s has dynamic axes: analysed at %s (--shape %s:… chooses another)", name, text, name)


def halved(static: Shapes, dynamic: Shapes, given: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes with assumed sizes halved; empty where nothing was assumed, or too little is left."""
    smaller = {
        name: tuple(
            n // 2 if name not in given and i > 0 and i in dynamic[name] and n >= 2 * SMALLEST else n
            for i, n in enumerate(shape)
        )
        for name, shape in static.items()
    }
    return {} if smaller == dict(static) else smaller


def doubled(static: Shapes, dynamic: Shapes, given: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes with assumed sizes doubled; batches stay."""
    return {
        name: tuple(2 * n if name not in given and i > 0 and i in dynamic[name] else n for i, n in enumerate(shape))
        for name, shape in static.items()
    }


def varied(graph: gs.Graph, static: Shapes, dynamic: Shapes, first: int, other: int) -> dict[str, tuple[int, ...]]:
    """The shapes with `first` added to a dynamic first axis and `other` to the other dynamic axes."""
    symbols: dict[object, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for tensor in graph.inputs:
        sizes = list(static[tensor.name])
        for i in dynamic[tensor.name]:
            key = tensor.shape[i] if isinstance(tensor.shape[i], str) else (tensor.name, i)
            sizes[i] = symbols.setdefault(key, sizes[i] + (first if i == 0 else other))
        shapes[tensor.name] = tuple(sizes)
    return shapes
