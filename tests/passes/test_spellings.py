"""What files say in more than one way: read as onnxruntime reads it, constants folded to what onnxruntime computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from halpc.errors import ModelError
from halpc.ir.model import Model
from passes.load import load
from passes.proto import proto_of
from passes.verify import verify_reading
from tests.small import model, saved, weights

X = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
PLAIN = """
<ir_version: 9, opset_import: ["" : 17]>
net (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) { c = Conv <kernel_shape = [1, 1]> (x, w)  y = Relu (c) }
"""
WEIGHT = weights({"w": (4, 3, 1, 1)})
THINNED = WEIGHT["w"] * (np.arange(12).reshape(4, 3, 1, 1) % 3 != 0)
CALLING = """
<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
net (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) { c = Conv <kernel_shape = [1, 1]> (x, w)  y = own.Outer (c) }
<opset_import: ["" : 17], domain: "own">
Inner <alpha: float = 0.3, beta: float = 0.7> (a) => (b)
{ l = LeakyRelu <alpha: float = @alpha> (a)  b = Elu <alpha: float = @beta> (l) }
<opset_import: ["" : 17, "own" : 1], domain: "own">
Outer <beta: float = 2.5> (a) => (b) { b = own.Inner <beta: float = @beta> (a) }
"""


def of(proto: onnx.ModelProto | Path) -> list[np.ndarray]:
    session = ort.InferenceSession(str(proto) if isinstance(proto, Path) else proto.SerializeToString())
    return list(session.run(None, {"x": X}))


def same(path: Path) -> None:
    """What load makes of a file computes what onnxruntime makes of it."""
    for theirs, ours in zip(of(path), of(proto_of(load(path).graph)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        assert np.abs(theirs).max() > 0


def sparse(by_axis: bool, raw: bool, name: str = "w") -> onnx.SparseTensorProto:
    at = np.argwhere(THINNED) if by_axis else np.flatnonzero(THINNED)
    values = THINNED[THINNED != 0]
    typed = helper.make_tensor(name, TensorProto.FLOAT, values.shape, values.tolist())
    return helper.make_sparse_tensor(
        numpy_helper.from_array(values, name) if raw else typed,
        numpy_helper.from_array(at.astype(np.int64)),
        [4, 3, 1, 1],
    )


def same_as_thinned(read: Model) -> None:
    dense = of(model(PLAIN, {"w": THINNED}))
    np.testing.assert_allclose(of(proto_of(read.graph))[0], dense[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("by_axis", [False, True])
@pytest.mark.parametrize("raw", [False, True])
def test_sparse_weights_are_read_as_what_they_hold(tmp_path: Path, by_axis: bool, raw: bool) -> None:
    proto = model(PLAIN, {})
    proto.graph.sparse_initializer.append(sparse(by_axis, raw))
    path = saved(tmp_path, proto)
    same_as_thinned(load(path))


def test_sparse_constants_are_read_as_what_they_hold(tmp_path: Path) -> None:
    proto = model(PLAIN, {})
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["w"], "weight", sparse_value=sparse(True, True)))
    assert np.count_nonzero(load(saved(tmp_path, proto)).graph.tensors()["w"].values) == 8


def test_sparse_constants_of_functions_are_read_as_what_they_hold(tmp_path: Path) -> None:
    proto = model(
        """<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
        net (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) { c = own.Layer (x)  y = Relu (c) }
        <opset_import: ["" : 17], domain: "own">
        Layer (a) => (b) { b = Conv <kernel_shape = [1, 1]> (a, w) }""",
        {},
    )
    held = helper.make_node("Constant", [], ["w"], "weight", sparse_value=sparse(True, True))
    proto.functions[0].node.insert(0, held)
    read = load(saved(tmp_path, proto))  # onnxruntime 1.32 reads such a file from freed memory: it is no reference
    same_as_thinned(read)
    verify_reading(read, {})


@pytest.mark.parametrize("at", [[0, 99], [-1, 5]])
def test_a_sparse_weight_whose_indices_do_not_fit_is_refused_by_name(tmp_path: Path, at: list[int]) -> None:
    proto = model(PLAIN, {})
    found = sparse(False, True)
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    found.CopyFrom(helper.make_sparse_tensor(values, numpy_helper.from_array(np.array(at)), [4, 3, 1, 1]))
    proto.graph.sparse_initializer.append(found)
    with pytest.raises(ModelError, match="sparse weight w: its indices do not fit its shape"):
        load(saved(tmp_path, proto))


def test_a_sparse_weight_beyond_memory_is_refused_by_name(tmp_path: Path) -> None:
    proto = model(PLAIN, {})
    found = sparse(False, True)
    found.dims[:] = [1 << 40, 3, 1, 1]
    proto.graph.sparse_initializer.append(found)
    with pytest.raises(ModelError, match=r"sparse weight w has shape .*no memory holds"):
        load(saved(tmp_path, proto))


@pytest.mark.parametrize(("values", "at", "dims", "said"), [
    ([1.0, 2.0], [0.5, float("nan")], [4, 3, 1, 1], "its indices are no int64"),
    ([b"a", b"b"], [0, 1], [4, 3, 1, 1], "holds no numbers"),
    ([1.0, 2.0], [0, 1], [-4, -3, 1, 1], "which no memory holds"),
    ([1.0], [0, 1, 99], [4, 3, 1, 1], "its indices do not fit its shape"),
])  # fmt: skip
def test_a_sparse_weight_that_is_none_is_refused_by_name(
    tmp_path: Path, values: list[Any], at: list[float], dims: list[int], said: str
) -> None:
    proto = model(PLAIN, {})
    held = numpy_helper.from_array(np.array(values, np.float32 if isinstance(values[0], float) else object), "w")
    indices = np.array(at, np.float32 if 0.5 in at else np.int64)
    proto.graph.sparse_initializer.add().values.CopyFrom(held)
    proto.graph.sparse_initializer[0].indices.CopyFrom(numpy_helper.from_array(indices))
    proto.graph.sparse_initializer[0].dims.extend(dims)
    with pytest.raises(ModelError, match=f"sparse weight w.*{said}"):
        load(saved(tmp_path, proto))


def test_what_a_damaged_file_calls_its_tensors_and_types_is_refused(tmp_path: Path) -> None:
    good = model(PLAIN, WEIGHT).SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(good.replace(b"/net/c/Conv", b"/net/\xff/Conv"))
    with pytest.raises(ModelError, match="in it is no text; the file is damaged"):
        load(path)
    for proto in (model(PLAIN, WEIGHT), model(PLAIN, {})):
        if proto.graph.initializer:
            proto.graph.input[0].type.tensor_type.elem_type = 62
        else:
            held = numpy_helper.from_array(WEIGHT["w"])
            held.data_type = 62
            proto.graph.node.insert(0, helper.make_node("Constant", [], ["w"], "weight", value=held))
        with pytest.raises(ModelError, match="has the unknown element type 62"):
            load(saved(tmp_path, proto))


WRONGLY_CALLED = """
<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
net (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) { c = Conv <kernel_shape = [1, 1]> (x, w)  y = own.Outer (c, c) }
<opset_import: ["" : 17], domain: "own">
Outer (a) => (b) { b = Relu (a) }
"""
WRONGLY_EXPANDED = """
<ir_version: 9, opset_import: ["" : 17]>
net (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) <int64[4] to = {4, -3, 2, 5}>
{ v = Expand (w, to)  y = Conv <kernel_shape = [1, 1]> (x, v) }
"""


def test_descriptions_that_are_no_text_are_dropped(tmp_path: Path) -> None:
    proto = model(PLAIN, WEIGHT)
    proto.doc_string = proto.graph.node[0].doc_string = "/home/??/model.py"
    proto.metadata_props.add(key="by", value="??")
    proto.metadata_props.add(key="at", value="noon")
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString().replace(b"??", b"\xe9\xff"))
    header = load(path).header
    assert {entry.key: entry.value for entry in header.metadata_props} == {"at": "noon"}
    assert not header.doc_string
    same(path)


def test_external_data_in_a_place_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model(PLAIN, WEIGHT), path, save_as_external_data=True, location="weights", size_threshold=0)
    path.write_bytes(path.read_bytes().replace(b"weights", b"w\xff\xffghts"))
    with pytest.raises(ModelError, match="in it is no text"):
        load(path)


def test_an_operand_that_a_function_lacks_is_named(tmp_path: Path) -> None:
    lacking = model(
        CALLING.replace("b = Elu <alpha: float = @beta> (l)", 'b = Einsum <equation = "ab,bc"> (l)'), WEIGHT
    )
    lacking.functions[0].node[-1].input.append("")
    with pytest.raises(ModelError, match=r"operand 1 of node .*\(Einsum\) is missing"):
        load(saved(tmp_path, lacking))


def test_what_only_onnxruntime_has_in_the_standard_domain_may_lack_operands(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 13]>
    net (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) <float[8] s = {1,1,1,1,1,1,1,1}>
    { c = Conv <kernel_shape = [1, 1]> (x, w)  y = LayerNormalization (c, s) }
    """
    proto = model(text, WEIGHT)
    proto.graph.node[-1].input.append("")  # onnxruntime 1.32 crashes there when it optimises
    read = load(saved(tmp_path, proto))
    assert [len(node.input) for node in proto_of(read.graph).graph.node] == [2, 2]
    assert verify_reading(read, {}) is None
    assert np.abs(of(proto_of(read.graph))[0]).max() > 0


