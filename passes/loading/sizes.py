"""Sizes of dynamic axes: those given, those assumed, and others to tell what depends on them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import onnx_graphsurgeon as gs

from halpc.errors import ModelError, UsageError

log = logging.getLogger(__name__)

IMAGE, SEQUENCE, VOLUME = 224, 32, 64  # sizes assumed for dynamic axes that nobody gave a size
SMALLEST = 16  # assumed sizes are not halved below this
# What is added to a dynamic first axis, and to other dynamic axes. Networks take sizes of whole strides:
USUAL_STEPS = ((1, 32), (2, 64))
# but where they take any size, what they pad, round or crop shows only at others. A table that has as many rows as
# a size was assumed to be is cut at smaller sizes only: the last step.
ODD_STEPS = ((3, 5), (4, 16), (6, 44), (5, -3))

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
        if tensor.name in given and tensor.shape is not None:
            named = zip(tensor.shape, _given(tensor, given[tensor.name]), strict=True)
            symbols |= {n: size for n, size in named if isinstance(n, str) and n}
    for tensor in graph.inputs:
        if tensor.shape is None:
            raise ModelError(
                f"input {tensor.name} has no shape; give --shape {tensor.name}:1x3x224x224 or export again"
            )
        dynamic[tensor.name] = tuple(i for i in free_axes(tensor) if i not in read_widths(tensor))
    places = batch_axes(graph, dynamic)
    for tensor in graph.inputs:
        if dynamic[tensor.name][:1] == (0,) and isinstance(tensor.shape[0], str) and tensor.shape[0]:
            symbols.setdefault(tensor.shape[0], batch or 1)
    for tensor in graph.inputs:
        static[tensor.name] = (
            _given(tensor, given[tensor.name])
            if tensor.name in given
            else _assumed(tensor, dynamic[tensor.name], places[tensor.name], batch, symbols)
        )
    if batch is not None and all(shape[:1] != (batch,) for shape in static.values()):
        fixed = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in static.items())
        raise UsageError(f"--batch {batch}: no input has a dynamic first axis ({fixed}); export it with one")
    return static, dynamic


def free_axes(tensor: gs.Tensor) -> tuple[int, ...]:
    """Axes that the model leaves open."""
    return tuple(i for i, n in enumerate(tensor.shape) if not isinstance(n, int))


def read_widths(tensor: gs.Tensor) -> dict[int, int]:
    """Open axes of an input whose size the weight of a layer that reads it settles, each with that size."""
    found: dict[int, int] = {}
    for node in tensor.outputs:
        weight = node.inputs[1] if len(node.inputs) > 1 and node.inputs[0] is tensor else None
        if not isinstance(weight, gs.Constant) or len(weight.shape) < 2:
            continue
        if node.op in ("Conv", "FusedConv"):
            found[1] = int(weight.shape[1]) * int(node.attrs.get("group", 1))
        elif node.op == "MatMul":
            found[len(tensor.shape) - 1] = int(weight.shape[-2])
        elif node.op in ("Gemm", "FusedGemm") and not node.attrs.get("transA", 0):
            found[1] = int(weight.shape[1 if node.attrs.get("transB", 0) else 0])
    return {i: size for i, size in found.items() if i in free_axes(tensor)}


def batch_axes(graph: gs.Graph, dynamic: Shapes) -> dict[str, int]:
    """Where each input counts samples: its first axis.

    In a model that has an open first axis, an input whose first is fixed and whose only open one is the second of three
    is a recurrence's state, [layers, batch, width].
    """
    return sample_axes({t.name: [n if i not in dynamic[t.name] else n if isinstance(n, str) else None
                                 for i, n in enumerate(t.shape)] for t in graph.inputs})  # fmt: skip


def sample_axes(shapes: Mapping[str, Sequence[int | str | None]]) -> dict[str, int]:
    """The same of shapes by input, whose open axes are names or None."""
    dynamic = {name: tuple(i for i, n in enumerate(shape) if not isinstance(n, int)) for name, shape in shapes.items()}
    inner = {shapes[name][i] for name, open_ in dynamic.items() for i in open_ if i > 0 and open_ != (1,)}
    counted = {shapes[name][0] for name, open_ in dynamic.items() if open_[:1] == (0,)}
    return {
        name: int(
            bool(counted)
            and dynamic[name] == (1,)
            and len(shape) == 3
            and (not isinstance(shape[1], str) or shape[1] in counted or shape[1] not in inner)
        )
        for name, shape in shapes.items()
    }


def _given(tensor: gs.Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    fits = len(shape) == len(tensor.shape) and all(
        not isinstance(n, int) or n == m for n, m in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        taken = "x".join(str(n) if isinstance(n, int) else "?" for n in tensor.shape)
        raise UsageError(
            f"--shape {tensor.name}:{'x'.join(map(str, shape))}: the model's input is {taken}, ? being free"
        )
    return shape


def _assumed(
    tensor: gs.Tensor, free: tuple[int, ...], place: int, batch: int | None, symbols: dict[str, int]
) -> tuple[int, ...]:
    """Sizes for dynamic axes: the batch as given, image and sequence sizes by the input's rank."""
    shape: list[int] = []
    settled = read_widths(tensor)
    for i, n in enumerate(tensor.shape):
        if i not in free:
            shape.append(settled[i] if i in settled else int(n))
            continue
        usual = (batch or 1) if i == place else {4: IMAGE, 5: VOLUME}.get(len(tensor.shape), SEQUENCE)
        shape.append(symbols.setdefault(n, usual) if isinstance(n, str) and n else usual)
    return tuple(shape)


