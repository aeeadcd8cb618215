"""Operators that cut, join, fold and move axes."""

from __future__ import annotations

import math

from passes.rules.language import (
    Attribute,
    Axis,
    Count,
    Dim,
    Equal,
    Facts,
    Input,
    Leaf,
    Op,
    Operand,
    Pin,
    Place,
    Product,
    Sum,
    Zero,
    rule,
    same,
)


def fold(x: Operand, y: Operand) -> Facts:
    """Row-major refolding: Π of x's axes = Π of y's axes; zero if every axis of the run is."""
    if 0 in x.shape:
        return
    yield Equal(Product(x.axes), Product(y.axes))
    for left, right in runs(x.axes, y.axes):
        for axis in right:
            yield Zero(axis, left)


def runs(left: tuple[Axis, ...], right: tuple[Axis, ...]) -> list[tuple[tuple[Axis, ...], tuple[Axis, ...]]]:
    """Cut two foldings of the same entries at their common prefix products; unit axes do not count."""
    a = [axis for axis in left if axis.size != 1]
    b = [axis for axis in right if axis.size != 1]
    cut: list[tuple[tuple[Axis, ...], tuple[Axis, ...]]] = []
    i = j = 0
    for m in range(1, len(a) + 1):
        total = math.prod(axis.size for axis in a[i:m])
        n = next((n for n in range(j + 1, len(b) + 1) if math.prod(x.size for x in b[j:n]) == total), None)
        if n is not None:
            cut.append((tuple(a[i:m]), tuple(b[j:n])))
            i, j = m, n
    return cut


@rule("Reshape")
def reshape(op: Op) -> Facts:
    """Axes are refolded; the target's literal sizes follow.

    Source: https://onnx.ai/onnx/operators/onnx__Reshape.html
    """
    x, y = op.x(0), op.y()
    yield from fold(x, y)
    place: Place = Attribute("shape") if "shape" in op.attributes else Input(1)
    target = op.ints("shape", 1)
    if target is None:
        yield Count(place, y.axes)
    else:
        yield Count(place, tuple(None if _implied(t, x, y, i) else y.axis(i) for i, t in enumerate(target)))


def _implied(entry: int, x: Operand, y: Operand, i: int) -> bool:
    """Whether an entry of a Reshape's target counts by itself: -1, or 0 where that copies the very same axis."""
    return entry == -1 or (entry == 0 and math.prod(x.shape[:i]) == math.prod(y.shape[:i]))


@rule("Flatten")
def flatten(op: Op) -> Facts:
    """Axes before `axis` fold into one, the others into a second.

    Source: https://onnx.ai/onnx/operators/onnx__Flatten.html
    """
    x, y = op.x(0), op.y()
    at = int(op.attr("axis", 1))
    at = at + x.rank if at < 0 else at
    yield Equal(Product(x.axes[:at]), y.axis(0))
    yield Equal(Product(x.axes[at:]), y.axis(1))
    yield Zero(y.axis(0), x.axes[:at])
    yield Zero(y.axis(1), x.axes[at:])


@rule("Squeeze", "Unsqueeze")
def squeeze(op: Op) -> Facts:
    """Unit axes go or come; the others keep their order."""
    yield from fold(op.x(0), op.y())


@rule("Transpose")
def transpose(op: Op) -> Facts:
    """y.i = x.perm[i].

    Source: https://onnx.ai/onnx/operators/onnx__Transpose.html
    """
    x, y = op.x(0), op.y()
    perm = op.attr("perm") or list(range(x.rank))[::-1]
    for axis, source in zip(y.axes, perm, strict=True):
        yield Equal(axis, x.axis(int(source)))
        yield Zero(axis, (x.axis(int(source)),))


@rule("Expand")
def expand(op: Op) -> Facts:
    """Broadcast to a shape: equal where the operand runs along, free where it is repeated. The shape follows.

    Source: https://onnx.ai/onnx/operators/onnx__Expand.html
    """
    x, y, target = op.x(0), op.y(), op.x(1)
    for back, axis in enumerate(reversed(y.axes), start=1):
        if x.rank >= back and x.shape[-back] == axis.size:
            yield Equal(x.axis(-back), axis)
            yield Zero(axis, (x.axis(-back),))
        elif op.varies(1, target.shape[0] - back):
            yield Pin(axis, "its size is computed from dynamic axes")
        else:
            yield Equal(axis, axis)
    length = target.shape[0]
    sizes = target.ints() or list(y.shape[y.rank - length :])
    yield Count(Input(1), tuple(None if n == 1 else a for n, a in zip(sizes, y.axes[y.rank - length :], strict=True)))


