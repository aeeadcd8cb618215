"""Recurrences: the features that go in may shrink, and so may the hidden state.

A removed hidden channel feeds back through a column of R that is removed with it, so the others never see it.
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
    Op,
    Operand,
    Pin,
    Product,
    Zero,
    rule,
    same,
)

STEPS = "a recurrence runs along it"
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
PEEPHOLES = 3
KEPT = {"LSTM": 6, "GRU": 5}
"""The operand with the state that a gate carries over; an RNN carries none."""


@rule("LSTM", "GRU", "RNN")
def recurrence(op: Op) -> Facts:
    """x.features = w[:, :, features]; w and r have gates·hidden rows, r hidden columns; time, batch and gates stay.

    Source: https://onnx.ai/onnx/operators/onnx__LSTM.html
    """
    x, w, r = op.x(0), op.x(1), op.x(2)
    gates = GATES[op.type]
    hidden = r.axis(2)
    yield Contract((x.axis(2), w.axis(2)), "a recurrence sums over its input features")
    yield Contract((hidden,), "a recurrence sums over its hidden state")
    for operand, blocks in ((w, gates), (r, gates), (op.maybe(3), 2 * gates), (_peepholes(op), PEEPHOLES)):
        if operand is not None:
            gate = Leaf(f"gates of {operand.name}", blocks)
            yield Equal(operand.axis(1), Product((gate, hidden)))
            yield Pin(gate, "each is a gate of its own")
            yield Pin(operand.axis(0), STEPS)
    states = [o for o in (op.maybe(5), op.maybe(6), *op.outputs) if o is not None]
    for state in states:
        yield Equal(state.axis(-1), hidden)
    others = [*x.axes[:2], *(axis for state in states for axis in state.axes[:-1])]
    lengths = op.maybe(4)
    for axis in (*others, *(() if lengths is None else lengths.axes)):
        yield Pin(axis, STEPS)
    yield from _silent(op, w, r)
    yield Count(Attribute("hidden_size"), (hidden,))


def _peepholes(op: Op) -> Operand | None:
    return op.maybe(7) if op.type == "LSTM" else None


def _silent(op: Op, w: Operand, r: Operand) -> Facts:
    """Gates of zero give a state of zero with the usual activations: tanh(0) = 0, times or beside an old state of 0."""
    if "activations" in op.attributes:
        return
    sources: list[Axis] = [o.axis(1) for o in (w, r, op.maybe(3)) if o is not None]
    kept = op.maybe(KEPT.get(op.type, len(op.inputs)))
    if kept is not None:
        sources.append(kept.axis(-1))
    for y in op.outputs:
        if y is not None:
            yield Zero(y.axis(-1), tuple(sources))


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
