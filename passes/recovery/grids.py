"""Quantised weights as numbers: what stands behind a DequantizeLinear of an initializer, and what can be stored there.

    initializer (integers or float8) → DequantizeLinear → layer     written back as such
    initializer (floats) → QuantizeLinear → DequantizeLinear → layer     written back as floats on the grid

Scales and zero points stay as they are: the calibration that chose them, and the bias whose scale is their product,
depend on them. What lies beyond the grid is clipped, which the choice of a refit on held-back inputs sees.

Source: ONNX operators QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from passes.casting.float8 import FLOAT8
from passes.proto import reads

Array = NDArray[np.float64]
INTEGERS = frozenset({"int8", "uint8", "int16", "uint16", "int32"})
FLOATS = frozenset(str(helper.tensor_dtype_to_np_dtype(kind).name) for kind in FLOAT8)


@dataclass(frozen=True, slots=True)
class Grid:
    """A dequantised initializer.

    Attributes:
        source: the initializer.
        scale: float64, shaped so that it broadcasts against the initializer.
        zero: of the same shape, the zero points.
        kind: the type of the quantised numbers, of INTEGERS or FLOATS.
        quantised: whether the initializer itself holds the quantised numbers.
    """

    source: str
    scale: Array
    zero: Array
    kind: np.dtype[Any]
    quantised: bool

    def decoded(self, stored: NDArray[Any]) -> Array:
        """Numbers that the layer sees."""
        steps = stored.astype(np.float64)
        return ((steps if self.quantised else self._steps(steps)) - self.zero) * self.scale

    def encoded(self, value: Array) -> Array:
        """What to store so that the layer sees the nearest numbers."""
        steps = self._steps(value)
        return steps if self.quantised else (steps - self.zero) * self.scale

    def _steps(self, value: Array) -> Array:
        if self.kind.name in FLOATS:
            largest = float(ml_dtypes.finfo(self.kind).max)
            return np.clip(value / self.scale, -largest, largest).astype(self.kind).astype(np.float64)
        limits = np.iinfo(self.kind)
        return np.clip(np.rint(value / self.scale) + self.zero, limits.min, limits.max)


def grids_of(model: onnx.ModelProto) -> dict[str, Grid]:
    """Per output of a DequantizeLinear that decodes an initializer alone."""
    items = {item.name: item for item in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, int] = {}
    for node in model.graph.node:
        for name in reads(node):
            readers[name] = readers.get(name, 0) + 1
    found = {}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        before = makers.get(node.input[0])
        fake = (
            before is not None and before.op_type == "QuantizeLinear" and list(before.input[1:]) == list(node.input[1:])
        )
        source = before.input[0] if fake and before is not None else node.input[0]
        if readers.get(source, 0) == 1 == readers.get(node.input[0], 0) and source in items:
            grid = _grid(node, items, source, before if fake else None)
            if grid is not None:
                found[node.output[0]] = grid
    return found


def _grid(
    node: onnx.NodeProto, items: Mapping[str, onnx.TensorProto], source: str, before: onnx.NodeProto | None
) -> Grid | None:
    """None where scales are no constants, come in blocks or are not above zero, or numbers are packed four-bit ones.

    Args:
        node: a DequantizeLinear.
        source: the initializer that it decodes.
        before: the QuantizeLinear between, if any.
    """
    said = {item.name: item.i for item in node.attribute}
    names = [name for name in node.input[1:] if name]
    if said.get("block_size", 0) or not all(name in items for name in names):
        return None
    arrays = [numpy_helper.to_array(items[name]) for name in names]
    if not (arrays[0] > 0).all():
        return None
    stored = numpy_helper.to_array(items[source])
    point = arrays[1] if len(arrays) > 1 else np.zeros_like(arrays[0], dtype=_without_point(before))
    kind = stored.dtype if before is None else point.dtype
    if kind.name not in INTEGERS | FLOATS or (before is not None and stored.dtype != np.float32):
        return None
    along = said.get("axis", 1) % max(stored.ndim, 1)
    shape = [-1 if axis == along else 1 for axis in range(stored.ndim)] if arrays[0].size > 1 else [1] * stored.ndim
    return Grid(
        source,
        arrays[0].astype(np.float64).reshape(shape),
        point.astype(np.float64).reshape(shape),
        kind,
        before is None,
    )


def _without_point(quantises: onnx.NodeProto | None) -> np.dtype[Any]:
    """What a QuantizeLinear without a zero point gives: uint8, or what its `output_dtype` says."""
    said = next((item.i for item in quantises.attribute if item.name == "output_dtype"), 0) if quantises else 0
    return np.dtype(helper.tensor_dtype_to_np_dtype(said)) if said else np.dtype(np.uint8)