def test_what_a_damaged_file_makes_of_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="its functions are not called as they are defined"):
        load(saved(tmp_path, model(WRONGLY_CALLED, WEIGHT)))
    with pytest.raises(ModelError, match="onnxruntime cannot run the model"):
        load(saved(tmp_path, model(WRONGLY_EXPANDED, WEIGHT)))


@pytest.mark.parametrize(("held", "dims", "said"), [
    (np.ones(3, np.float32), [2, 2], "its entries do not fit its shape"),
    (np.ones(3, np.int64), [-3], "has the shape"),
])  # fmt: skip
@pytest.mark.parametrize("where", ["function", "attribute", "initializer"])
def test_entries_that_do_not_fit_their_shape_are_refused(
    tmp_path: Path, held: np.ndarray, dims: list[int], said: str, where: str
) -> None:
    kind = helper.np_dtype_to_tensor_dtype(held.dtype)
    tensor = helper.make_tensor("odd", kind, held.shape, held.tolist())
    tensor.dims[:] = dims
    proto = model(CALLING, WEIGHT)
    if where == "initializer":
        proto.graph.initializer.append(tensor)
    else:
        of_ = proto.functions[0] if where == "function" else proto.graph
        of_.node.insert(0, helper.make_node("Constant", [], ["odd"], value=tensor))
    with pytest.raises(ModelError, match=f"weight odd.*{said}"):
        load(saved(tmp_path, proto))


