"""A model's constants as numbers: read as float64, written back in their own type, without copying the rest.

A constant is an initializer, or what a DequantizeLinear makes of one (`passes/recovery/grids.py`), known by its output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from passes.proto import reads
from passes.recovery.grids import Grid, grids_of

Array = NDArray[np.float64]


class Constants:
    """Initializers of `model`, and who reads what in its graph.

    Args:
        model: changed in place by `put` and `attach`.
        original: the model before pruning, for its shapes.
    """

    def __init__(self, model: onnx.ModelProto, original: onnx.ModelProto | None = None) -> None:
        self.model = model
        self._items = {item.name: item for item in model.graph.initializer}
        self._grids: dict[str, Grid] = grids_of(model)
        source = original or model
        self._original = {item.name: tuple(item.dims) for item in source.graph.initializer}
        self._original_nodes = {name: node for node in source.graph.node for name in node.output}
        self._readers: dict[str, list[int]] = {}
        for index, node in enumerate(model.graph.node):
            for name in reads(node):
                self._readers.setdefault(name, []).append(index)
        self._outputs = {value.name for value in model.graph.output}

    def has(self, name: str) -> bool:
        """Whether `name` is a constant."""
        return name in self._items or name in self._grids

    def quantised(self, name: str) -> bool:
        """Whether what is put there is rounded to a grid."""
        return name in self._grids

    def source(self, name: str) -> str:
        """The initializer that holds a constant."""
        return self._grids[name].source if name in self._grids else name

    def get(self, name: str) -> Array:
        """Its value in float64."""
        stored = numpy_helper.to_array(self._items[self.source(name)])
        return self._grids[name].decoded(stored) if name in self._grids else stored.astype(np.float64)

    def put(self, name: str, value: Array) -> None:
        """Replaces its value, keeping its element type."""
        value = self._grids[name].encoded(value) if name in self._grids else value
        item = self._items[self.source(name)]
        kind = numpy_helper.to_array(item).dtype
        item.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, dtype=kind), item.name))

    def read_back(self, name: str, write: Callable[[], None], read: Callable[[], Array]) -> Array:
        """What `read` gives after `write` changed `name`, which is then as it was before."""
        item = self._items[self.source(name)]
        before = item.SerializeToString()
        write()
        found = read()
        item.ParseFromString(before)
        return found

    def attach(self, node: int, position: int, name: str, value: Array, *, like: str) -> None:
        """Adds an initializer of the type of `like` and makes it input `position` of `node`."""
        while name in self._items or name in self._readers:
            name += "_"
        item = numpy_helper.from_array(value.astype(self.dtype(like)), name)
        self.model.graph.initializer.append(item)
        self._items[name] = self.model.graph.initializer[-1]
        inputs = self.model.graph.node[node].input
        inputs.extend([""] * (position + 1 - len(inputs)))
        inputs[position] = name

    def node(self, index: int) -> onnx.NodeProto:
        """Node `index` of the graph."""
        return self.model.graph.node[index]

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes of a constant."""
        return tuple(self._items[self.source(name)].dims)

    def original_shape(self, name: str) -> tuple[int, ...]:
        """Sizes of a constant before pruning."""
        return self._original[self.source(name)]

    def original_groups(self, output: str) -> int:
        """`group` of the original's node that makes `output`."""
        return int(next((item.i for item in self._original_nodes[output].attribute if item.name == "group"), 1))

    def dtype(self, name: str) -> np.dtype[Any]:
        """Element type of a constant as its readers see it."""
        if name in self._grids:
            return np.dtype(np.float32)
        kind: np.dtype[Any] = np.dtype(helper.tensor_dtype_to_np_dtype(self._items[name].data_type))
        return kind

    def factor(self, node: int, attribute: str) -> float:
        """A Gemm's `alpha` or `beta`; 1 for other nodes."""
        return float(next((item.f for item in self.node(node).attribute if item.name == attribute), 1.0))

    def uses(self, name: str) -> int:
        """How many nodes read a tensor; a graph output counts as one more."""
        return len(self._readers.get(name, ())) + (name in self._outputs)

    def only_reader(self, name: str) -> int | None:
        """The one node that reads a tensor, if it is one."""
        readers = self._readers.get(name, [])
        return readers[0] if self.uses(name) == 1 and readers else None

    def added_constant(self, tensor: str, width: int) -> tuple[int, int] | None:
        """The Add of a constant of `width` entries that alone reads `tensor`: its index and the constant's position."""
        reader = self.only_reader(tensor)
        if reader is None or self.node(reader).op_type != "Add":
            return None
        for position, name in enumerate(self.node(reader).input):
            own = self.has(name) and self.uses(name) == 1
            if own and self.shape(name)[-1:] == (width,) and int(np.prod(self.shape(name))) == width:
                return reader, position
        return None
