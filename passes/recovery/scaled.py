"""Matrix products of integers that are scaled to real numbers afterwards, as quantisation at run time leaves them.

    MatMulInteger → Cast → Mul by (scale found at run time · scale of the weight)
    MatMulIntegerToFloat, DynamicQuantizeMatMul                          the same in one node, with a bias or without

Source: ONNX operators MatMulInteger and DynamicQuantizeLinear;
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md for the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx

from passes.proto import reads


@dataclass(frozen=True, slots=True)
class Quantised:
    """A tensor of integers, its scale and its zero point, "" for zero."""

    tensor: str
    scale: str
    point: str


@dataclass(frozen=True, slots=True)
class Scaled:
    """A product of `left` and the weight `right` as real numbers, plus `bias` ("" for none).

    Attributes:
        node: that computes it in integers.
        result: the product as real numbers.
        inside: tensors between; nothing else reads them.
        unquantised: what `left` is to be quantised from at run time, "" where the model does that itself.
    """

    node: onnx.NodeProto
    left: Quantised
    right: Quantised
    result: str
    bias: str = ""
    inside: frozenset[str] = frozenset()
    unquantised: str = ""


def scaled_products(model: onnx.ModelProto) -> dict[str, Scaled]:
    """Result → product, of all whose parts are as described above."""
    makers = {name: node for node in model.graph.node for name in node.output}
    readers = {output.name: [onnx.NodeProto()] for output in model.graph.output}  # whoever reads outputs
    for node in model.graph.node:
        for name in reads(node):
            readers.setdefault(name, []).append(node)
    found = (product for node in model.graph.node for product in _products(node, makers, readers))
    return {product.result: product for product in found}


def _products(
    node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], readers: Mapping[str, list[onnx.NodeProto]]
) -> Iterator[Scaled]:
    """The one that `node` computes, if any."""
    given = [*node.input, *[""] * 7]
    if node.op_type == "MatMulIntegerToFloat":
        left, right = Quantised(given[0], given[2], given[4]), Quantised(given[1], given[3], given[5])
        yield Scaled(node, left, right, node.output[0], given[6])
    elif node.op_type == "DynamicQuantizeMatMul":
        made = f"{node.output[0]}.halpc_integers"
        left = Quantised(made, f"{made}_scale", f"{made}_point")
        yield Scaled(
            node, left, Quantised(given[1], given[2], given[3]), node.output[0], given[4], unquantised=given[0]
        )
    elif node.op_type == "MatMulInteger":
        cast = _only(readers, node.output[0], "Cast")
        last = _only(readers, cast.output[0], "Mul") if cast is not None else None
        quantiser = makers.get(given[0])
        if cast is None or last is None or quantiser is None or quantiser.op_type != "DynamicQuantizeLinear":
            return
        if cast.attribute[0].i != onnx.TensorProto.FLOAT:
            return
        scales = makers.get(next((name for name in last.input if name != cast.output[0]), ""))
        if scales is None or scales.op_type != "Mul" or quantiser.output[1] not in scales.input:
            return
        if list(given[:3:2]) != [quantiser.output[0], quantiser.output[2]]:
            return
        own = next((name for name in scales.input if name != quantiser.output[1]), "")
        left, right = Quantised(given[0], quantiser.output[1], given[2]), Quantised(given[1], own, given[3])
        yield Scaled(node, left, right, last.output[0], inside=frozenset({node.output[0], cast.output[0]}))


def _only(readers: Mapping[str, list[onnx.NodeProto]], tensor: str, op: str) -> onnx.NodeProto | None:
    """The node of type `op` that alone reads `tensor`, once."""
    found = readers.get(tensor, [])
    return found[0] if len(found) == 1 and found[0].op_type == op else None