def tell(static: Shapes, dynamic: Shapes, given: Shapes) -> None:
    """Say which sizes were assumed."""
    for name, shape in static.items():
        if name not in given and any(i > 0 for i in dynamic[name]):
            text = "x".join(map(str, shape))
            log.warning("input %s has dynamic axes: analysed at %s (--shape %s:… chooses another)", name, text, name)


def open_axes(graph: gs.Graph, dynamic: Shapes, given: Shapes) -> dict[str, tuple[int, ...]]:
    """Axes whose assumed sizes may grow and shrink: no batches, and none that a given shape settles."""
    places = batch_axes(graph, dynamic)
    settled = {t.shape[i] for t in graph.inputs for i in dynamic[t.name] if i == places[t.name] or t.name in given}
    return {
        t.name: tuple(
            i
            for i in dynamic[t.name]
            if i not in (0, places[t.name])
            and t.name not in given
            and not (isinstance(t.shape[i], str) and t.shape[i] in settled)
        )
        for t in graph.inputs
    }


def halved(static: Shapes, axes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes with the sizes of open axes halved; empty where there is none, or too little is left."""
    smaller = {
        name: tuple(n // 2 if i in axes[name] and n >= 2 * SMALLEST else n for i, n in enumerate(shape))
        for name, shape in static.items()
    }
    return {} if smaller == dict(static) else smaller


def doubled(static: Shapes, axes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes with the sizes of open axes doubled."""
    return {name: tuple(2 * n if i in axes[name] else n for i, n in enumerate(shape)) for name, shape in static.items()}


def resized(static: Shapes, axes: Shapes, size: int) -> dict[str, tuple[int, ...]]:
    """The shapes with `size` at all open axes."""
    return {name: tuple(size if i in axes[name] else n for i, n in enumerate(shape)) for name, shape in static.items()}


def varied(graph: gs.Graph, static: Shapes, dynamic: Shapes, first: int, other: int) -> dict[str, tuple[int, ...]]:
    """The shapes with `first` added to a dynamic first axis and `other` to the other dynamic axes."""
    symbols: dict[object, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    places = batch_axes(graph, dynamic)
    for tensor in graph.inputs:
        sizes = list(static[tensor.name])
        for i in dynamic[tensor.name]:
            key = tensor.shape[i] if isinstance(tensor.shape[i], str) else (tensor.name, i)
            sizes[i] = symbols.setdefault(key, max(1, sizes[i] + (first if i == places[tensor.name] else other)))
        shapes[tensor.name] = tuple(sizes)
    return shapes
