"""Reading and writing the values of graphsurgeon constants: no second copy in memory, no change of type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import helper, numpy_helper

LITERALS = ("int64", "bool")  # what counts or points, and is rewritten where it is used: no weights


def array_of(tensor: gs.Constant) -> NDArray[Any]:
    """The constant's entries; read from the file's bytes each time, so that nothing stays in memory twice."""
    lazy = tensor._values
    if isinstance(lazy, np.ndarray):
        return lazy
    return np.asarray(numpy_helper.to_array(lazy.tensor))


def constants(graph: gs.Graph) -> Iterator[gs.Constant]:
    """Every constant that a graph and the bodies in it read; bodies have copies of what is read outside too."""
    found = {id(t): t for each in (graph, *graph.subgraphs(recursive=True)) for t in each.tensors().values()}
    return (tensor for tensor in found.values() if isinstance(tensor, gs.Constant))


def distinct(graph: gs.Graph) -> Iterator[gs.Constant]:
    """The same without copies; bodies may have constants of one name that differ."""
    return iter({(tensor.name, id(tensor._values)): tensor for tensor in constants(graph)}.values())


def is_weight(tensor: gs.Tensor) -> bool:
    """Whether a constant is no literal, by its type."""
    return dtype_name(tensor.dtype) not in LITERALS


def put(tensor: gs.Constant, values: NDArray[Any]) -> None:
    """Replace the constant's entries.

    Types that numpy lacks (bfloat16, float8, int4) are kept as onnx packs them: graphsurgeon's exporter would
    write one byte per int4 and takes one float8 for another.
    """
    values = np.asarray(values, order="C")
    if values.dtype.isbuiltin == 1:
        tensor.values = values
        tensor.export_dtype = None
        return
    tensor.values = gs.ir.tensor.LazyValues(numpy_helper.from_array(values, tensor.name))


def bytes_of(dtype: Any) -> float:
    """Bytes of one element of a tensor's type; a half for the four-bit ones, eight where it is unknown."""
    name = dtype_name(dtype)
    if name.startswith(("int4", "uint4", "float4")):
        return 0.5
    return float(np.dtype(name).itemsize) if name not in ("unknown", "object", "str") else 8.0


def dtype_name(dtype: Any) -> str:
    """Name of a tensor's type: numpy's where it has one, else `bfloat16`, `float8_e4m3fn`, `int4`, …"""
    if dtype is None:
        return "unknown"
    if isinstance(dtype, int):
        return "unknown" if dtype == 0 else str(helper.tensor_dtype_to_np_dtype(dtype).name)
    try:
        return str(np.dtype(dtype).name)
    except TypeError:
        return str(dtype)
