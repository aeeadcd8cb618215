"""float16 and bfloat16 graphs that every runtime takes: bodies too, and operators that have no such types."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from halpc.errors import ModelError
from passes.cast import cast
from passes.proto import bodies
from passes.runtime import session_of
from tests.small import model

X = np.random.default_rng(0).standard_normal((1, 3, 6, 6)).astype(np.float32)
WEIGHTS = {
    name: np.random.default_rng(i).standard_normal((4, 3, 1, 1)).astype(np.float32) for i, name in enumerate("wv")
}
NEAR = {"fp16": 5e-3, "bf16": 5e-2}
BRANCHES = """
<ir_version: 10, opset_import: ["" : 22]>
net (float[1, 3, 6, 6] x, bool flag) => (float[1, 4, 6, 6] y) {
    a = Relu (x)
    c = If (flag) <
        then_branch = t () => (float[1, 4, 6, 6] p) { p = Conv (a, w) },
        else_branch = e () => (float[1, 4, 6, 6] q) { q = Conv (a, v) }
    >
    y = Relu (c)
}
"""


def net(nodes: str, opset: int = 22, out: str = "float[1, 4, 6, 6]") -> onnx.ModelProto:
    text = f"""<ir_version: 10, opset_import: ["" : {opset}]> net (float[1, 3, 6, 6] x) => ({out} y) {{ {nodes} }}"""
    return model(text, WEIGHTS)


def near(before: onnx.ModelProto, precision: str, feeds: dict[str, np.ndarray]) -> onnx.ModelProto:
    after = cast(before, precision)
    theirs, ours = (session_of(each, optimise=False).run(None, feeds)[0] for each in (before, after))
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() <= NEAR[precision] * np.abs(theirs).max()
    return after


@pytest.mark.parametrize("precision", NEAR)
@pytest.mark.parametrize("inside", [False, True])
def test_bodies_have_the_precision_too(precision: str, inside: bool) -> None:
    before = model(BRANCHES, WEIGHTS)
    if inside:
        for body, name in zip(list(bodies(before.graph.node)), "wv", strict=True):
            body.initializer.append(next(t for t in before.graph.initializer if t.name == name))
        del before.graph.initializer[:]
    for flag in (True, False):
        after = near(before, precision, {"x": X, "flag": np.array(flag)})
    graphs = (after.graph, *bodies(after.graph.node))
    kinds = {tensor.data_type for graph in graphs for tensor in graph.initializer}
    assert kinds == {TensorProto.FLOAT16 if precision == "fp16" else TensorProto.BFLOAT16}


@pytest.mark.parametrize(("nodes", "kept"), [
    ("c = Conv (x, w)  s = Celu (c)  y = Relu (s)", {"fp16": "Celu", "bf16": "Celu"}),
    ("c = Conv (x, w)  s = Shrink <lambd = 0.1> (c)  y = Relu (s)", {"fp16": "", "bf16": "Shrink"}),
    ("c = Conv (x, w)  y = MeanVarianceNormalization (c)", {"fp16": "MeanVarianceNormalization"}),
])  # fmt: skip
@pytest.mark.parametrize("precision", NEAR)
def test_operators_that_lack_the_type_stay_float32(nodes: str, kept: dict[str, str], precision: str) -> None:
    after = near(net(nodes), precision, {"x": X})
    casts = [node for node in after.graph.node if node.op_type == "Cast"]
    assert (len(casts) > 2) == bool(kept.get(precision, "its inner type"))


def test_a_region_that_resize_does_not_read_is_no_bfloat16() -> None:
    before = net("c = Conv (x, w)  y = Resize (c, roi, scales)", out="float[1, 4, 12, 12]")
    before.graph.initializer.extend([
        numpy_helper.from_array(np.zeros(0, np.float32), "roi"),
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"),
    ])  # fmt: skip
    near(before, "bf16", {"x": X})


def test_what_no_runtime_would_take_is_refused() -> None:
    before = net("c = Conv (x, w)  y = Relu (c)")
    before.graph.node[0].domain = "com.microsoft.nchwc"
    before.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    with pytest.raises(ModelError, match="hand over the file as it was before onnxruntime optimised it"):
        cast(before, "fp16")
    text = "c = Conv (x, w)  o = Optional (c)  g = OptionalGetElement (o)  y = Relu (g)"
    before = net(text)
    before.graph.node[1].attribute.append(
        helper.make_attribute(
            "type", helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
        )
    )
    with pytest.raises(ModelError, match="the result is not valid"):
        cast(before, "fp16")
