"""Steps that a random network is made of: each reads a tensor of the pool and gives new ones.

A step may raise ValueError or one of onnx's own errors where it does not fit; another one is tried then.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.fuzz.network import Network

Step = Callable[[Network, str], list[str]]
CALM = ("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "HardSwish", "Mish", "Tanh", "Sin", "Atan",
        "Asinh", "Abs", "Neg", "Erf", "Softsign", "Identity", "Sigmoid", "HardSigmoid", "Softplus", "Cos",
        "Dropout")  # fmt: skip
WIDTHS = (4, 6, 8, 12)


def need(fits: bool) -> None:
    """This step does not fit."""
    if not fits:
        raise ValueError("does not fit")


def axis_of(net: Network, x: str) -> int:
    """An axis with more than one entry; the channels most of the time."""
    shape = net.shape(x)
    usual = 1 if len(shape) in (2, 4) else -1
    axis = usual % len(shape) if net.chance(0.7) else int(net.rng.integers(len(shape)))
    need(shape[axis] > 1 and (axis > 0 or not net.dynamic))
    return axis


def entrywise(net: Network, x: str) -> list[str]:
    return [net.add(net.pick(*CALM), x)]


def clip(net: Network, x: str) -> list[str]:
    low = np.float32(net.pick(-1.0, 0.0, 0.25))
    return [net.add("Clip", x, net.literal(low), net.literal(np.float32(2)))]


def affine(net: Network, x: str) -> list[str]:
    """An operation with a constant that runs along one axis, all of them or none."""
    shape = net.shape(x)
    axis = axis_of(net, x)
    sizes = net.pick([shape[axis], *[1] * (len(shape) - axis - 1)], list(shape[-1:]), [1])
    return [
        net.add(
            net.pick("Add", "Mul", "Sub", "Max", "Min"),
            *(net.pick((x, c), (c, x)) if (c := net.weight(*sizes, scale=1.0)) else ()),
        )
    ]


def divide(net: Network, x: str) -> list[str]:
    over = net.pick("constant", "moving")
    by = (
        net.literal(np.float32(3))
        if over == "constant"
        else net.add("Add", net.add("Sigmoid", x), net.literal(np.float32(0.5)))
    )
    return [net.add("Div", x, by)]


def partner(net: Network, x: str) -> str:
    """Another tensor of the same shape: one that is there, or a layer on x."""
    shape = net.shape(x)
    others = [t for t in net.pool if t != x and net.shape(t) == shape]
    if others and net.chance(0.7):
        return str(net.pick(*others))
    if len(shape) == 4:
        return net.add("Conv", x, net.weight(shape[1], shape[1], 1, 1))
    return net.add("MatMul", x, net.weight(shape[-1], shape[-1]))


def combine(net: Network, x: str) -> list[str]:
    op = net.pick("Add", "Add", "Mul", "Sub", "Max", "Min", "Mean", "Sum")
    return [net.add(op, x, partner(net, x))]


def choose(net: Network, x: str) -> list[str]:
    other = net.pick(partner(net, x), net.literal(np.float32(net.pick(0, 1))))
    return [net.add("Where", net.add("Greater", x, net.literal(np.float32(0.1))), x, other)]


def conv(net: Network, x: str) -> list[str]:
    _, c, h, _ = _image(net, x)
    groups = net.pick(*[g for g in (1, 1, 2, 3, c) if c % g == 0])
    out = groups * net.pick(1, 2, 3, 4) if groups > 1 else net.pick(*WIDTHS)
    k = net.pick(1, 3) if h >= 3 else 1
    bias = [net.weight(out, scale=1.0)] if net.chance(0.6) else []
    return [net.add("Conv", x, net.weight(out, c // groups, k, k), *bias, group=groups, pads=[k // 2] * 4)]


def conv_transpose(net: Network, x: str) -> list[str]:
    _, c, h, _ = _image(net, x)
    need(h <= 6)
    groups = net.pick(*[g for g in (1, 2) if c % g == 0])
    return [net.add("ConvTranspose", x, net.weight(c, net.pick(2, 3, 4), 2, 2), strides=[2, 2], group=groups)]


def _image(net: Network, x: str) -> tuple[int, ...]:
    shape = net.shape(x)
    need(len(shape) == 4)
    return shape


def batch_norm(net: Network, x: str) -> list[str]:
    shape = net.shape(x)
    need(len(shape) > 1)
    scale, bias, mean = (net.weight(shape[1], scale=1.0) for _ in range(3))
    variance = net.literal((net.rng.random(shape[1]) + 0.5).astype(np.float32))
    return [net.add("BatchNormalization", x, scale, bias, mean, variance)]


def instance_norm(net: Network, x: str) -> list[str]:
    shape = net.shape(x)
    need(len(shape) > 2 and shape[2] > 1)
    return [net.add("InstanceNormalization", x, net.weight(shape[1], scale=1.0), net.weight(shape[1], scale=1.0))]


def layer_norm(net: Network, x: str) -> list[str]:
    size = net.shape(x)[-1]
    need(size > 1)
    return [net.add("LayerNormalization", x, net.weight(size, scale=1.0), net.weight(size, scale=1.0), axis=-1)]


def prelu(net: Network, x: str) -> list[str]:
    shape = net.shape(x)
    return (
        [net.add("PRelu", x, net.weight(*net.pick([shape[1], *[1] * (len(shape) - 2)], [1]), scale=0.3))]
        if len(shape) > 1
        else []
    )


def squeeze_excite(net: Network, x: str) -> list[str]:
    _, c, _, _ = _image(net, x)
    mid = net.pick(2, 3, 4)
    pooled = net.add("GlobalAveragePool", x)
    gate = net.add("Conv", net.add("Relu", net.add("Conv", pooled, net.weight(mid, c, 1, 1))), net.weight(c, mid, 1, 1))
    return [net.add("Mul", x, net.add("Sigmoid", gate))]


def pool(net: Network, x: str) -> list[str]:
    _, _, h, w = _image(net, x)
    need(min(h, w) >= 2)
    return [net.add(net.pick("MaxPool", "AveragePool"), x, kernel_shape=[2, 2], strides=[1, 1])]


def resize(net: Network, x: str) -> list[str]:
    n, c, h, w = _image(net, x)
    need(h <= 6)
    if net.chance(0.5) and not net.dynamic:
        return [net.add("Resize", x, "", "", net.ints(n, c, 2 * h, 2 * w), mode="linear")]
    return [net.add("Resize", x, "", net.literal(np.array([1, 1, 2, 2], dtype=np.float32)))]


def pixels(net: Network, x: str) -> list[str]:
    _, c, h, w = _image(net, x)
    if c % 4 == 0 and net.chance(0.6):
        return [net.add("DepthToSpace", x, blocksize=2, mode=net.pick("DCR", "CRD"))]
    need(h % 2 == 0 and w % 2 == 0)
    return [net.add("SpaceToDepth", x, blocksize=2)]


def concat(net: Network, x: str) -> list[str]:
    axis = axis_of(net, x)
    others = [t for t in net.pool if _alike(net.shape(t), net.shape(x), axis)]
    chosen = [str(net.pick(*others)) for _ in range(net.pick(1, 1, 2))]
    return [net.add("Concat", *net.pick((x, *chosen), (*chosen, x)), axis=axis)]


def _alike(a: tuple[int, ...], b: tuple[int, ...], axis: int) -> bool:
    return len(a) == len(b) and all(m == n for i, (m, n) in enumerate(zip(a, b, strict=True)) if i != axis)


def split(net: Network, x: str) -> list[str]:
    axis = axis_of(net, x)
    size = net.shape(x)[axis]
    if size % 2 == 0 and net.chance(0.4):
        return net.all_of(net.add("Split", x, outputs=2, axis=axis, num_outputs=2))
    cut = int(net.rng.integers(1, size))
    return net.all_of(net.add("Split", x, net.ints(cut, size - cut), outputs=2, axis=axis))


def slice_(net: Network, x: str) -> list[str]:
    axis = axis_of(net, x)
    size = net.shape(x)[axis]
    step = net.pick(1, 1, 1, 2, -1)
    lo = int(net.rng.integers(0, size - 1))
    hi = int(net.rng.integers(lo + 1, size + 1))
    starts, ends = (
        (lo - net.pick(0, size), hi - (size if net.chance(0.4) and hi < size else 0)) if step > 0 else (-1, -size - 1)
    )
    if step == 2:
        starts, ends = lo % 2, size
    return [net.add("Slice", x, net.ints(starts), net.ints(ends), net.ints(axis), net.ints(step))]


def gather(net: Network, x: str) -> list[str]:
    axis = axis_of(net, x)
    size = net.shape(x)[axis]
    lo = int(net.rng.integers(0, size))
    lists = [
        list(range(lo, size)),
        [*range(lo, size), *range(lo)],
        np.arange(size).reshape(2, -1).T.reshape(-1).tolist() if size % 2 == 0 else [0],
        net.rng.permutation(size).tolist(),
        [-1, 0, 0],
        np.repeat(np.arange(size), 2).tolist(),
    ]
    index = net.ints(*net.pick(*lists)) if net.chance(0.85) else net.literal(np.int64(lo))
    return [net.add("Gather", x, index, axis=axis)]


def shuffle(net: Network, x: str) -> list[str]:
    n, c, h, w = _image(net, x)
    groups = net.pick(2, 3)
    need(c % groups == 0)
    folded = net.add("Reshape", x, net.target(x, n, groups, c // groups, h, w))
    _fix(net, folded, n, groups, c // groups, h, w)
    swapped = net.add("Transpose", folded, perm=[0, 2, 1, 3, 4])
    back = net.add("Reshape", swapped, net.target(x, n, c, h, w))
    return [_fix(net, back, n, c, h, w)]


def _fix(net: Network, name: str, *sizes: int) -> str:
    """A computed target hides the sizes from onnx."""
    net.types[name] = type(net.types[name])()
    net.types[name].tensor_type.elem_type = 1
    for n in sizes:
        net.types[name].tensor_type.shape.dim.add().dim_value = n
    return name


def pad(net: Network, x: str) -> list[str]:
    axis = axis_of(net, x)
    mode = net.pick("constant", "constant", "reflect", "edge")
    pads = [net.pick(0, 1, 2), net.pick(0, 1)]
    need(net.shape(x)[axis] > 2)
    return [net.add("Pad", x, net.ints(*pads), net.literal(np.float32(net.pick(0, 0, 1))), net.ints(axis), mode=mode)]


def reduce(net: Network, x: str) -> list[str]:
    op = net.pick(
        "ReduceSum",
        "ReduceMean",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceMax",
        "ReduceMin",
        "ReduceLogSumExp",
    )
    keep = net.pick(0, 1)
    need(keep == 1 or len(net.shape(x)) > 2)
    return [net.add(op, x, net.ints(axis_of(net, x)), keepdims=keep)]


def normalise(net: Network, x: str) -> list[str]:
    return [net.add(net.pick("Softmax", "LogSoftmax"), x, axis=axis_of(net, x))]


def rank(net: Network, x: str) -> list[str]:
    axis = axis_of(net, x)
    first = net.add("TopK", x, net.ints(min(2, net.shape(x)[axis])), outputs=2, axis=axis)
    return [first]


def accumulate(net: Network, x: str) -> list[str]:
    return [net.add("CumSum", x, net.literal(np.int64(axis_of(net, x))))]


def transpose(net: Network, x: str) -> list[str]:
    order = list(range(1, len(net.shape(x))))
    net.rng.shuffle(order)
    return [net.add("Transpose", x, perm=[0, *order])]


def refold(net: Network, x: str) -> list[str]:
    """Two neighbouring axes become one, or one becomes two; the batch sometimes takes part."""
    shape = list(net.shape(x))
    if len(shape) > 2 and net.chance(0.5):
        at = int(net.rng.integers(0 if net.chance(0.3) else 1, len(shape) - 1))
        sizes = [*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :]]
    else:
        at = int(net.rng.integers(1, len(shape)))
        factor = net.pick(2, 3, 4)
        need(shape[at] % factor == 0 and len(shape) < 5)
        sizes = [*shape[:at], factor, shape[at] // factor, *shape[at + 1 :]]
    return [_fix(net, net.add("Reshape", x, net.target(x, *sizes)), *sizes)]


def flatten(net: Network, x: str) -> list[str]:
    need(len(net.shape(x)) > 2)
    return [net.add("Flatten", x)]


def linear(net: Network, x: str) -> list[str]:
    shape = net.shape(x)
    out = net.pick(*WIDTHS)
    if len(shape) == 2 and net.chance(0.5):
        return [net.add("Gemm", x, net.weight(out, shape[1]), net.weight(out, scale=1.0), transB=1)]
    return [net.add("MatMul", x, net.weight(shape[-1], out))]


def attend(net: Network, x: str) -> list[str]:
    shape = net.shape(x)
    need(len(shape) == 3)
    q, k, v = (net.add("MatMul", x, net.weight(shape[-1], 4)) for _ in range(3))
    scores = net.add("MatMul", q, net.add("Transpose", k, perm=[0, 2, 1]))
    return [net.add("MatMul", net.add("Softmax", scores, axis=-1), v)]


def repeat(net: Network, x: str) -> list[str]:
    shape = net.shape(x)
    axis = axis_of(net, x)
    need(np.prod(shape) < 2000)
    return [net.add("Tile", x, net.ints(*(2 if i == axis else 1 for i in range(len(shape)))))]


def expand(net: Network, x: str) -> list[str]:
    shape = net.shape(x)
    singles = [i for i, n in enumerate(shape) if n == 1 and i > 0]
    need(bool(singles) and np.prod(shape) < 1000)
    at = net.pick(*singles)
    return [net.add("Expand", x, net.ints(*(3 if i == at else 1 for i in range(len(shape)))))]


def scatter(net: Network, x: str) -> list[str]:
    """x[:, a:b] = other, spelled ScatterND."""
    shape = net.shape(x)
    need(len(shape) > 1 and shape[1] > 2 and not net.dynamic)
    lo = int(net.rng.integers(0, shape[1] - 1))
    hi = int(net.rng.integers(lo + 1, shape[1] + 1))
    box = np.stack(np.meshgrid(np.arange(shape[0]), np.arange(lo, hi), indexing="ij"), axis=-1).astype(np.int64)
    part = net.add("Slice", partner(net, x), net.ints(lo), net.ints(hi), net.ints(1))
    return [net.add("ScatterND", x, net.literal(box), part)]


def recur(net: Network, x: str) -> list[str]:
    shape = net.shape(x)
    need(len(shape) == 3 and not net.dynamic)
    hidden = 3
    y = net.add(
        "GRU", x, net.weight(1, 3 * hidden, shape[2]), net.weight(1, 3 * hidden, hidden), outputs=2, hidden_size=hidden
    )
    return [net.add("Squeeze", y, net.ints(1))]


STEPS: tuple[Step, ...] = (
    entrywise, entrywise, clip, affine, affine, divide, combine, combine, combine, choose, conv, conv, conv, conv,
    conv_transpose, batch_norm, instance_norm, layer_norm, prelu, squeeze_excite, pool, resize, pixels, concat, concat,
    split, split, slice_, gather, gather, shuffle, pad, reduce, reduce, normalise, rank, accumulate, transpose, refold,
    refold, flatten, linear, attend, repeat, expand, scatter, recur,
)  # fmt: skip
