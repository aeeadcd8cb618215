"""A network under construction: nodes, weights, and the shape of every tensor so far."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

OPSET = 18
OPSETS = [helper.make_opsetid("", OPSET)]


class Network:
    """Grows node by node; `pool` holds the tensors that later nodes may read.

    Args:
        seed: decides everything.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.dynamic = bool(self.rng.random() < 0.3)
        self.open = self.dynamic and bool(self.rng.random() < 0.5)
        """Height and width are dynamic as well."""
        self.batch = 1 if self.dynamic else int(self.rng.integers(1, 3))
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}
        self.types: dict[str, onnx.TypeProto] = {}
        self.pool: list[str] = []
        self.read: set[str] = set()
        self.inputs = {"image": (self.batch, self.pick(3, 4), self.pick(4, 6), self.pick(4, 6))}
        for name, shape in self.inputs.items():
            self.types[name] = helper.make_tensor_type_proto(TensorProto.FLOAT, shape)

    def pick(self, *choices: Any) -> Any:
        """One of `choices`."""
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, share: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < share)

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes of a tensor."""
        return tuple(d.dim_value for d in self.types[name].tensor_type.shape.dim)

    def weight(self, *shape: int, scale: float | None = None) -> str:
        """A random weight, scaled to keep magnitudes."""
        fan = max(int(np.prod(shape[1:])), 1)
        values = self.rng.standard_normal(shape) * (scale if scale is not None else 1.0 / np.sqrt(fan))
        return self.literal(np.asarray(values + (0.1 if scale is None else 0.0), dtype=np.float32))

    def literal(self, value: Any) -> str:
        """An initializer."""
        name = f"c{len(self.weights)}"
        array: NDArray[Any] = np.asarray(value)
        self.weights[name] = numpy_helper.from_array(array, name)
        self.types[name] = helper.make_tensor_type_proto(self.weights[name].data_type, array.shape)
        return name

    def ints(self, *values: int) -> str:
        """A vector of integers."""
        return self.literal(np.array(values, dtype=np.int64))

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """A node; gives its (first) output. Raises where onnx finds no shapes: the caller tries something else."""
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        node = helper.make_node(op, list(inputs), names, name=f"{op}_{len(self.nodes)}", **attributes)
        schema = onnx.defs.get_schema(op, OPSET, "")
        types = {n: self.types[n] for n in inputs if n}
        data = {n: self.weights[n] for n in inputs if n in self.weights}
        found = shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=OPSETS)
        for name in names:
            dims = found[name].tensor_type.shape.dim
            if not found[name].tensor_type.HasField("shape") or any(d.dim_value < 1 for d in dims):
                raise ValueError(f"{op}: no shape")
        self.types.update(found)
        self.nodes.append(node)
        self.read.update(inputs)
        return names[0]

    def all_of(self, first: str) -> list[str]:
        """All outputs of the node that makes `first`."""
        return list(next(n for n in self.nodes if first in n.output).output)

    def target(self, source: str, *sizes: int) -> str:
        """A Reshape target; sizes that are the batch, or the operand's at open sizes, are computed."""
        if not self.dynamic or sizes[0] % self.batch:
            return self.ints(*sizes)
        batch = self._size("image", 0)
        if sizes[0] != 1:
            batch = self.add("Mul", batch, self.ints(sizes[0]))
            self.types[batch] = helper.make_tensor_type_proto(TensorProto.INT64, [1])
        return self.add("Concat", batch, *self._sizes(source, sizes[1:]), axis=0)

    def _sizes(self, source: str, sizes: tuple[int, ...]) -> list[str]:
        """Literals; where sizes are open, what is as long as an axis of the operand behind channels is read there."""
        axes = {n: axis for axis, n in enumerate(self.shape(source)) if axis > 1} if self.open else {}
        return [self._size(source, axes[n]) if n in axes else self.ints(n) for n in sizes]

    def _size(self, source: str, axis: int) -> str:
        size = self.add("Gather", self.add("Shape", source), self.ints(axis))
        self.types[size] = helper.make_tensor_type_proto(TensorProto.INT64, [1])
        return size

    def model(self, outputs: list[str]) -> onnx.ModelProto:
        """The whole; a dynamic batch is written as N, open sizes as H and W."""
        inputs = []
        for name, shape in self.inputs.items():
            sizes: list[Any] = ["N", *shape[1:]] if self.dynamic else list(shape)
            sizes[2:] = ["H", "W"] if self.open else sizes[2:]
            inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes))
        results = [onnx.ValueInfoProto(name=o, type=self._loose(o)) for o in outputs]
        graph = helper.make_graph(self.nodes, "fuzz", inputs, results, list(self.weights.values()))
        return helper.make_model(graph, opset_imports=OPSETS, ir_version=10)

    def _loose(self, name: str) -> onnx.TypeProto:
        kind = self.types[name].tensor_type.elem_type
        return helper.make_tensor_type_proto(kind, [None] * len(self.shape(name)) if self.dynamic else self.shape(name))
