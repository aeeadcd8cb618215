"""Matrix products, spelled as such or as an Einsum."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from passes.rules.elementwise import behind
from passes.rules.language import Axis, Contract, Equal, Facts, Op, Operand, Pin, Zero, rule

SUMS = "a matrix product sums over it"


@rule("Gemm")
def gemm(op: Op) -> Facts:
    """y = a·b + c: a's columns meet b's rows, y has a's rows and b's columns.

    Source: https://onnx.ai/onnx/operators/onnx__Gemm.html
    """
    a, b, y = op.x(0), op.x(1), op.y()
    rows, inner_a = (1, 0) if op.attr("transA", 0) else (0, 1)
    inner_b, columns = (1, 0) if op.attr("transB", 0) else (0, 1)
    yield Contract((a.axis(inner_a), b.axis(inner_b)), SUMS)
    yield Equal(a.axis(rows), y.axis(0))
    yield Equal(b.axis(columns), y.axis(1))
    c = op.maybe(2)
    if c is None or op.attr("beta", 1.0) == 0:
        yield Zero(y.axis(0), (a.axis(rows),))
        yield Zero(y.axis(1), (b.axis(columns),))
    if c is not None:
        yield from _addend(c, y, (a.axis(rows), b.axis(columns)))


@rule("FusedGemm", domain="com.microsoft")
def fused_gemm(op: Op) -> Facts:
    """activation(Gemm).

    Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """
    yield from behind(op, gemm(op))


def _addend(c: Operand, y: Operand, product: tuple[Axis, Axis]) -> Facts:
    """c broadcasts to y; a result is zero where the product and the addend are."""
    for back in (1, 2):
        axis = y.axis(-back)
        if c.rank >= back and c.shape[-back] == axis.size:
            yield Equal(c.axis(-back), axis)
            yield Zero(axis, (product[-back], c.axis(-back)))


@rule("MatMul")
def matmul(op: Op) -> Facts:
    """a[…, m, k] · b[…, k, n] = y[…, m, n] with broadcast batch axes; 1-D operands lose their unit axis.

    Source: https://onnx.ai/onnx/operators/onnx__MatMul.html
    """
    a, b = op.x(0), op.x(1)
    yield from product(a.axes, b.axes, op.y().axes)


@rule("FusedMatMul", domain="com.microsoft")
def fused_matmul(op: Op) -> Facts:
    """MatMul whose operands may be transposed, in their last two axes or with a batch axis second to last.

    Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.FusedMatMul
    """
    sides = []
    for operand, letter in ((op.x(0), "A"), (op.x(1), "B")):
        axes = list(operand.axes)
        if op.attr(f"transBatch{letter}", 0) and len(axes) > 2:
            axes = [*axes[1:-1], axes[0], axes[-1]]
        if op.attr(f"trans{letter}", 0) and len(axes) > 1:
            axes[-2:] = axes[:-3:-1]
        sides.append(tuple(axes))
    yield from product(sides[0], sides[1], op.y().axes)


def product(a: Sequence[Axis], b: Sequence[Axis], y: Sequence[Axis]) -> Facts:
    """Facts of numpy's matmul, for every operator that is one inside."""
    yield Contract((a[-1], b[-2 if len(b) > 1 else 0]), SUMS)
    tail = 0
    if len(b) > 1:
        tail += 1
        yield Equal(b[-1], y[-1])
        yield Zero(y[-1], (b[-1],))
    if len(a) > 1:
        tail += 1
        yield Equal(a[-2], y[-tail])
        yield Zero(y[-tail], (a[-2],))
    for back in range(tail + 1, len(y) + 1):
        axis = y[-back]
        drop = back - tail + 2
        along = tuple(x[-drop] for x in (a, b) if len(x) >= drop and x[-drop].size == axis.size)
        for other in along:
            yield Equal(other, axis)
        yield Zero(axis, along, any=True)


@rule("Einsum")
def einsum(op: Op) -> Facts:
    """Every letter is an axis: equal wherever it stands, summed away where the result lacks it.

    Source: https://onnx.ai/onnx/operators/onnx__Einsum.html
    """
    operands, result = [x for x in op.inputs if x is not None], op.y()
    terms, target = _terms(str(op.attr("equation")), [x.rank for x in operands], result.rank)
    places: dict[str, list[Axis]] = {}
    for operand, term in zip(operands, terms, strict=True):
        for axis, letter in zip(operand.axes, term, strict=True):
            places.setdefault(letter, []).append(axis)
        for axis, letter in zip(operand.axes, term, strict=True):
            if term.count(letter) > 1:
                yield Pin(axis, "a diagonal is taken along it")
    for letter, axes in places.items():
        long = tuple(axis for axis in axes if axis.size != 1)
        if letter not in target and long:
            yield Contract(long, SUMS)
            continue
        for axis in long:
            yield Equal(axis, result.axis(target.index(letter)))
        if long:
            yield Zero(result.axis(target.index(letter)), long, any=True)


def _terms(equation: str, ranks: list[int], rank: int) -> tuple[list[str], str]:
    """One letter per axis: ellipses get letters of their own, an implicit result is made explicit."""
    left, arrow, right = re.sub(r"\s", "", equation).partition("->")
    terms = left.split(",")
    spare = [c for c in string.ascii_letters + "αβγδεζηθικλμνξοπρστυφχψω" if c not in equation]
    widths = [n - len(t.replace("...", "")) for n, t in zip(ranks, terms, strict=True)]
    batch = "".join(spare[: max(widths)])

    def spelled(term: str, n: int) -> str:
        own = n - len(term.replace("...", ""))
        return term.replace("...", batch[len(batch) - own :])

    terms = [spelled(term, n) for term, n in zip(terms, ranks, strict=True)]
    if arrow:
        return terms, spelled(right, rank)
    letters = "".join(terms)
    return terms, batch + "".join(sorted(c for c in set(letters) if letters.count(c) == 1 and c not in batch))
