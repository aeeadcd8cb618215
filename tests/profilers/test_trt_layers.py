"""What an engine says about itself, in the spellings of several versions."""

from __future__ import annotations

import json

import pytest

from halpc.errors import BackendError
from profilers import trt_layers


def layer(kind: str = "CaskConvolution", *, tensor: str = "", weights: str = "", name: str = "c") -> dict[str, object]:
    described = {"Name": name, "LayerType": kind, "Inputs": [{"Name": "x", "Format/Datatype": tensor}]}
    return described | ({"Weights": {"Type": weights, "Count": 9}} if weights else {})


@pytest.mark.parametrize(
    ("tensor", "weights", "expected"),
    [
        ("Row major linear FP32", "", "fp32"),
        ("Channel major FP16 format where channel % 8 == 0", "", "fp16"),
        ("Half", "", "fp16"),
        ("Float", "", "fp32"),
        ("BFloat16", "", "bf16"),
        ("Row major linear BF16 format", "", "bf16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "", "int8"),
        ("FP8", "", "fp8"),
        ("E4M3", "", "fp8"),
        ("Row major linear FP32", "Int8", "int8"),
        ("N/A due to dynamic shapes", "", None),
    ],
)
def test_precision_is_read_in_every_spelling(tensor: str, weights: str, expected: str | None) -> None:
    assert trt_layers.precision_of(layer(tensor=tensor, weights=weights)) == expected


def test_only_computing_layers_count() -> None:
    layers = [
        layer(weights="Half"),
        layer("Reformat", tensor="Float"),
        layer("PoolingV2", tensor="Float"),
        layer("gemm", tensor="Half"),
    ]
    assert trt_layers.precisions(layers) == {"fp16": 2}


def test_an_engine_without_the_precision_is_refused() -> None:
    with pytest.raises(BackendError, match=r"m.engine was to be fp16.*they are 3 fp32"):
        trt_layers.check_precision("fp16", {"fp32": 3}, "m.engine")


def test_mixed_precision_is_told_and_tf32_is_float32() -> None:
    assert "2 fp16, 1 fp32" in trt_layers.check_precision("fp16", {"fp16": 2, "fp32": 1}, "m")
    assert "3 fp32" in trt_layers.check_precision("tf32", {"fp32": 3}, "m")


def test_an_engine_that_does_not_tell_is_not_refused() -> None:
    assert "do not tell" in trt_layers.check_precision("fp16", {"unknown": 2}, "m")


def test_an_engine_that_tells_only_in_part_is_not_refused() -> None:
    assert "1 fp32, 2 unknown" in trt_layers.check_precision("fp16", {"fp32": 1, "unknown": 2}, "m")


def test_control_characters_in_names_are_read() -> None:
    text = '{"Layers": [{"Name": "c", "Metadata": "[ONNX Layer: a]\x1f[ONNX Layer: b]"}]}'
    assert trt_layers.nodes_of(trt_layers.layers_of(text)[0]) == ("a", "b")


def test_fused_nodes_come_from_the_metadata() -> None:
    described = {
        "Name": "conv + relu",
        "Metadata": "[ONNX Layer: conv]\x1e[ONNX Layer: relu]\x1e[ONNX Layer: conv]",
    }
    assert trt_layers.nodes_of(described) == ("conv", "relu")


def test_layers_are_read_with_or_without_detail() -> None:
    assert trt_layers.layers_of(json.dumps({"Layers": ["a", {"Name": "b"}]})) == [
        {"Name": "a"},
        {"Name": "b"},
    ]
    assert trt_layers.layers_of("") == []