@rule("Tile")
def tile(op: Op) -> Facts:
    """y.i = repeats · x.i; a single entry may be repeated less often, whole axes not.

    Source: https://onnx.ai/onnx/operators/onnx__Tile.html
    """
    x, y = op.x(0), op.y()
    if 0 in x.shape:
        return
    counts: list[Dim | None] = []
    for a, b in zip(x.axes, y.axes, strict=True):
        repeats = Leaf(f"repeats {a.index}", b.size // a.size)
        yield Equal(b, Product((repeats, a)))
        if a.size > 1 or op.varies(1, a.index):
            yield Pin(repeats, "it is repeated")
            yield Zero(b, (a,))
        counts.append(None if b.size == a.size else repeats)
    if op.opset >= 6:
        yield Count(Input(1), tuple(counts))


@rule("ConstantOfShape")
def constant_of_shape(op: Op) -> Facts:
    """As many entries as are needed; the shape follows.

    Source: https://onnx.ai/onnx/operators/onnx__ConstantOfShape.html
    """
    for axis in op.y().axes:
        yield Pin(axis, "its size is computed from dynamic axes") if op.varies(0, axis.index) else Equal(axis, axis)
    yield Count(Input(0), op.y().axes)


@rule("Trilu")
def trilu(op: Op) -> Facts:
    """Rows and columns stay, since their numbers are compared; the axes before them pass.

    Source: https://onnx.ai/onnx/operators/onnx__Trilu.html
    """
    yield from same(op.x(), op.y())
    for axis in op.x().axes[-2:]:
        yield Pin(axis, "a triangle is cut out of it")


@rule("Concat")
def concat(op: Op) -> Facts:
    """The axis is the sum of the inputs' axes; the others are equal.

    Source: https://onnx.ai/onnx/operators/onnx__Concat.html
    """
    y = op.y()
    axis = int(op.attr("axis", 1)) % y.rank
    inputs = [x for x in op.inputs if x is not None]
    yield Equal(y.axis(axis), Sum(tuple(x.axis(axis) for x in inputs)))
    yield Zero(y.axis(axis), tuple(x.axis(axis) for x in inputs))
    for i in range(y.rank):
        if i != axis:
            for x in inputs:
                yield Equal(x.axis(i), y.axis(i))
            yield Zero(y.axis(i), tuple(x.axis(i) for x in inputs))


@rule("Split")
def split(op: Op) -> Facts:
    """The axis is the sum of the outputs' axes; sizes follow (equal parts without sizes must stay equal).

    Source: https://onnx.ai/onnx/operators/onnx__Split.html
    """
    x = op.x(0)
    axis = int(op.attr("axis", 0)) % x.rank
    outputs = [y for y in op.outputs if y is not None]
    parts = tuple(y.axis(axis) for y in outputs)
    yield Equal(x.axis(axis), Sum(parts))
    for y in outputs:
        yield from same(x, y, skip=(axis,))
        yield Zero(y.axis(axis), (x.axis(axis),))
    if "split" in op.attributes or op.maybe(1) is not None:
        yield Count(Attribute("split") if "split" in op.attributes else Input(1), parts)
    elif len({part.size for part in parts}) == 1:
        for part in parts[1:]:
            yield Equal(parts[0], part)
    else:
        yield Pin(x.axis(axis), "it is split into unequal parts whose sizes are implied")


@rule("Slice")
def slice_(op: Op) -> Facts:
    """x.a = before + y.a + after with a step of 1; starts and ends follow. Other steps keep the axis whole.

    A bound below zero counts what is behind it.

    Source: https://onnx.ai/onnx/operators/onnx__Slice.html
    """
    x, y = op.x(0), op.y()
    starts, ends = op.ints("starts", 1), op.ints("ends", 2)
    if starts is None or ends is None:
        yield from _opaque_slice(op, x, y)
        return
    axes = op.ints("axes", 3) or list(range(len(starts)))
    steps = op.ints("steps", 4) or [1] * len(starts)
    sliced = [a % x.rank for a in axes]
    yield from same(x, y, skip=sliced)
    begin: list[Dim | None] = []
    finish: list[Dim | None] = []
    for k, (i, start, end, step) in enumerate(zip(sliced, starts, ends, steps, strict=True)):
        size = x.shape[i]
        lo, hi = (min(max(v + size if v < 0 else v, 0), size) for v in (start, end))
        known = not any(_moves(op, bound, k) for bound in (1, 2))
        if step > 1 and start >= 0 and known and size % step == 0 and y.shape[i] == size // step:
            yield from _strided(x.axis(i), y.axis(i), step)
            begin.append(None)
            finish.append(None)
        elif step == 1 and hi - lo == y.shape[i] and hi > lo and known:
            before, after = Leaf(f"before {i}", lo), Leaf(f"after {i}", size - hi)
            yield Equal(x.axis(i), Sum((before, y.axis(i), after)))
            yield Zero(y.axis(i), (x.axis(i),))
            begin.append(before if start >= 0 else Sum((y.axis(i), after)))
            finish.append(None if end >= size else Sum((before, y.axis(i))) if end >= 0 else after)
        else:
            for axis in (x.axis(i), y.axis(i)):
                yield Pin(axis, "it is sliced with a step" if known else "it is sliced at bounds that are computed")
            begin.append(None)
            finish.append(None)
    yield Count(Attribute("starts") if "starts" in op.attributes else Input(1), tuple(begin))
    yield Count(Attribute("ends") if "ends" in op.attributes else Input(2), tuple(finish))


def _moves(op: Op, operand: int, entry: int) -> bool:
    """Whether a bound is computed such that it cannot be rewritten: it varies, or counts from the end."""
    bounds = op.maybe(operand)
    return bounds is not None and bounds.computed and (op.varies(operand, entry) or (bounds.ints() or [0])[entry] < 0)


def _strided(x: Axis, y: Axis, step: int) -> Facts:
    """Every step-th of x: x = y · step."""
    phases = Leaf(f"phases {x.index}", step)
    yield Equal(x, Product((y, phases)))
    yield Pin(phases, "it is sliced with a step")
    yield Zero(y, (x,))


def _opaque_slice(op: Op, x: Operand, y: Operand) -> Facts:
    """Bounds are not known: axes that keep their size pass through only where they are not sliced at all."""
    axes = op.ints("axes", 3)
    yield from same(x, y, skip=range(x.rank) if axes is None else [a % x.rank for a in axes])


def _scalar(x: Operand) -> float:
    return float("nan") if x.value is None else float(x.value.reshape(-1)[0])


@rule("Pad")
def pad(op: Op) -> Facts:
    """y.a = before + x.a + after; constant zeros in front of or behind channels may go like any others.

    Source: https://onnx.ai/onnx/operators/onnx__Pad.html
    """
    x, y = op.x(0), op.y()
    pads = op.ints("pads", 1)
    if pads is None:
        return
    axes = op.ints("axes", 3) or list(range(x.rank))
    axes = [a % x.rank for a in axes]
    value = op.maybe(2)
    fill = op.attr("value", 0.0) if value is None else _scalar(value)
    constant = op.attr("mode", "constant") == "constant"
    zero = constant and fill == 0
    untouched = [
        i for i in range(x.rank) if i not in axes or pads[axes.index(i)] == pads[axes.index(i) + len(axes)] == 0
    ]
    yield from same(x, y, skip=[i for i in range(x.rank) if i not in untouched], zero=zero or not constant)
    counts: list[Dim | None] = [None] * (2 * len(axes))
    for k, i in enumerate(axes):
        if i in untouched:
            continue
        if not constant or min(pads[k], pads[k + len(axes)]) < 0 or op.varies(1, k) or op.varies(1, k + len(axes)):
            yield Pin(x.axis(i), "it is padded")
            yield Pin(y.axis(i), "it is padded")
            continue
        before, after = Leaf(f"before {i}", pads[k]), Leaf(f"after {i}", pads[k + len(axes)])
        if not zero:
            yield Pin(before, "it pads with a number")
            yield Pin(after, "it pads with a number")
        yield Equal(y.axis(i), Sum((before, x.axis(i), after)))
        yield Zero(y.axis(i), (x.axis(i),))
        counts[k], counts[k + len(axes)] = before, after
    yield Count(Attribute("pads") if "pads" in op.attributes else Input(1), tuple(counts))
