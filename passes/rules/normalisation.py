"""Normalisations: per-channel parameters follow their channels; statistics over an axis pin it.

A *statistic* (mean, variance, root mean square) depends on how many entries there are: the axis is only free
where an approximate model is allowed. A *norm* (a sum of squares) does not change when zeros leave it.
"""

from __future__ import annotations

from passes.rules.language import (
    Attribute,
    Axis,
    Contract,
    Count,
    Equal,
    Facts,
    Leaf,
    Mean,
    Op,
    Operand,
    Pin,
    Product,
    Renormalise,
    Zero,
    rule,
    same,
)

STATISTIC = "a mean and variance are taken over it"
TRAINS = "BatchNormalization in training mode"


@rule("BatchNormalization")
def batch_normalization(op: Op) -> Facts:
    """Scale, bias, mean and variance follow the channels; zero scale and bias give zero whatever comes in.

    In training mode (before opset 14: with more than one output) every axis stays.

    Source: https://onnx.ai/onnx/operators/onnx__BatchNormalization.html
    """
    x, y = op.x(0), op.y()
    yield from same(x, y, skip=(1,), zero=False)
    if sum(operand is not None for operand in op.outputs) > 1 or op.attr("training_mode", 0):
        yield from (Pin(axis, TRAINS) for axis in x.axes)
    parameters = [op.x(i) for i in range(1, 5)]
    for operand in (x, *op.outputs):
        if operand is not None and operand.rank == x.rank:
            yield Equal(operand.axis(1), parameters[0].axis(0))
        elif operand is not None:
            yield Pin(operand.axis(0), TRAINS)
    for parameter in parameters[1:]:
        yield Equal(parameter.axis(0), parameters[0].axis(0))
    yield Zero(y.axis(1), (parameters[0].axis(0), parameters[1].axis(0)))
    yield Zero(y.axis(1), (x.axis(1), parameters[1].axis(0), parameters[2].axis(0)))


@rule("InstanceNormalization")
def instance_normalization(op: Op) -> Facts:
    """Scale and bias follow the channels; the spatial axes, and all folded into them, are a statistic.

    Source: https://onnx.ai/onnx/operators/onnx__InstanceNormalization.html
    """
    x, scale, bias, y = op.x(0), op.x(1), op.x(2), op.y()
    yield Equal(x.axis(0), y.axis(0))
    for operand in (scale, bias, y):
        yield Equal(x.axis(1), operand.axis(0 if operand.rank == 1 else 1))
    yield Zero(y.axis(1), (scale.axis(0), bias.axis(0)))
    yield Zero(y.axis(1), (x.axis(1), bias.axis(0)))
    for a, b in zip(x.axes[2:], y.axes[2:], strict=True):
        yield Equal(a, b)
        yield Renormalise(a, STATISTIC)


