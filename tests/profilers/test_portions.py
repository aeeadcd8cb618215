"""Small models are measured together as far as memory bears it, at any batch size."""

from __future__ import annotations

import onnx

from profilers.portions import arrays_bytes, portions, weights_bytes


def relu(batch: int, kind: str = "float") -> onnx.ModelProto:
    return onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["": 17]>
        g ({kind}[{batch},64,56,56] x) => ({kind}[{batch},64,56,56] y) {{ y = Relu (x) }}
    """)


def biased() -> onnx.ModelProto:
    model = relu(1)
    model.graph.initializer.append(onnx.helper.make_tensor("b", onnx.TensorProto.DOUBLE, [10, 10], [0.0] * 100))
    return model


def test_inputs_and_outputs_count_at_their_types_size() -> None:
    assert arrays_bytes(relu(2)) == 2 * 2 * 64 * 56 * 56 * 4
    assert arrays_bytes(relu(2, "float16")) == 2 * 2 * 64 * 56 * 56 * 2
    assert weights_bytes(biased()) == 800


def test_a_large_batch_makes_portions_small_and_keeps_the_order() -> None:
    few = list(portions([relu(256)] * 12, 128))
    assert [len(part) for part in few] == [5, 5, 2]
    assert [len(part) for part in portions([relu(1)] * 12, 128)] == [12]
    assert [len(part) for part in portions([relu(1)] * 5, 2)] == [2, 2, 1]


def test_a_model_beyond_the_limit_is_a_portion_of_its_own() -> None:
    assert [len(part) for part in portions([relu(1), relu(8192), relu(1)], 128)] == [1, 1, 1]
    assert [len(part) for part in portions([biased(), biased(), biased()], 128, weights=1000)] == [1, 1, 1]
    assert [len(part) for part in portions([biased(), biased(), biased()], 128, weights=1600)] == [2, 1]
    assert list(portions([], 128)) == []