def test_the_standard_domain_has_two_names(tmp_path: Path) -> None:
    proto = model(PLAIN, WEIGHT)
    for node in proto.graph.node:
        node.domain = "ai.onnx"
    loaded = load(saved(tmp_path, proto))
    assert [node.op for node in loaded.graph.nodes] == ["Conv", "Relu"]
    assert of(proto_of(loaded.graph))[0].tolist() == of(model(PLAIN, WEIGHT))[0].tolist()


def test_default_attributes_of_functions_are_those_of_their_calls(tmp_path: Path) -> None:
    same(saved(tmp_path, model(CALLING, WEIGHT)))


def test_weights_of_old_files_need_not_be_inputs(tmp_path: Path) -> None:
    proto = model(PLAIN, WEIGHT)
    proto.ir_version = 3
    same(saved(tmp_path, proto))


def test_outputs_without_a_shape_get_the_inferred_one(tmp_path: Path) -> None:
    proto = model(PLAIN, WEIGHT)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    path = saved(tmp_path, proto)
    same(path)
    assert load(path).graph.outputs[0].shape[1:] == [4, 8, 8]


def folded(text: str, opset: int, **arrays: np.ndarray) -> onnx.ModelProto:
    """A convolution, and a constant `k` of its output's shape that `text` computes, added."""
    return model(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        net (float[2, 3, 8, 8] x) => (float[2, 4, 8, 8] y)
        {{ c = Conv <kernel_shape = [1, 1]> (x, w)  {text}  y = Add (c, k) }}""",
        {**WEIGHT, **arrays},
    )


def constant(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


FOUR = {name: np.abs(constant(4)) + i for i, name in enumerate(("scale", "shift", "mean", "variance"))}
CASES: dict[str, Callable[[], onnx.ModelProto]] = {
    "BatchNormalization 9": lambda: folded(
        "k = BatchNormalization (p, scale, shift, mean, variance)", 9, p=constant(2, 4, 8, 8), **FOUR
    ),
    "Softmax 11": lambda: folded("k = Softmax <axis = 1> (p)", 11, p=constant(2, 4, 8, 8)),
    "LogSoftmax 9": lambda: folded("k = LogSoftmax <axis = 1> (p)", 9, p=constant(2, 4, 8, 8)),
    "LpNormalization": lambda: folded("k = LpNormalization <axis = 1, p = 1> (p)", 13, p=constant(2, 4, 8, 8)),
    "MaxPool": lambda: folded(
        'k = MaxPool <kernel_shape = [2, 2], strides = [2, 2], auto_pad = "SAME_LOWER"> (p)', 13,
        p=constant(2, 4, 15, 15),
    ),
    "Resize": lambda: folded(
        'k = Resize <mode = "nearest"> (p, none, sizes)', 13, p=constant(2, 4, 5, 5), none=np.zeros(0, np.float32),
        sizes=np.array([1, 1, 1.6, 1.6], np.float32),
    ),
    "Div": lambda: folded(
        "d = Div (p, q)  k = Cast <to = 1> (d)", 13, p=np.arange(-16, 16).reshape(1, 4, 1, 8), q=np.array([3])
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_constants_are_folded_to_what_onnxruntime_computes(tmp_path: Path, case: str) -> None:
    path = saved(tmp_path, CASES[case]())
    same(path)
    assert [node.op for node in load(path).graph.nodes] == ["Conv", "Add"]


def test_nodes_without_names_get_some_that_nobody_has(tmp_path: Path) -> None:
    """Index and operator may spell a name that another node has, before it or behind it."""
    proto = model(
        """<ir_version: 9, opset_import: ["" : 17]>
        net (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y)
        { a = Conv <kernel_shape = [1, 1]> (x, w)  b = Conv <kernel_shape = [1, 1]> (x, w)  c = Add (a, b)
          d = Conv <kernel_shape = [1, 1]> (x, w)  e = Add (c, d)  f = Conv <kernel_shape = [1, 1]> (x, w)
          y = Add (e, f) }""",
        WEIGHT,
    )
    for node, name in zip(proto.graph.node, ["Conv_3", "", "Add_2", "", "Conv_1", "Conv_1", ""], strict=True):
        node.name = name
    loaded = load(saved(tmp_path, proto))
    names = {node.outputs[0].name: node.name for node in loaded.graph.nodes}
    assert len(set(names.values())) == len(names)
    assert (names["a"], names["c"]) == ("Conv_3", "Add_2")
    assert "Conv_1" in (names["e"], names["f"])
    ort.InferenceSession(proto_of(loaded.graph, loaded.header).SerializeToString())


def test_whole_numbers_give_up_names_that_onnxruntimes_optimiser_gives(tmp_path: Path) -> None:
    proto = model(
        """<ir_version: 9, opset_import: ["" : 17]>
        net (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y)
        <int64[2] flat_token_3 = {-1, 64}, int64[4] back_token_11 = {-1, 4, 8, 8}> {
            c = Conv <kernel_shape = [1, 1]> (x, w_token_1)
            f = Reshape (c, flat_token_3)
            g = Reshape (f, back_token_11)
            y = Relu (g)
        }""",
        {"w_token_1": WEIGHT["w"]},
    )
    loaded = load(saved(tmp_path, proto))
    names = {tensor.name for tensor in proto_of(loaded.graph, loaded.header).graph.initializer}
    assert "w_token_1" in names
    assert not {"flat_token_3", "back_token_11"} & names
    assert of(proto_of(loaded.graph, loaded.header))[0] == pytest.approx(of(proto)[0])