@rule("GroupNormalization")
def group_normalization(op: Op) -> Facts:
    """x.C = G·K: whole groups may go, K is a statistic (onnx itself withdrew the operator before opset 21).

    Source: https://onnx.ai/onnx/operators/onnx__GroupNormalization.html
    """
    x, scale, bias, y = op.x(0), op.x(1), op.x(2), op.y()
    groups = int(op.attr("num_groups"))
    g, k = Leaf("groups", groups), Leaf("channels per group", x.shape[1] // groups)
    yield Equal(x.axis(0), y.axis(0))
    yield Equal(x.axis(1), Product((g, k)))
    yield Equal(y.axis(1), Product((g, k)))
    yield Renormalise(k, STATISTIC)
    for parameter in (scale, bias):
        yield Equal(parameter.axis(0), x.axis(1))
    yield Zero(y.axis(1), (scale.axis(0), bias.axis(0)))
    yield Zero(y.axis(1), (x.axis(1), bias.axis(0)))
    for axis in (*x.axes[2:], *y.axes[2:]):
        yield Pin(axis, STATISTIC)
    yield Count(Attribute("num_groups"), (g,))


@rule("LayerNormalization")
def layer_normalization(op: Op) -> Facts:
    """Axes from `axis` on are a statistic; scale and bias broadcast to x. Mean and 1/σ keep the other axes.

    Source: https://onnx.ai/onnx/operators/onnx__LayerNormalization.html
    """
    yield from layer_norm(op, op.y(), _scales(op, 1, 2), op.outputs[1:], alone=op.maybe(2) is None)


@rule("RMSNormalization", "SimplifiedLayerNormalization")
def rms_normalization(op: Op) -> Facts:
    """As LayerNormalization, without mean and bias: zeros may leave the mean square, whose count is mended.

    The second name is onnxruntime's.

    Source: https://onnx.ai/onnx/operators/onnx__RMSNormalization.html,
    https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/graph/contrib_ops/contrib_defs.cc
    """
    yield from layer_norm(op, op.y(), _scales(op, 1), op.outputs[1:], root=1)


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain="com.microsoft")
def skip_layer_normalization(op: Op) -> Facts:
    """LayerNormalization of input + skip + bias; that sum is a fourth output.

    Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """
    x, skip, y = op.x(0), op.x(1), op.y()
    simple = op.type == "SkipSimplifiedLayerNormalization"
    bias = op.maybe(3 if simple else 4)
    scales = _scales(op, 2) if simple else _scales(op, 2, 3)
    yield from layer_norm(op, y, scales, op.outputs[1:3], alone=False, root=2 if simple else None)
    for other in (skip, bias) if simple else ():
        for a, b in () if other is None else _trailing(other, x):
            if b.index == x.rank - 1:
                yield Contract((a,), STATISTIC)
    added = op.outputs[3] if len(op.outputs) > 3 else None
    for other in (skip, bias, added):
        for a, b in () if other is None else _trailing(other, x):
            yield Equal(a, b)
    if added is not None:
        for axis in added.axes:
            terms = [t for t in (x, skip, bias) if t is not None]
            sources = tuple(a for t in terms for a, b in _trailing(t, added) if b == axis)
            if len(sources) == len(terms):
                yield Zero(axis, sources)


def layer_norm(
    op: Op,
    y: Operand,
    scales: list[Operand],
    statistics: tuple[Operand | None, ...],
    *,
    alone: bool = True,
    root: int | None = None,
) -> Facts:
    """Facts of a normalisation over the axes from `axis` on, with parameters that broadcast.

    Where nothing is added to x (`alone`), what is removed from its other axes is still zero behind it. Where x is only
    divided by the root of its mean square (`root` is the scale's operand), and nobody reads that, zeros may leave it.
    """
    x = op.x(0)
    first = int(op.attr("axis", -1)) % x.rank
    mended = root is not None and not any(statistics)
    for a, b in zip(x.axes, y.axes, strict=True):
        yield Equal(a, b)
        if a.index >= first and not mended:
            yield Renormalise(a, STATISTIC)
        elif alone:
            yield Zero(b, (a,))
    if mended:
        yield Mean(x.axes[first:], STATISTIC, root)
    for scale in scales:
        for a, b in _trailing(scale, x):
            yield Equal(a, b)
    for b in y.axes[first:]:
        sources = tuple(a for scale in scales for a, c in _trailing(scale, y) if c == b)
        if len(sources) == len(scales):
            yield Zero(b, sources)
    for statistic in statistics:
        for a, b in () if statistic is None else zip(statistic.axes, x.axes, strict=False):
            if a.size == b.size:
                yield Equal(a, b)


def _scales(op: Op, *places: int) -> list[Operand]:
    return [operand for i in places if (operand := op.maybe(i)) is not None]


def _trailing(small: Operand, x: Operand) -> list[tuple[Axis, Axis]]:
    """Axes of a broadcast operand with the axes of x that they run along."""
    pairs = zip(reversed(small.axes), reversed(x.axes), strict=False)
    return [(a, b) for a, b in pairs if a.size == b.size and a.size != 1]


@rule("LpNormalization")
def lp_normalization(op: Op) -> Facts:
    """A norm does not change when zeros leave it. A vector of zeros is 0/0, which onnx defines as 0.

    Source: https://onnx.ai/onnx/operators/onnx__LpNormalization.html
    """
    x = op.x()
    yield from same(x, op.y())
    yield Contract((x.axis(int(op.attr("axis", -1))),), "a norm is taken over it")


@rule("LRN")
def local_response_normalization(op: Op) -> Facts:
    """Neighbouring channels normalise each other: they stay.

    Source: https://onnx.ai/onnx/operators/onnx__LRN.html
    """
    yield from same(op.x(), op.y())
    yield Pin(op.x().axis(1), "neighbouring channels normalise each other")
