"""Recurrences: the features that go in may shrink; hidden states feed back into themselves and stay."""

from __future__ import annotations

from passes.rules.language import Contract, Facts, Op, Pin, rule, same

HIDDEN = "a recurrence feeds its hidden state back"


@rule("LSTM", "GRU", "RNN")
def recurrence(op: Op) -> Facts:
    """x.features = w[:, :, features]; time, batch, gates and hidden state stay.

    Source: https://onnx.ai/onnx/operators/onnx__LSTM.html
    """
    x, w = op.x(0), op.x(1)
    yield Contract((x.axis(2), w.axis(2)), "a recurrence sums over its input features")
    others = [o for o in (*op.inputs[2:], *op.outputs) if o is not None]
    for axis in (*x.axes[:2], *w.axes[:2], *(axis for operand in others for axis in operand.axes)):
        yield Pin(axis, HIDDEN)


@rule("ReverseSequence")
def reverse_sequence(op: Op) -> Facts:
    """Time and batch stay, the other axes pass.

    Source: https://onnx.ai/onnx/operators/onnx__ReverseSequence.html
    """
    x, y = op.x(0), op.y()
    yield from same(x, y)
    for name, usual in (("time_axis", 0), ("batch_axis", 1)):
        yield Pin(x.axis(int(op.attr(name, usual))), "sequences are reversed along it")
    for axis in op.x(1).axes:
        yield Pin(axis, "it counts the steps of each sequence")
