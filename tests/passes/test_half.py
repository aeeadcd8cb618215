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


@pytest.mark.parametrize(("op", "attributes", "kept"), [
    ("Celu", "", {"fp16", "bf16"}), ("Shrink", "<lambd = 0.1>", {"bf16"}), ("MeanVarianceNormalization", "", {*NEAR}),
])  # fmt: skip
@pytest.mark.parametrize("precision", NEAR)
def test_operators_that_lack_the_type_stay_float32(op: str, attributes: str, kept: set[str], precision: str) -> None:
    after = near(net(f"c = Conv (x, w)  s = {op} {attributes} (c)  y = Relu (s)"), precision, {"x": X})
    node = next(node for node in after.graph.node if node.op_type == op)
    casts = {node.output[0]: node.attribute[0].i for node in after.graph.node if node.op_type == "Cast"}
    assert (casts.get(node.input[0]) == TensorProto.FLOAT) == (precision in kept)
    relu = next(node for node in after.graph.node if node.op_type == "Relu")
    assert (relu.input[0] in casts) == (precision in kept)


def test_a_body_may_make_what_is_called_as_something_outside() -> None:
    text = BRANCHES.replace("p = Conv (a, w)", "s = Conv (a, w)  p = Relu (s)").replace(
        "y = Relu (c)", "s = Neg (c)  y = Relu (s)"
    )
    near(model(text, WEIGHTS), "fp16", {"x": X, "flag": np.array(True)})


@pytest.mark.parametrize("where", ["body", "constant"])
def test_weights_beyond_float16_are_refused_wherever_they_are(where: str) -> None:
    before = model(BRANCHES, WEIGHTS)
    large = numpy_helper.from_array(np.full((4, 3, 1, 1), 1e6, np.float32), "w")
    del before.graph.initializer[1 if before.graph.initializer[1].name == "w" else 0]
    if where == "body":
        next(bodies(before.graph.node)).initializer.append(large)
    else:
        before.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=large))
    with pytest.raises(ModelError, match="'w' reaches 1e"):
        cast(before, "fp16")
    cast(before, "bf16")


def test_what_the_converter_cannot_do_in_bodies_is_refused_with_the_reason() -> None:
    twice = model(BRANCHES.replace("(a, v)", "(a, w)"), {})
    for body in bodies(twice.graph.node):
        body.initializer.append(numpy_helper.from_array(WEIGHTS["w"], "w"))
    with pytest.raises(ModelError, match=r"weights in its bodies \(If, Loop, Scan\) have one name"):
        cast(twice, "fp16")
    kept = model(BRANCHES.replace("p = Conv (a, w)", "s = Conv (a, w)  p = Celu (s)"), WEIGHTS)
    with pytest.raises(ModelError, match=r"operators in bodies \(If, Loop, Scan\) that have no such type"):
        cast(kept, "fp16")


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
    with pytest.raises(ModelError, match="onnxruntime's converter makes no valid graph of it"):
        cast(before, "fp16")
