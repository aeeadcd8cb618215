"""Small models in ONNX text, saved to files, for tests of whole stages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

Arrays = dict[str, np.ndarray]

RESIDUAL = """
<ir_version: 9, opset_import: ["" : 17]>
net (float[N, 3, 8, 8] x) => (float[N, 5] y)
{
    a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w0, b0)
    r = Relu (a)
    c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r, w1, b1)
    d = Relu (c)
    e = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (d, w2, b2)
    s = Add (e, r)
    t = Relu (s)
    g = GlobalAveragePool (t)
    f = Flatten <axis = 1> (g)
    y = Gemm <transB = 1> (f, w3, b3)
}
"""
SHAPES = {"w0": (16, 3, 3, 3), "b0": (16,), "w1": (24, 16, 3, 3), "b1": (24,), "w2": (16, 24, 3, 3), "b2": (16,),
          "w3": (5, 16), "b3": (5,)}  # fmt: skip


def weights(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Arrays:
    """Random weights that keep activations near one."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)
        for name, shape in shapes.items()
    }


def model(text: str = RESIDUAL, arrays: Arrays | None = None) -> onnx.ModelProto:
    """The parsed text with initializers; nodes are named after their outputs."""
    proto = onnx.parser.parse_model(text)
    for name, values in (weights(SHAPES) if arrays is None else arrays).items():
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    for node in proto.graph.node:
        node.name = node.name or f"/net/{node.output[0]}/{node.op_type}"
    return proto


def saved(folder: Path, proto: onnx.ModelProto | None = None, name: str = "model.onnx") -> Path:
    """The model (the residual network by default) as a file."""
    path = folder / name
    onnx.save(proto if proto is not None else model(), str(path))
    return path
