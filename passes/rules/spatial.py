"""Resampling: channels pass through or are folded with blocks of pixels, spatial axes are not for pruning."""

from __future__ import annotations

from passes.rules.language import Count, Equal, Facts, Input, Leaf, Op, Pin, Product, Zero, rule, same

SAMPLED = "it is resampled"


@rule("Resize", "Upsample")
def resize(op: Op) -> Facts:
    """Axes whose scale is 1 pass; `sizes` follow.

    Source: https://onnx.ai/onnx/operators/onnx__Resize.html
    """
    x, y = op.x(0), op.y()
    crop = op.attr("coordinate_transformation_mode") == "tf_crop_and_resize"
    axes = [a % x.rank for a in op.attr("axes", range(x.rank))]
    scales = _scales(op)
    for i in range(x.rank):
        passes = i not in axes or (not crop and (scales is None or scales[axes.index(i)] == 1))
        if passes and x.shape[i] == y.shape[i]:
            yield Equal(x.axis(i), y.axis(i))
            yield Zero(y.axis(i), (x.axis(i),))
        else:
            yield Pin(x.axis(i), SAMPLED)
            yield Pin(y.axis(i), SAMPLED)
    if op.maybe(3) is not None:
        yield Count(Input(3), tuple(y.axis(i) for i in axes))


def _scales(op: Op) -> list[float] | None:
    """One factor per axis; None where sizes are given instead (or the factors are not known: sizes tell then)."""
    if "scales" in op.attributes:
        return [float(v) for v in op.attributes["scales"]]
    operand = op.maybe(2 if op.type == "Resize" and op.opset >= 11 else 1)
    if operand is None or operand.value is None or operand.shape == (0,):
        return None
    return [float(v) for v in operand.value.reshape(-1)]


@rule("DepthToSpace")
def depth_to_space(op: Op) -> Facts:
    """x.C = b·b·y.C (mode DCR) or y.C·b·b (CRD).

    Source: https://onnx.ai/onnx/operators/onnx__DepthToSpace.html
    """
    x, y = op.x(), op.y()
    block = Leaf("block", int(op.attr("blocksize")) ** 2)
    factors = (block, y.axis(1)) if op.attr("mode", "DCR") == "DCR" else (y.axis(1), block)
    yield Equal(x.axis(1), Product(factors))
    yield from _blocks(op, block)


@rule("SpaceToDepth")
def space_to_depth(op: Op) -> Facts:
    """y.C = b·b·x.C.

    Source: https://onnx.ai/onnx/operators/onnx__SpaceToDepth.html
    """
    x, y = op.x(), op.y()
    block = Leaf("block", int(op.attr("blocksize")) ** 2)
    yield Equal(y.axis(1), Product((block, x.axis(1))))
    yield from _blocks(op, block)


def _blocks(op: Op, block: Leaf) -> Facts:
    x, y = op.x(), op.y()
    yield Zero(y.axis(1), (x.axis(1),))
    yield Equal(x.axis(0), y.axis(0))
    yield Zero(y.axis(0), (x.axis(0),))
    for axis in (block, *x.axes[2:], *y.axes[2:]):
        yield Pin(axis, "blocks of pixels are folded into channels")


@rule("Col2Im")
def col2im(op: Op) -> Facts:
    """x.1 = y.C · (entries of a block); blocks are added up where they overlap.

    Source: https://onnx.ai/onnx/operators/onnx__Col2Im.html
    """
    x, y = op.x(0), op.y()
    block = Leaf("block", x.shape[1] // y.shape[1])
    yield Equal(x.axis(0), y.axis(0))
    yield Equal(x.axis(1), Product((y.axis(1), block)))
    yield Zero(y.axis(1), (x.axis(1),))
    for axis in (block, *x.axes[2:], *y.axes[2:], *op.x(1).axes, *op.x(2).axes):
        yield Pin(axis, "blocks are laid out over the image")


@rule("GridSample")
def grid_sample(op: Op) -> Facts:
    """Channels pass, the grid counts the output's pixels.

    Source: https://onnx.ai/onnx/operators/onnx__GridSample.html
    """
    x, grid, y = op.x(0), op.x(1), op.y()
    yield from same(x, y, skip=range(2, x.rank))
    yield Equal(x.axis(0), grid.axis(0))
    for axis in (*x.axes[2:], *grid.axes[1:], *y.axes[2:]):
        yield Pin(axis, SAMPLED)


@rule("RoiAlign", "MaxRoiPool")
def roi(op: Op) -> Facts:
    """Channels pass; regions and pixels stay.

    Source: https://onnx.ai/onnx/operators/onnx__RoiAlign.html
    """
    x, y = op.x(0), op.y()
    yield Equal(x.axis(1), y.axis(1))
    yield Zero(y.axis(1), (x.axis(1),))
    regions = [axis for operand in op.inputs[1:] if operand is not None for axis in operand.axes]
    for axis in (x.axis(0), y.axis(0), *x.axes[2:], *y.axes[2:], *regions):
        yield Pin(axis, "regions are cut out along it")


@rule("CenterCropPad")
def center_crop_pad(op: Op) -> Facts:
    """Axes that are not cropped or padded pass.

    Source: https://onnx.ai/onnx/operators/onnx__CenterCropPad.html
    """
    x, y = op.x(0), op.y()
    touched = [a % x.rank for a in op.attr("axes", range(x.rank))]
    yield from same(x, y, skip=touched)


@rule("Det")
def det(op: Op) -> Facts:
    """Determinants of the last two axes."""
    x, y = op.x(), op.y()
    for a, b in zip(x.axes[:-2], y.axes, strict=True):
        yield Equal(a, b)
        yield Zero(b, (a,))
    for axis in x.axes[-2:]:
        yield Pin(axis, "a determinant is taken over it")
