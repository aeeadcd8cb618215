"""Steps for short networks: every function, those with poles too, and operators that pin most of what they read."""

from __future__ import annotations

import numpy as np

from tests.fuzz.network import Network
from tests.fuzz.steps import CALM, Step, axis_of, need, partner

FUNCTIONS = (*CALM, "Sinh", "Cosh", "Sign", "Round", "Shrink", "Not", "Sqrt", "Log", "Reciprocal", "Exp")
TAMED = {"Exp": "Tanh", "Sinh": "Tanh", "Cosh": "Tanh", "Sqrt": "Abs", "Log": "Abs"}  # what keeps operands in bounds


def function(op: str) -> Step:
    """A step that is one function of every entry."""

    def step(net: Network, x: str) -> list[str]:
        if op == "Not":
            return [net.add("Cast", net.add("Not", net.add("Cast", x, to=9)), to=1)]
        return [net.add(op, net.add(TAMED[op], x) if op in TAMED else x)]

    return step


def power(net: Network, x: str) -> list[str]:
    exponent = net.literal(np.float32(net.pick(0, 0, 1, 2, 3, -1)))
    return [net.add("Pow", x, exponent) if net.chance(0.8) else net.add("Pow", net.literal(np.float32(2)), x)]


def quotient(net: Network, x: str) -> list[str]:
    """Division and remainders by what shrinks too, by constants along an axis, and of constants."""
    other = net.add("Abs", partner(net, x))
    by = net.pick(other, net.add("Add", other, net.literal(np.float32(0.5))), net.weight(net.shape(x)[-1]))
    return [net.add("Div", net.pick(x, x, net.literal(np.float32(1))), by)]


def prelu(net: Network, x: str) -> list[str]:
    """A slope along the channels or a computed one, on operands that may be positive everywhere."""
    shape = net.shape(x)
    need(len(shape) > 1)
    slope = net.pick(partner(net, x), net.weight(shape[1], *[1] * (len(shape) - 2), scale=0.3))
    return [net.add("PRelu", net.pick(x, net.add("Sigmoid", x)), slope)]


def blend(net: Network, x: str) -> list[str]:
    """A condition that may be zero where x is, and branches that may not be."""
    shape = net.shape(x)
    condition = net.pick(net.add("Cast", x, to=9), net.add("Greater", partner(net, x), net.literal(np.float32(0.1))))
    total = net.add("ReduceSum", partner(net, x), keepdims=1)
    moved = net.add("Sigmoid", partner(net, x))
    other = net.pick(net.literal(np.float32(1)), total, net.weight(shape[-1], scale=1.0), partner(net, x), moved, moved)
    return [net.add("Where", condition, *net.pick((x, other), (other, x), (moved, moved)))]


def broadcast(net: Network, x: str) -> list[str]:
    """Added to, or compared with, its own sum or mean along an axis."""
    summed = net.add(net.pick("ReduceSum", "ReduceMax"), partner(net, x), net.ints(axis_of(net, x)), keepdims=1)
    return [net.add(net.pick("Add", "Sub", "Max", "Min", "Mean", "Sum", "Mul"), *net.pick((x, summed), (summed, x)))]


def normalise(net: Network, x: str) -> list[str]:
    shape = net.shape(x)
    op = net.pick("LRN", "LpNormalization", "Hardmax", "Softmax", "GroupNormalization", "LayerNormalization")
    if op == "LRN":
        need(len(shape) == 4)
        return [net.add("LRN", x, size=3, alpha=1.0)]
    if op == "GroupNormalization":
        need(len(shape) == 4 and shape[1] % 2 == 0)
        return [net.add(op, x, net.weight(2, scale=1.0), net.weight(2, scale=1.0), num_groups=2)]
    if op == "LayerNormalization":
        return [net.add(op, x, net.weight(shape[-1], scale=1.0), net.weight(shape[-1], scale=1.0))]
    return [net.add(op, x, axis=axis_of(net, x))]


