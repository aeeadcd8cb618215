"""Pools and local filters: channels pass through, spatial axes are not for pruning."""

from __future__ import annotations

from passes.rules.language import Facts, Mean, Op, Pin, rule, same

WINDOW = "a window slides along it"


@rule("MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalLpPool")
def pool(op: Op) -> Facts:
    """Batch and channels pass; a pool of zeros is zero (padding of MaxPool is never chosen over a zero).

    Source: https://onnx.ai/onnx/operators/onnx__MaxPool.html
    """
    spatial = range(2, op.x().rank)
    if len(op.outputs) > 1 and op.outputs[1] is not None:
        for axis in (*op.x().axes, *op.y().axes):
            yield Pin(axis, "positions across all channels are given out (MaxPool's Indices)")
    for y in op.outputs:
        if y is None:
            continue
        yield from same(op.x(), y, skip=tuple(spatial))
        for axis in (*op.x().axes[2:], *y.axes[2:]):
            yield Pin(axis, WINDOW)


@rule("GlobalAveragePool")
def global_average_pool(op: Op) -> Facts:
    """A mean over all axes behind the channels. They need not be pixels: tf2onnx writes a mean over features so, too.

    Source: https://onnx.ai/onnx/operators/onnx__GlobalAveragePool.html
    """
    x, y = op.x(), op.y()
    yield from same(x, y, skip=range(2, x.rank))
    yield Mean(x.axes[2:], "a mean is taken over it")
