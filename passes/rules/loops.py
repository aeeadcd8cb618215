"""Loops: what is carried from step to step is the same before, in, and behind the body."""

from __future__ import annotations

from passes.rules.language import Body, Equal, Facts, Op, Pin, Zero, rule, same

CARRIED = 2  # the first operand that is carried, behind how often and whether


@rule("Loop")
def loop(op: Op) -> Facts:
    """x = the body's input = its output = y for what is carried; what is collected has an axis of steps in front.

    The nodes of the body speak for themselves. What is carried unchanged, as weights are, is zero where it was before.
    Where the body is closed to halpc, everything that it reads stays.

    Source: https://onnx.ai/onnx/operators/onnx__Loop.html
    """
    if op.body is None:
        for operand in (*op.inputs, *op.outputs):
            for axis in operand.axes if operand is not None else ():
                yield Pin(axis, "its body sees it (Loop)")
        return
    for x in op.inputs[:CARRIED]:
        for axis in x.axes if x is not None else ():
            yield Pin(axis, "it tells how often a loop runs")
    yield from _carried(op, op.body)
    count = len(op.inputs) - CARRIED
    for y, step in zip(op.outputs[count:], op.body.outputs[1 + count :], strict=False):
        if y is not None and step is not None:
            yield Pin(y.axis(0), "a loop runs along it")
            for a, b in zip(y.axes[1:], step.axes, strict=True):
                yield Equal(a, b)


def _carried(op: Op, body: Body) -> Facts:
    before, results = op.inputs[CARRIED:], [*op.outputs, *[None] * len(op.inputs)]
    for x, start, end, y in zip(before, body.inputs[CARRIED:], body.outputs[1:], results, strict=False):
        assert x is not None
        assert start is not None
        assert end is not None
        constant = start.name == end.name
        yield from same(x, start, zero=constant)
        yield from same(start, end, zero=False)
        if y is not None:
            yield from same(start, y, zero=False)
            for a, b in zip(x.axes, y.axes, strict=True):
                if constant:
                    yield Zero(b, (a,))