def reduce(net: Network, x: str) -> list[str]:
    op = net.pick("ReduceProd", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMean")
    calm = net.add("Abs", x) if op == "ReduceLogSum" else x
    return [net.add(op, calm, net.ints(axis_of(net, x)), keepdims=1)]


def accumulate(net: Network, x: str) -> list[str]:
    at = net.literal(np.int64(axis_of(net, x)))
    return [net.add("CumSum", x, at, exclusive=net.pick(0, 1), reverse=net.pick(0, 1))]


def rank(net: Network, x: str) -> list[str]:
    best = net.add(net.pick("ArgMax", "ArgMin"), x, axis=axis_of(net, x))
    return [net.add("Cast", best, to=1)]


def pool(net: Network, x: str) -> list[str]:
    """A pool with its Indices: positions in the whole image."""
    shape = net.shape(x)
    need(len(shape) == 4 and min(shape[2:]) >= 2)
    values, positions = net.all_of(net.add("MaxPool", x, outputs=2, kernel_shape=[2, 2]))
    return [values, net.add("Cast", positions, to=1)]


def join(net: Network, x: str) -> list[str]:
    """With a constant at one end, as class tokens and coordinates are; or with two layers on x, in any order."""
    shape, axis = net.shape(x), axis_of(net, x)
    other = net.pick(partner(net, x), net.add("Sigmoid", x), "")
    if not other:
        need(not net.dynamic)
        other = net.weight(*(net.pick(1, 2) if i == axis else n for i, n in enumerate(shape)), scale=1.0)
    return [net.add("Concat", *net.pick((x, other), (other, x)), axis=axis)]


def attend(net: Network, x: str) -> list[str]:
    """Two layers on x, or x with itself, multiplied along their features without any weight."""
    shape = net.shape(x)
    need(len(shape) == 3)
    other = net.pick(x, partner(net, x), net.add("Sigmoid", x))
    return [net.add("MatMul", x, net.add("Transpose", other, perm=[0, 2, 1]))]


def contract(net: Network, x: str) -> list[str]:
    shape = net.shape(x)
    letters = "abcde"[: len(shape)]
    gone = net.pick(*letters[1:])
    return [net.add("Einsum", x, partner(net, x), equation=f"{letters},{letters}->{letters.replace(gone, '')}")]


def scatter(net: Network, x: str) -> list[str]:
    """Entries along an axis replaced by another layer's."""
    shape, axis = net.shape(x), axis_of(net, x)
    need(not net.dynamic)
    where = np.zeros([2 if i == axis else n for i, n in enumerate(shape)], np.int64)
    where[(slice(None),) * axis + (1,)] = 1
    part = net.add("Slice", partner(net, x), net.ints(0), net.ints(2), net.ints(axis))
    return [net.add("ScatterElements", x, net.literal(where), part, axis=axis)]


def look_up(net: Network, x: str) -> list[str]:
    shape, axis = net.shape(x), axis_of(net, x)
    need(not net.dynamic)
    return [net.add("GatherElements", x, net.literal(net.rng.integers(0, shape[axis], shape)), axis=axis)]


def gemm(net: Network, x: str) -> list[str]:
    shape = net.shape(x)
    need(len(shape) == 2)
    addend = net.pick(net.weight(6, scale=1.0), net.literal(np.float32(1)), net.weight(1, 6, scale=1.0))
    return [net.add("Gemm", x, net.weight(shape[1], 6), addend, beta=net.pick(0.0, 1.0, 0.5))]


def recur(net: Network, x: str) -> list[str]:
    shape, hidden = net.shape(x), 3
    need(len(shape) == 3 and not net.dynamic)
    op, gates = net.pick(("LSTM", 4), ("GRU", 3), ("RNN", 1))
    w, r = net.weight(1, gates * hidden, shape[2]), net.weight(1, gates * hidden, hidden)
    return [net.add("Squeeze", net.add(op, x, w, r, hidden_size=hidden), net.ints(1))]


RARE: tuple[Step, ...] = (
    *map(function, FUNCTIONS), power, power, quotient, prelu, blend, blend, broadcast, broadcast, normalise, normalise,
    normalise, reduce, reduce, accumulate, rank, pool, join, attend, contract, scatter, look_up, gemm, recur,
)  # fmt: skip
