"""Attention: scores (batch · queries · keys · hidden of q) and their product with v (… · hidden of the result).

What a mask leaves out counts, too: kernels compute it, or may. Keys are those of the cache and the new ones.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from passes.counting.sizes import Sizes, Volume

CACHES = {"Attention": (4, 1), "MultiHeadAttention": (6, 1), "GroupQueryAttention": (3, 1)}
"""Operand with the keys of before, and result with all keys: [batch, heads, positions, dims]."""


def separate(node: gs.Node, sizes: Sizes) -> list[Volume]:
    """Queries, keys and values apart: the standard Attention and MultiHeadAttention."""
    q, y = node.inputs[0], node.outputs[0]
    shape = sizes.shape(q)
    keys = operand(node, 1)
    if len(shape) == 5 or keys is None:  # packed [batch, positions, heads, 3, dims]
        return _products(node, sizes, shape[0] * shape[1], _positions(node, sizes, shape[1]))
    heads = [1, 3] if len(shape) == 4 else [2]
    length = sizes.shape(keys)[1 if len(sizes.shape(keys)) in (3, 5) else 2]  # a packed pair has five axes
    places = float(shape[0] * shape[-2] * _positions(node, sizes, length))
    result = [1, 3] if len(sizes.shape(y)) == 4 else [2]
    return [sizes.volume(node.name, places, q, heads), sizes.volume(node.name, places, y, result)]


def grouped(node: gs.Node, sizes: Sizes) -> list[Volume]:
    """GroupQueryAttention: queries, whose hidden axis is the result's, with or without keys and values beside them."""
    batch, queries, _ = sizes.shape(node.inputs[0])
    return _products(node, sizes, batch * queries, _positions(node, sizes, queries))


def projecting(node: gs.Node, sizes: Sizes) -> list[Volume]:
    """Packed attention, which makes queries, keys and values of one weight, side by side.

    Queries and keys are equally wide, and values as wide as the result: w = 2q + y, so that q + y = (w + y) / 2.
    """
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    batch, queries, _ = sizes.shape(x)
    past = operand(node, 8 if node.op == "QAttention" else 4)
    keys = queries + (0 if past is None else sizes.shape(past)[3])
    half = batch * queries * keys / 2
    return [
        sizes.volume(node.name, batch * queries, weight),
        sizes.volume(node.name, half, weight, [1]),
        sizes.volume(node.name, half, y, [2]),
    ]


def operand(node: gs.Node, index: int) -> gs.Tensor | None:
    """An operand, or None where it is absent."""
    return node.inputs[index] if index < len(node.inputs) and not node.inputs[index].is_empty() else None


def _products(node: gs.Node, sizes: Sizes, queries: float, keys: float) -> list[Volume]:
    return [sizes.volume(node.name, 2.0 * queries * keys, node.outputs[0], [2])]


def _positions(node: gs.Node, sizes: Sizes, new: int) -> int:
    """How many keys are attended to: all that the cache holds behind the node, else those before it and the new ones.

    A cache that is shared holds what will come, too.
    """
    before, after = CACHES[node.op]
    if after < len(node.outputs) and not node.outputs[after].is_empty():
        return sizes.shape(node.outputs[after])[2]
    past = operand(node, before)
    return new if past is None else new + sizes.shape(past)[2]
