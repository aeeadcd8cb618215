"""Operators that pick or place entries by position: the positions' axis stays, or is cut where it is known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from passes.rules.language import (
    Axis,
    Dim,
    Equal,
    Facts,
    Index,
    Input,
    Leaf,
    Op,
    Operand,
    Pin,
    Product,
    Sum,
    Zero,
    rule,
    same,
)

POSITIONS = "its entries are looked up by position"
PIECES = 256  # an index list that falls into more runs than this is not worth an expression


@rule("Gather")
def gather(op: Op) -> Facts:
    """y = data with the positions' axes in place of `axis`. Constant positions cut the axis, others pin it.

    Source: https://onnx.ai/onnx/operators/onnx__Gather.html
    """
    x, indices, y = op.x(0), op.x(1), op.y()
    at = int(op.attr("axis", 0)) % x.rank
    for i, source in enumerate(x.axes):
        if i != at:
            target = y.axis(i if i < at else i - 1 + indices.rank)
            yield Equal(source, target)
            yield Zero(target, (source,))
    for i, place in enumerate(indices.axes):
        yield Equal(place, y.axis(at + i))
    source, entries = x.axis(at), None if indices.computed else indices.ints()
    if entries is None or indices.rank > 1 or not entries:
        yield Pin(source, POSITIONS)
        return
    positions = [e + source.size if e < 0 else e for e in entries]
    if not all(0 <= position < source.size for position in positions):
        yield Pin(source, "it is read beyond its end")
    elif indices.rank == 0:
        yield Equal(source, _around(positions[0], Leaf("picked", 1), source.size))
        yield Index(Input(1), (source,))
    elif (picked := picture(positions, source.size)) is None:
        yield Pin(source, POSITIONS)
        yield Index(Input(1), (source,))
    else:
        yield Equal(source, picked[0])
        yield Equal(y.axis(at), picked[1])
        if len(set(positions)) == len(positions):
            yield Zero(y.axis(at), (source,))
        yield Index(Input(1), (source,))


def _around(before: int, middle: Dim, size: int) -> Dim:
    after = size - before - middle.size
    return Sum((Leaf("before", before), middle, Leaf("after", after)))


def picture(positions: list[int], size: int) -> tuple[Dim, Dim] | None:
    """An axis of `size` entries, and what is picked from it, as expressions over the same leaves.

    A transposed fold (channel shuffle) and repetitions are products; anything else is a sum of runs:

        [0 2 4 1 3 5]   3·2 and 2·3
        [1 1 2 2]       1 + a + rest and a·2
        [4 5 0 1]       a + gap + b and b + a

    None where the runs are too short to leave any freedom.
    """
    return _transposed(positions, size) or _repeated(positions, size) or _runs(positions, size)


def _repeated(positions: list[int], size: int) -> tuple[Dim, Dim] | None:
    picked = np.arange(min(positions), max(positions) + 1)
    times, rest = divmod(len(positions), len(picked))
    if rest or times < 2:
        return None
    middle, repeats = Leaf("picked", len(picked)), Leaf("repeats", times)
    if np.array_equal(np.repeat(picked, times), positions):
        return _around(int(picked[0]), middle, size), Product((middle, repeats))
    if np.array_equal(np.tile(picked, times), positions):
        return _around(int(picked[0]), middle, size), Product((repeats, middle))
    return None


def _transposed(positions: list[int], size: int) -> tuple[Dim, Dim] | None:
    step = positions[1] - positions[0] if len(positions) > 1 else 0
    if len(positions) != size or step < 2 or size % step:
        return None
    outer, inner = Leaf("outer", size // step), Leaf("inner", step)
    if not np.array_equal(np.arange(size).reshape(outer.size, step).T.reshape(-1), positions):
        return None
    return Product((outer, inner)), Product((inner, outer))


def _runs(positions: list[int], size: int) -> tuple[Dim, Dim] | None:
    ends = {0, size, positions[0], positions[-1] + 1}
    for a, b in pairwise(positions):
        if b != a + 1:
            ends |= {a + 1, b}
    borders = sorted(ends)
    if len(borders) > PIECES or len(borders) > size // 2 + 2:
        return None
    pieces = {start: Leaf(f"piece {start}", end - start) for start, end in pairwise(borders)}
    return Sum(tuple(pieces.values())), Sum(tuple(pieces[p] for p in positions if p in pieces))


@rule("GatherElements")
def gather_elements(op: Op) -> Facts:
    """y[i][j] = data[index[i][j]][j]: `axis` is looked up, the others run along.

    Source: https://onnx.ai/onnx/operators/onnx__GatherElements.html
    """
    x, indices, y = op.x(0), op.x(1), op.y()
    at = int(op.attr("axis", 0)) % x.rank
    yield Pin(x.axis(at), POSITIONS)
    for i, (a, b) in enumerate(zip(indices.axes, y.axes, strict=True)):
        yield Equal(a, b)
        if i != at and x.shape[i] == a.size:
            yield Equal(x.axis(i), b)
            yield Zero(b, (x.axis(i),))


@rule("GatherND")
def gather_nd(op: Op) -> Facts:
    """y = rows of data at the coordinates in the last axis of the indices; what is behind a row passes.

    Source: https://onnx.ai/onnx/operators/onnx__GatherND.html
    """
    x, indices, y = op.x(0), op.x(1), op.y()
    batch, depth = int(op.attr("batch_dims", 0)), indices.shape[-1]
    for place, target in zip(indices.axes[:-1], y.axes[: indices.rank - 1], strict=True):
        yield Equal(place, target)
    for source, target in zip(x.axes[:batch], y.axes[:batch], strict=True):
        yield Equal(source, target)
    for axis in (*x.axes[batch : batch + depth], indices.axis(-1)):
        yield Pin(axis, POSITIONS)
    yield from _behind(x.axes[batch + depth :], y.axes[indices.rank - 1 :])


def _behind(sources: tuple[Axis, ...], targets: tuple[Axis, ...]) -> Facts:
    for source, target in zip(sources, targets, strict=True):
        yield Equal(source, target)
        yield Zero(target, (source,))


@rule("ScatterElements", "Scatter")
def scatter_elements(op: Op) -> Facts:
    """y = data with updates at positions on `axis`; the other axes run along where they are as long.

    Source: https://onnx.ai/onnx/operators/onnx__ScatterElements.html
    """
    x, indices, updates, y = op.x(0), op.x(1), op.x(2), op.y()
    at = int(op.attr("axis", 0)) % x.rank
    for i in range(x.rank):
        yield Equal(x.axis(i), y.axis(i))
        yield Equal(indices.axis(i), updates.axis(i))
        if i == at or indices.shape[i] != x.shape[i]:
            yield Pin(x.axis(i), POSITIONS)
            yield Pin(indices.axis(i), POSITIONS)
        else:
            yield Equal(x.axis(i), indices.axis(i))
            yield Zero(y.axis(i), (x.axis(i), updates.axis(i)))


@rule("ScatterND")
def scatter_nd(op: Op) -> Facts:
    """y = data with rows replaced at constant or computed coordinates; what is behind a row passes.

    Coordinates that spell a box (`y[:, a:b] = updates`) cut the axes: y.i = before + updates.i + after.
    Source: https://onnx.ai/onnx/operators/onnx__ScatterND.html
    """
    x, indices, updates, y = op.x(0), op.x(1), op.x(2), op.y()
    depth = indices.shape[-1]
    yield from same(x, y, zero=False)
    for source, row in zip(x.axes[depth:], updates.axes[indices.rank - 1 :], strict=True):
        yield Equal(source, row)
        yield Zero(y.axis(source.index), (source, row))
    yield Pin(indices.axis(-1), POSITIONS)
    for place, row in zip(indices.axes[:-1], updates.axes[: indices.rank - 1], strict=True):
        yield Equal(place, row)
    box = _box(indices, x.shape[:depth])
    if box is None:
        for axis in (*x.axes[:depth], *indices.axes):
            yield Pin(axis, POSITIONS)
        return
    for source, row, start in zip(x.axes, updates.axes[:depth], box, strict=False):
        before, after = Leaf(f"before {row.index}", start), Leaf(f"after {row.index}", source.size - start - row.size)
        yield Equal(source, Sum((before, row, after)))
        yield Zero(y.axis(source.index), (source, row))
    yield Index(Input(1), x.axes[:depth])


def _box(indices: Operand, sizes: tuple[int, ...]) -> list[int] | None:
    """Where the box starts that constant coordinates fill, row-major; None if they do not."""
    if indices.value is None or indices.computed or indices.rank != len(sizes) + 1 or 0 in indices.shape:
        return None
    table = np.asarray(indices.value).reshape(-1, len(sizes))
    table = np.where(table < 0, table + np.array(sizes), table)
    box = np.stack(np.unravel_index(np.arange(len(table)), indices.shape[:-1]), axis=-1) + table[0]
    return [int(v) for v in table[0]] if np.array_equal(box, table) else None


@rule("TensorScatter")
def tensor_scatter(op: Op) -> Facts:
    """A cache is overwritten along the sequence axis; the others are equal.

    Source: https://onnx.ai/onnx/operators/onnx__TensorScatter.html
    """
    x, updates, y = op.x(0), op.x(1), op.y()
    at = int(op.attr("axis", -2)) % x.rank
    for i in range(x.rank):
        yield Equal(x.axis(i), y.axis(i))
        if i == at:
            yield Pin(x.axis(i), POSITIONS)
            yield Pin(updates.axis(i), POSITIONS)
        else:
            yield Equal(x.axis(i), updates.axis(i))
            yield Zero(y.axis(i), (x.axis(i), updates.axis(i)))


@rule("Compress")
def compress(op: Op) -> Facts:
    """Positions on `axis` are chosen by a condition; the other axes pass. Without `axis` everything is flattened.

    Source: https://onnx.ai/onnx/operators/onnx__Compress.html
    """
    x, y = op.x(0), op.y()
    if "axis" not in op.attributes:
        return
    at = int(op.attr("axis")) % x.rank
    yield from same(x, y, skip=(at,))


@rule("TopK")
def top_k(op: Op) -> Facts:
    """The axis is ranked and stays; the others pass.

    Source: https://onnx.ai/onnx/operators/onnx__TopK.html
    """
    x = op.x(0)
    at = int(op.attr("axis", -1)) % x.rank
    for position, y in enumerate(op.outputs):
        if y is not None:
            yield from same(x, y, skip=(at,), zero=position == 0)
            yield Pin(x.axis(at), "its entries are ranked against each other")
            yield Pin(y.axis(at), "its entries are ranked against each other")
