"""Small networks for the latency model's tests, loaded and coupled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from passes.couple import couple
from passes.load import load

CHAIN = """
<ir_version: 9, opset_import: ["": 17]>
chain (float[1,3,16,16] x) => (float[1,10] y)
<float[32,3,3,3] w1, float[64,32,3,3] w2, float[64,64,3,3] w3, float[64,1,3,3] wd, float[64,64,1,1] w4, float[10,64] wf>
{
  [first] a1 = Conv <pads = [1,1,1,1]> (x, w1)
  [first_relu] a2 = Relu (a1)
  [second] a3 = Conv <pads = [1,1,1,1]> (a2, w2)
  [second_relu] a4 = Relu (a3)
  [third] a5 = Conv <pads = [1,1,1,1]> (a4, w3)
  [third_relu] a6 = Relu (a5)
  [depthwise] a7 = Conv <pads = [1,1,1,1], group = 64> (a6, wd)
  [last] a8 = Conv (a7, w4)
  [sum] a9 = Add (a8, a4)
  [sum_relu] a10 = Relu (a9)
  [pool] a11 = GlobalAveragePool (a10)
  [flat] a12 = Flatten (a11)
  [head] y = Gemm <transB = 1> (a12, wf)
}
"""

BRANCHES = """
<ir_version: 9, opset_import: ["": 17]>
branches (float[1,8,8,8] x) => (float[1,4,8,8] y)
<float[16,8,1,1] wa, float[24,8,1,1] wb, float[4,40,1,1] wc>
{
  [left] a = Conv (x, wa)
  [right] b = Conv (x, wb)
  [join] c = Concat <axis = 1> (a, b)
  [out] y = Conv (c, wc)
}
"""


def prepared(text: str, folder: Path) -> tuple[Model, Coupling]:
    """The model with random weights, loaded from a file, and its coupling."""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    inputs = {value.name for value in proto.graph.input}
    for value in [v for v in proto.graph.value_info if v.name not in inputs]:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        values = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, value.name))
    del proto.graph.value_info[:]
    path = folder / "model.onnx"
    onnx.save(proto, path)
    model = load(path)
    return model, couple(model.twin)
