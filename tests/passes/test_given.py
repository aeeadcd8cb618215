"""Inputs that always have one value: the branch that they decide is part of the network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from halpc.cli import main
from halpc.errors import UsageError
from halpc.units import parse_values
from passes.load import load
from passes.proto import proto_of
from passes.runtime import session_of

X = np.random.default_rng(1).standard_normal((2, 6)).astype(np.float32)


def branch(tag: str, width: int) -> onnx.GraphProto:
    rng = np.random.default_rng(width)
    weights = [
        numpy_helper.from_array(rng.standard_normal((6, width)).astype(np.float32), "up"),
        numpy_helper.from_array(rng.standard_normal((width, 4)).astype(np.float32), "down"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "up"], ["hidden"], name="first"),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "down"], [f"{tag}_y"], name="second"),
    ]
    return helper.make_graph(nodes, tag, [], [onnx.ValueInfoProto(name=f"{tag}_y")], weights)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Sixteen hidden channels at a rate of 16000, ten at any other."""
    nodes = [
        helper.make_node("Equal", ["rate", "high"], ["is_high"]),
        helper.make_node("If", ["is_high"], ["y"], then_branch=branch("a", 16), else_branch=branch("b", 10), name="by"),
    ]
    ports = [("x", TensorProto.FLOAT, [2, 6]), ("rate", TensorProto.INT64, []), ("open", TensorProto.INT64, ["N"])]
    graph = helper.make_graph(
        nodes,
        "rates",
        [helper.make_tensor_value_info(*port) for port in ports],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
        [numpy_helper.from_array(np.int64(16000), "high")],
    )
    path = tmp_path / "rates.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("rate, width", [(16000, 16), (8000, 10)])
def test_the_branch_that_a_value_decides_is_pruned_and_the_inputs_stay(network: Path, rate: int, width: int) -> None:
    out = network.parent / "out"
    assert main(["compile", str(network), "--macs", "50%", "--set", f"rate={rate}", "-o", str(out), "-q"]) == 0
    (group,) = json.loads((out / "report.json").read_text())["groups"]
    assert group["size"] == width
    session = session_of(onnx.load(out / "pruned.onnx"), optimise=False)
    assert [value.name for value in session.get_inputs()] == ["x", "rate", "open"]
    feeds = {"x": X, "rate": np.array(rate), "open": np.zeros(3, np.int64)}
    assert session.run(None, feeds)[0].shape == (2, 4)


def test_what_is_not_cut_computes_what_the_file_computes_at_that_value(network: Path) -> None:
    feeds = {"x": X, "rate": np.array(16000), "open": np.zeros(3, np.int64)}
    before = session_of(onnx.load(network), optimise=False).run(None, feeds)[0]
    model = load(network, values={"rate": 16000})
    assert np.array_equal(before, session_of(proto_of(model.graph), optimise=False).run(None, feeds)[0])


def test_layers_inside_a_branch_that_is_open_are_explained(
    network: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["inspect", str(network)]) == 0
    assert "--set rate=VALUE" in capsys.readouterr().out
    assert main(["compile", str(network), "--macs", "50%", "-o", str(tmp_path / "out")]) == 3
    assert "--set rate=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(
    "values, message",
    [
        ({"tempo": 1.0}, "no such input; its inputs are x, rate, open"),
        ({"open": 1.0}, "its size is open"),
        ({"rate": 0.5}, "holds int64"),
    ],
)
def test_values_that_an_input_cannot_have_are_refused(network: Path, values: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(network, values=values)


def test_values_are_numbers_by_name() -> None:
    assert parse_values(["sr=16000", "a=b=true", "sr=16000.0"]) == {"sr": 16000.0, "a=b": 1.0}
    for text in (["sr"], ["=1"], ["sr=fast"], ["sr=nan"], ["sr=1", "sr=2"]):
        with pytest.raises(UsageError, match="--set"):
            parse_values(text)
