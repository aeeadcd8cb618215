"""Reductions and what else looks along a whole axis: exact for sums of zeros, pinned for everything else."""

from __future__ import annotations

from passes.rules.language import Contract, Equal, Facts, Mean, Op, Pin, Zero, rule, same

SUMS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
OTHERS = ("ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp")


def _reduced(op: Op) -> list[int] | None:
    """The axes that disappear (or become 1), or None if they are not known."""
    rank = op.x().rank
    axes = op.ints("axes", 1)
    if axes is None:
        if op.maybe(1) is not None:
            return None
        axes = [] if op.attr("noop_with_empty_axes", 0) else list(range(rank))
    elif not axes and not op.attr("noop_with_empty_axes", 0):
        axes = list(range(rank))
    return sorted(a % rank for a in axes)


def _kept(op: Op, reduced: list[int]) -> Facts:
    """The other axes pass through."""
    x, y = op.x(), op.y()
    kept = [i for i in range(x.rank) if i not in reduced]
    places = kept if op.attr("keepdims", 1) else range(len(kept))
    for source, target in zip(kept, places, strict=True):
        yield Equal(x.axis(source), y.axis(target))
        if op.type == "ReduceLogSum":
            yield Pin(x.axis(source), "ReduceLogSum is not finite at zero")
        elif op.type != "ReduceLogSumExp":
            yield Zero(y.axis(target), (x.axis(source),))


@rule(*SUMS)
def sums(op: Op) -> Facts:
    """A sum does not change when entries that are zero go."""
    reduced = _reduced(op)
    if reduced is None:
        return
    yield from _kept(op, reduced)
    for i in reduced:
        yield Contract((op.x().axis(i),), f"{op.type} adds it up")


@rule("ReduceMean")
def mean(op: Op) -> Facts:
    """A mean is a sum over a count: entries that are zero may go while the old count still divides.

    Source: https://onnx.ai/onnx/operators/onnx__ReduceMean.html
    """
    reduced = _reduced(op)
    if reduced is not None:
        yield from _kept(op, reduced)
        yield Mean(tuple(op.x().axis(i) for i in reduced), "a mean is taken over it")


@rule(*OTHERS)
def others(op: Op) -> Facts:
    """An extremum depends on a zero, a product too: the axis stays."""
    reduced = _reduced(op)
    if reduced is None:
        return
    yield from _kept(op, reduced)
    for i in reduced:
        yield Pin(op.x().axis(i), f"{op.type} looks along it")


@rule("CumSum")
def cumulative_sum(op: Op) -> Facts:
    """Partial sums do not change when entries that are zero go. Only a known axis can be spoken of.

    Source: https://onnx.ai/onnx/operators/onnx__CumSum.html
    """
    x, y, along = op.x(0), op.y(), op.x(1).ints()
    if along is None:
        return
    yield from same(x, y, skip=(along[0],))
    yield Equal(x.axis(along[0]), y.axis(along[0]))
    yield Contract((x.axis(along[0]),), "CumSum adds it up")


@rule("CumProd")
def cumulative_product(op: Op) -> Facts:
    """A removed zero would end every product behind it: the axis stays."""
    x, along = op.x(0), op.x(1).ints()
    if along is not None:
        yield from same(x, op.y())
        yield Pin(x.axis(along[0]), "CumProd multiplies it up")


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(op: Op) -> Facts:
    """The axis is pinned: the result depends on how many entries there are. Before opset 13 all axes behind too.

    Source: https://onnx.ai/onnx/operators/onnx__Softmax.html
    """
    x, y = op.x(), op.y()
    axis = int(op.attr("axis", -1 if op.opset >= 13 else 1)) % max(x.rank, 1)
    spread = range(axis, x.rank) if op.opset < 13 else (axis,)
    for a, b in zip(x.axes, y.axes, strict=True):
        yield Equal(a, b)
        if a.index in spread:
            yield Pin(a, f"{op.type} runs along it")


@rule("ArgMax", "ArgMin")
def arg_extremum(op: Op) -> Facts:
    """The axis is pinned, the others pass through."""
    x, y = op.x(), op.y()
    reduced = int(op.attr("axis", 0)) % x.rank
    yield Pin(x.axis(reduced), f"{op.type} looks along it")
    kept = [i for i in range(x.rank) if i != reduced]
    for source, target in zip(kept, kept if op.attr("keepdims", 1) else range(len(kept)), strict=True):
        yield Equal(x.axis(source), y.axis(target))
