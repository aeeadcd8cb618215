"""Attention as one operator: heads and dims within a head are axes of their own, however they are folded.

Q has Hq heads, K and V have Hkv, Hq = Hkv·r (r > 1: grouped queries). Q and K meet in the dims of a head,
which are summed away; Softmax runs along K's positions, which therefore stay. The scale is a number of the
model: `passes/loading/explicit.py` writes it down where an operator would derive it from the width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from passes.rules.language import (
    Attribute,
    Axis,
    Contract,
    Count,
    Dim,
    Equal,
    Fact,
    Facts,
    Leaf,
    Op,
    Operand,
    Pin,
    Product,
    Sum,
    Zero,
    rule,
)

SUMS = "attention sums over the dims of a head"
POSITIONS = "Softmax runs along the positions that are attended to"
SCALE = "attention without an explicit scale derives it from the width of a head"


@dataclass(frozen=True, slots=True)
class _Heads:
    """Factors of an attention's hidden axes: Hq = shared·repeats, Hkv = shared."""

    shared: Leaf
    repeats: Leaf

    @property
    def queries(self) -> Dim:
        """Query heads."""
        return Product((self.shared, self.repeats))


def _heads(queries: int, keys: int) -> _Heads:
    return _Heads(Leaf("key heads", keys), Leaf("queries per key head", queries // keys))


def _inner(op: Op, x: Operand, heads: int) -> Axis:
    """The dims within a head of operand `x`: its last axis, or what is left of its hidden axis."""
    if x.rank == 4:
        return x.axis(-1)
    return Axis(f"{op.name}/{x.name}", x.shape[-1] // heads, f"{x.name} within a head of {op.name}", 0)


def _folded(op: Op, x: Operand, heads: Dim, inner: Axis) -> Facts:
    """x is [batch, heads, length, inner] or [batch, length, heads·inner]."""
    if x.rank == 4:
        yield Equal(x.axis(1), heads)
        yield Equal(x.axis(3), inner)
    else:
        yield Equal(x.axis(-1), Product((heads, inner)))
        yield Zero(inner, (x.axis(-1),))


def _length(x: Operand) -> Axis:
    return x.axis(-2)


def _core(
    op: Op, q: Operand, k: Operand, v: Operand, y: Operand, count: tuple[int, int], scaled: bool
) -> Iterator[Fact]:
    """Softmax(q·kᵀ)·v = y over `count` query and key heads."""
    heads = _heads(*count)
    dims = {x.name: _inner(op, x, n) for x, n in ((q, count[0]), (k, count[1]), (v, count[1]), (y, count[0]))}
    for x, n in ((q, heads.queries), (k, heads.shared), (v, heads.shared), (y, heads.queries)):
        yield from _folded(op, x, n, dims[x.name])
        yield Equal(x.axis(0), q.axis(0))
    yield Contract((dims[q.name], dims[k.name]), SUMS)
    if not scaled:
        yield Pin(dims[q.name], SCALE)
    yield Equal(dims[v.name], dims[y.name])
    yield Equal(_length(q), _length(y))
    yield Equal(_length(k), _length(v))
    yield Pin(_length(k), POSITIONS)
    yield Pin(_length(q), "positions of queries stay")
    yield Pin(q.axis(0), "the batch stays")
    if v.rank == 4 and y.rank == 4:
        yield Zero(y.axis(3), (v.axis(3),))
    if count[0] == count[1] and v.rank == y.rank:
        at = 1 if v.rank == 4 else -1
        yield Zero(y.axis(at), (v.axis(at),))


def _mask(mask: Operand | None, heads: Dim, queries: int) -> Facts:
    """A mask or bias broadcasts to [batch, query heads, queries, positions]; only its heads may go."""
    if mask is None:
        return
    for back, axis in enumerate(reversed(mask.axes), start=1):
        if back == 3 and axis.size == queries and axis.size != 1:
            yield Equal(axis, heads)
        else:
            yield Pin(axis, POSITIONS)


@rule("Attention")
def attention(op: Op) -> Facts:
    """Scaled dot-product attention; operands are 4-D, or 3-D with counts of heads that follow.

    Source: https://onnx.ai/onnx/operators/onnx__Attention.html
    """
    q, k, v, y = op.x(0), op.x(1), op.x(2), op.y()
    queries = q.shape[1] if q.rank == 4 else int(op.attr("q_num_heads"))
    keys = k.shape[1] if k.rank == 4 else int(op.attr("kv_num_heads"))
    heads = _heads(queries, keys)
    yield from _core(op, q, k, v, y, (queries, keys), "scale" in op.attributes)
    yield from _mask(op.maybe(3), heads.queries, queries)
    caches = ((op.maybe(4), k), (op.maybe(5), v), (_output(op, 1), k), (_output(op, 2), v))
    for cache, x in caches:
        if cache is not None:
            yield from _folded(op, cache, heads.shared, _inner(op, x, keys))
            yield Equal(cache.axis(0), q.axis(0))
            yield Pin(cache.axis(2), POSITIONS)
    scores = _output(op, 3)
    if scores is not None:
        yield Equal(scores.axis(1), heads.queries)
        for i in (0, 2, 3):
            yield Pin(scores.axis(i), POSITIONS)
    padding = op.maybe(6)
    if padding is not None:
        yield Pin(padding.axis(0), "the batch stays")
    if "q_num_heads" in op.attributes:
        yield Count(Attribute("q_num_heads"), (heads.queries,))
    if "kv_num_heads" in op.attributes:
        yield Count(Attribute("kv_num_heads"), (heads.shared,))


def _output(op: Op, index: int) -> Operand | None:
    return op.outputs[index] if index < len(op.outputs) else None


@rule("MultiHeadAttention", domain="com.microsoft")
def multi_head_attention(op: Op) -> Facts:
    """Queries, keys and values [batch, length, heads·dims]; packed ones and caches stay.

    Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """
    k, v = op.maybe(1), op.maybe(2)
    if k is None or v is None or k.rank != 3 or v.rank != 3 or op.x(0).rank != 3:
        return
    q, y, count = op.x(0), op.y(), int(op.attr("num_heads"))
    heads = _heads(count, count)
    yield from _core(op, q, k, v, y, (count, count), bool(op.attr("scale", 0.0)))
    bias = op.maybe(3)
    if bias is not None:
        yield Equal(bias.axis(0), Sum((q.axis(2), k.axis(2), v.axis(2))))
    yield from _mask(op.maybe(5), heads.queries, count)
    yield Count(Attribute("num_heads"), (heads.queries,))


@rule("GroupQueryAttention", domain="com.microsoft")
def group_query_attention(op: Op) -> Facts:
    """Heads may go, each group of queries with its key and value; the dims of a head stay.

    Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GroupQueryAttention
    """
    queries, keys = int(op.attr("num_heads")), int(op.attr("kv_num_heads"))
    heads, q, y, k, v = _heads(queries, keys), op.x(0), op.y(), op.maybe(1), op.maybe(2)
    dims = Leaf("dims within a head", y.shape[-1] // queries)
    yield Pin(dims, "kernels of GroupQueryAttention take few widths of a head")
    query, key = Product((heads.queries, dims)), Product((heads.shared, dims))
    if k is None or v is None:
        yield Equal(q.axis(-1), Sum((query, key, key)))
    else:
        for x, hidden in ((q, query), (k, key), (v, key)):
            yield Equal(x.axis(-1), hidden)
    yield Equal(y.axis(-1), query)
    for cache in (*op.inputs[3:5], *op.outputs[1:3]):
        if cache is not None:
            yield Equal(cache.axis(1), heads.shared)
            yield Equal(cache.axis(3), dims)
            yield Pin(cache.axis(0), "the batch stays")
            yield Pin(cache.axis(2), POSITIONS)
    for operand in (q, k, v, y):
        for axis in operand.axes[:-1] if operand is not None else ():
            yield Pin(axis, POSITIONS)
    yield Count(Attribute("num_heads"), (heads.queries,))
    yield Count(Attribute("kv_num_heads"), (heads.shared,))


@rule("Attention", domain="com.microsoft")
def packed_attention(op: Op) -> Facts:
    """One weight makes queries, keys and values side by side; `qkv_hidden_sizes` follows them.

    Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """
    x, w, y = op.x(0), op.x(1), op.y()
    count, sizes = int(op.attr("num_heads")), op.attr("qkv_hidden_sizes")
    if op.attr("past_present_share_buffer", 0) or op.attr("do_rotary", 0) or op.maybe(4) is not None:
        return
    widths = [int(n) for n in sizes or (w.shape[1] // 3,) * 3]
    heads = Leaf("heads", count)
    dims = [Leaf("value dims" if sizes and i == 2 else "dims", n // count) for i, n in enumerate(widths)]
    parts = tuple(Product((heads, inner)) for inner in dims)
    yield Contract((x.axis(2), w.axis(0)), "a matrix product sums over it")
    yield Equal(w.axis(1), Sum(parts))
    if op.maybe(2) is not None:
        yield Equal(op.x(2).axis(0), Sum(parts))
    if not op.attr("scale", 0.0):
        yield Pin(dims[0], SCALE)
    yield Equal(y.axis(2), parts[2])
    yield Equal(x.axis(0), y.axis(0))
    yield Equal(x.axis(1), y.axis(1))
    yield Pin(x.axis(0), "the batch stays")
    yield Pin(x.axis(1), POSITIONS)
    yield from _mask(op.maybe(5), heads, count)
    yield Count(Attribute("num_heads"), (heads,))
    if sizes is not None:
        yield Count(Attribute("qkv_hidden_sizes"), parts)


@rule("RotaryEmbedding")
def rotary_embedding(op: Op) -> Facts:
    """Each pair of dims turns by an angle of its own: whole pairs may go, with their sine and cosine.

    Source: https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html
    """
    yield from _rotary(op, op.x(1), op.x(2), op.maybe(3))


@rule("RotaryEmbedding", domain="com.microsoft")
def contrib_rotary_embedding(op: Op) -> Facts:
    """As the standard operator, with the positions before the tables.

    Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """
    yield from _rotary(op, op.x(2), op.x(3), op.x(1))


def _rotary(op: Op, cos: Operand, sin: Operand, positions: Operand | None) -> Facts:
    """Halves or interleaved pairs within a head; dims past the width of the tables do not turn."""
    x, y = op.x(0), op.y()
    heads = x.shape[1] if x.rank == 4 else int(op.attr("num_heads", 0))
    if not heads:
        return
    inner = _inner(op, x, heads)
    pair, turns = Leaf("both of a pair", 2), cos.axis(-1)
    turned = Product((turns, pair) if op.attr("interleaved", 0) else (pair, turns))
    count = Leaf("heads", heads)
    yield Pin(pair, "two dims turn together")
    for operand in (x, y):
        yield from _folded(op, operand, count, inner)
        yield Equal(operand.axis(0), x.axis(0))
        yield Equal(_length(operand), _length(x))
    for a, b in zip(x.axes, y.axes, strict=True):
        yield Zero(b, (a,))
    yield Equal(inner, Sum((turned, Leaf("dims that do not turn", inner.size - turned.size))))
    for table in (cos, sin):
        yield Equal(table.axis(-1), turns)
        for axis in table.axes[:-1]:
            yield Pin(axis, "positions are looked up along it")
    for axis in (*x.axes[:-1][:: x.rank - 2], *(positions.axes if positions else ())):
        yield Pin(axis, "positions stay")
    if "num_heads" in op.attributes:
        yield Count(Attribute("num_heads"), (count,))
    if op.attr("rotary_embedding_dim", 0):
        yield Count(Attribute("rotary_embedding_dim"), (turned,))
