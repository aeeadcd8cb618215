"""Large weights lie beside the proto, and everything computes and says what it did with them inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from passes.bare import Bare, is_stub, parted, whole, without_weights
from passes.load import load
from passes.proto import bare_of, check_model, proto_of
from passes.runtime import session_of
from passes.verification.noise import nudge_weights

WIDE = 256
BRANCHING = """
    <ir_version: 8, opset_import: ["" : 17]> g (float[2, 256] x, bool on) => (float[2, 256] y) {
        a = MatMul (x, w)
        y = If (on) <
            then_branch = t () => (float[2, 256] p) { p = MatMul (a, w) },
            else_branch = e () => (float[2, 256] q) { q = MatMul (a, v) }
        >
    }
"""


def numbers(seed: int, kind: type[np.generic] = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((WIDE, WIDE)).astype(kind)


def model(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    made = onnx.parser.parse_model(text)
    made.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in weights.items())
    return made


def inlined(proto: onnx.ModelProto) -> list[np.ndarray]:
    """What onnxruntime makes of the model from its bytes alone."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds(session)))


def feeds(session: object) -> dict[str, np.ndarray]:
    x = np.random.default_rng(9).standard_normal((2, WIDE)).astype(np.float32)
    return {v.name: x if v.name == "x" else np.array(True) for v in session.get_inputs()}  # type: ignore[attr-defined]


PLAIN = '<ir_version: 8, opset_import: ["" : 17]> g (float[2, 256] x) => (float[2, 256] y) { y = MatMul (x, w) }'
GIVEN_OUT = PLAIN.replace("(float[2, 256] y)", "(float[2, 256] y, float[256, 256] w)")
OVERRIDABLE = PLAIN.replace("(float[2, 256] x)", "(float[2, 256] x, float[256, 256] w)")


@pytest.mark.parametrize(
    "proto",
    [
        pytest.param(model(PLAIN, w=numbers(0)), id="plain"),
        pytest.param(model(PLAIN, w=numbers(0), unread=numbers(1)), id="one that nothing reads"),
        pytest.param(model(GIVEN_OUT, w=numbers(0)), id="one that is an output"),
        pytest.param(model(BRANCHING, w=numbers(0), v=numbers(1)), id="read in bodies"),
    ],
)
def test_a_session_computes_bit_by_bit_what_one_of_the_whole_model_does(proto: onnx.ModelProto) -> None:
    session = session_of(proto, optimise=False)
    for ours, theirs in zip(session.run(None, feeds(session)), inlined(proto), strict=True):
        assert np.array_equal(ours, theirs)


def test_a_weight_that_may_be_fed_may_still_be() -> None:
    session = session_of(model(OVERRIDABLE, w=numbers(0)))
    x = np.ones((2, WIDE), np.float32)
    assert not np.array_equal(session.run(None, {"x": x})[0], session.run(None, {"x": x, "w": numbers(1)})[0])


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int32, np.int8, np.uint16, np.int64])
def test_every_type_that_numpy_has_lies_beside(kind: type[np.generic]) -> None:
    values = np.tile(numbers(0) * 100, (2, 1)).astype(kind)
    proto = model(PLAIN.replace("MatMul (x, w)", "Cast <to = 1> (w)").replace("[2, 256] y", "[512, 256] y"), w=values)
    assert is_stub(parted(proto).proto.graph.initializer[0])
    session = session_of(proto, optimise=False)
    assert np.array_equal(session.run(None, feeds(session))[0], values.astype(np.float32))


def test_parting_and_joining_leave_a_model_as_it_was() -> None:
    proto = model(BRANCHING, w=numbers(0), v=numbers(1), small=np.ones(3, np.float32))
    before = proto.SerializeToString(deterministic=True)
    assert whole(parted(proto)).SerializeToString(deterministic=True) == before
    assert proto.SerializeToString(deterministic=True) == before


def test_what_else_is_said_of_a_weight_stays() -> None:
    proto = model(PLAIN, w=numbers(0))
    proto.graph.initializer[0].doc_string = "trained in a hurry"
    assert not is_stub(parted(proto).proto.graph.initializer[0])


def test_weights_of_a_graph_are_not_copied(tmp_path: Path) -> None:
    onnx.save(model(PLAIN, w=numbers(0)), tmp_path / "model.onnx")
    graph = load(tmp_path / "model.onnx").graph
    (held,) = (tensor.values for tensor in graph.tensors().values() if tensor.name == "w")
    assert bare_of(graph).weights["w"] is held
    assert np.array_equal(numpy_helper.to_array(proto_of(graph).graph.initializer[0]), numbers(0))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_a_nudge_is_the_same_wherever_the_weight_is(kind: type[np.floating]) -> None:
    text = PLAIN.replace("MatMul (x, w)", "Gemm (x, w, c)")
    proto = model(text, w=numbers(0, kind), c=np.array(1.5, np.float32))
    inside, beside = Bare(without_weights(proto), {}), parted(proto)
    inside.proto.graph.initializer.extend(proto.graph.initializer)
    nudge_weights(inside)
    nudge_weights(beside)
    assert whole(beside) == inside.proto
    drawn = np.random.default_rng(0).random((WIDE, WIDE), dtype=np.float32)
    expected = numbers(0, kind) * (1 + np.finfo(kind).eps * (2 * drawn - 1))
    assert np.array_equal(numpy_helper.to_array(inside.proto.graph.initializer[0]), expected.astype(kind))
    assert numpy_helper.to_array(inside.proto.graph.initializer[1]) != np.float32(1.5)


def test_the_checker_sees_a_model_without_its_weights() -> None:
    proto = model(PLAIN, w=numbers(0))
    check_model(parted(proto).proto)
    check_model(proto, full_check=True)
    proto.graph.node.append(helper.make_node("MatMul", ["x"], ["z"]))
    with pytest.raises(onnx.checker.ValidationError):
        check_model(proto)
