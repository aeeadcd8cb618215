"""Many models in one: they compute what they computed, and layer names tell them apart."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from halpc.errors import ModelError
from profilers.bundle import bundle, is_aside, owners


def scale(factor: float, opset: int = 17) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : {opset}]>
        g (float[2] x) => (float[2] y) <float k = {{{factor}}}> {{ y = Mul(x, k) }}
    """)


def test_bundled_models_keep_their_own_inputs_and_results() -> None:
    merged = bundle([scale(2.0), scale(3.0), scale(5.0)])
    onnx.checker.check_model(merged, full_check=True)
    session = onnxruntime.InferenceSession(merged.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.array([1.0, -1.0], np.float32)
    results = session.run(None, {f"v{i}:x": x * (i + 1) for i in range(3)})
    assert [float(y[0]) for y in results] == [2.0, 6.0, 15.0]


def test_bundling_leaves_its_models_alone() -> None:
    model = scale(2.0)
    before = model.SerializeToString()
    bundle([model, model])
    assert model.SerializeToString() == before


def test_nameless_nodes_are_named_after_their_output() -> None:
    assert [node.name for node in bundle([scale(2.0), scale(3.0)]).graph.node] == ["v0:y", "v1:y"]


def test_different_operator_sets_cannot_be_bundled() -> None:
    with pytest.raises(ModelError, match="operator sets"):
        bundle([scale(2.0, 17), scale(2.0, 18)])


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("v3:conv + v3:relu", {3}),
        ("Reformatting CopyNode for Input Tensor 0 to v12:conv", {12}),
        ("{ForeignNode[v1:a...v2:b]}", {1, 2}),
        ("conv:v", set()),
        ("rev3:conv", set()),
        ("v1:block_v2:0/v3:conv + v1:v2:relu", {1}),
    ],
)
def test_layer_names_tell_their_models(layer: str, expected: set[int]) -> None:
    assert owners(layer) == expected


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("v0:halpc_aside_pad", True),
        ("v0:halpc_aside_a + v0:conv", False),
        ("v0:conv", False),
        ("copy", False),
    ],
)
def test_scaffolding_is_a_layer_of_scaffolding_only(layer: str, expected: bool) -> None:
    assert is_aside(layer) is expected
