"""One operator, one row: a node with its operands, and what its axes are to each other.

    Row("Concat", "f2,3 f4,3", "a,b c,b -> a+c,b", axis=0)

Operands: `f` float data, `i`/`b` integer or truth data from outside, `w` a float weight, `q`/`u` data quantised
to int8/uint8 with zero point 3, `k`/`n` an int8/int32 weight, `j` positions 0 and 1 and `m` int32 numbers that are
computed from data, then the sizes; `_` is absent, `#` a literal.
Axes: one letter per leaf; `!` pinned; `1` of one entry; `+`, `·` and brackets for sums and products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from passes.feeds import random_feeds
from passes.runtime import session_of

QUANTISED = {"q": np.int8, "u": np.uint8}
INTEGER_WEIGHTS = {"k": np.int8, "n": np.int32}
KINDS = {
    "f": TensorProto.FLOAT,
    "w": TensorProto.FLOAT,
    "i": TensorProto.INT64,
    "b": TensorProto.BOOL,
    "u": TensorProto.UINT64,
}
Literal = NDArray[Any]
COMPUTED = "jm"
SEPARATE = 100  # between the numbers of quantised operands and of the floats behind them


@dataclass(frozen=True)
class Row:
    """A node and what is expected of it.

    Attributes:
        op: operator type, with its domain where that is not ONNX's own.
        operands: as above; `literals` fill the places marked `#`.
        says: axes of operands and outputs.
        literals: constant operands, in order.
        outputs: how many.
        opset: of the model.
        runs: whether onnxruntime has a kernel to check the numbers with.
        attributes: of the node.
    """

    op: str
    operands: str
    says: str
    literals: tuple[Any, ...] = ()
    outputs: int = 1
    opset: int = 18
    runs: bool = True
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Domain and type, as in the rule table."""
        domain, _, type_ = self.op.rpartition("::")
        return domain, type_


def row(
    op: str,
    operands: str,
    says: str,
    *literals: Any,
    outputs: int = 1,
    opset: int = 18,
    runs: bool = True,
    **attributes: Any,
) -> Row:
    """A row, its attributes as keywords."""
    return Row(op, operands, says, literals, outputs, opset, runs, attributes)


class Bench:
    """A model around a node: every axis of its data is free, all that comes out is weighed and added up.

    Args:
        moved: an operand that is not zero where it is removed, though the others are.
    """

    def __init__(self, row: Row, seed: int = 0, moved: int = -1) -> None:
        self.moved = moved
        self.row = row
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = [helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1])]
        self.weights: list[onnx.TensorProto] = []
        self.sizes: dict[str, tuple[int, ...]] = {}

    def weight(self, name: str, value: NDArray[Any]) -> str:
        """An initializer."""
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def add(self, type_: str, inputs: list[str], outputs: list[str], **attributes: Any) -> str:
        """A node; gives its first output."""
        self.nodes.append(helper.make_node(type_, inputs, outputs, name=f"n{len(self.nodes)}", **attributes))
        return outputs[0]

    def operand(self, index: int, word: str, literals: list[Any], zero: bool) -> str:
        """The operand's name, after making it."""
        name = f"x{index}"
        if word == "_":
            return ""
        if word == "#":
            return self.weight(name, np.asarray(literals.pop(0)))
        kind, shape = word[0], tuple(int(n) for n in word[1:].split(",") if n)
        if kind in INTEGER_WEIGHTS:
            return self.weight(name, self.rng.integers(-100, 100, shape).astype(INTEGER_WEIGHTS[kind]))
        values = (np.abs(self.rng.standard_normal(shape)) + 0.5).astype(np.float32)
        if kind == "w":
            return self.weight(name, values)
        if kind in QUANTISED:
            scale = self.weight(f"s{index}", np.float32(0.02))
            point = self.weight(f"z{index}", np.array(3, QUANTISED[kind]))
            data = self.operand(index + SEPARATE, f"f{word[1:]}", [], zero)
            return self.add("QuantizeLinear", [data, scale, point], [name])
        if kind in COMPUTED:
            data = self.operand(index + SEPARATE, f"f{word[1:]}", [], zero)
            if kind == "m":
                larger = self.add("Mul", [data, self.weight(f"g{index}", np.float32(100))], [f"{name}_larger"])
                return self.add("Cast", [larger], [name], to=TensorProto.INT32)
            chosen = self.add("Greater", [data, self.weight(f"b{index}", np.float32(0.3))], [f"{name}_chosen"])
            return self.add("Cast", [chosen], [name], to=TensorProto.INT64)
        if kind != "f":
            self.inputs.append(helper.make_tensor_value_info(name, KINDS[kind], shape))
            return name
        zero = zero and index % SEPARATE != self.moved
        scaled = self.add("Mul", ["scale", self.weight(f"w{index}", values)], [name if zero else f"{name}_scaled"])
        return scaled if zero else self.add("Add", [scaled, self.weight(f"c{index}", np.float32([0.25]))], [name])

    def model(self, *, zero: bool = True, weighed: bool = True, bare: int = -1) -> onnx.ModelProto:
        """The model. `zero`: what is removed arrives as zero; `weighed`: outputs meet weights before they are added.

        Output `bare` meets none in any case.
        """
        literals = list(self.row.literals)
        names = [self.operand(i, word, literals, zero) for i, word in enumerate(self.row.operands.split())]
        outputs = [f"y{i}" for i in range(self.row.outputs)]
        domain, type_ = self.row.key
        self.nodes.append(helper.make_node(type_, names, outputs, name="it", domain=domain, **self.row.attributes))
        shapes = self._shapes(outputs)
        results = [self._added_up(y, shapes[y], weighed and i != bare) for i, y in enumerate(outputs)]
        return self._proto([helper.make_tensor_value_info(r, TensorProto.FLOAT, []) for r in results])

    def _added_up(self, y: str, value: onnx.ValueInfoProto, weighed: bool) -> str:
        kind = value.type.tensor_type.elem_type
        if kind != TensorProto.FLOAT:
            y = self.add("Cast", [y], [f"{y}_float"], to=TensorProto.FLOAT)
        if weighed:
            shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
            factors = self.weight(f"{y}_factors", self.rng.standard_normal(shape).astype(np.float32))
            y = self.add("Mul", [y, factors], [f"{y}_weighed"])
        return self.add("ReduceSum", [y], [f"{y}_sum"], keepdims=0)

    def _shapes(self, outputs: list[str]) -> dict[str, onnx.ValueInfoProto]:
        model = self._proto([onnx.ValueInfoProto(name=y) for y in outputs])
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        found = {v.name: v for v in (*inferred.graph.output, *inferred.graph.value_info)}
        tensors = [found[y].type.tensor_type for y in outputs]
        known = all(t.HasField("shape") and all(d.HasField("dim_value") for d in t.shape.dim) for t in tensors)
        return found if known else self._observed(model)

    def _observed(self, model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
        """What onnxruntime makes, where onnx cannot tell."""
        session = session_of(model, optimise=False)
        shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in self.inputs}
        names = [o.name for o in session.get_outputs()]
        values = session.run(names, random_feeds(session, shapes))
        types = [helper.np_dtype_to_tensor_dtype(v.dtype) for v in values]
        infos = [helper.make_tensor_value_info(n, t, v.shape) for n, t, v in zip(names, types, values, strict=True)]
        return {info.name: info for info in infos}

    def _proto(self, outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "row", self.inputs, outputs, self.weights)
        opsets = [helper.make_opsetid("", self.row.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)
