"""Multiply-accumulates in bodies of control flow that stay closed, and what is said of those that nobody counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from halpc.compile import compile_model
from halpc.options import Options
from halpc.units import parse_budget
from passes.count import macs, remarks
from passes.couple import couple
from passes.load import load

FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
WIDTHS = (6, 8, 4)  # of the two layers around the control flow
AROUND = 2 * (WIDTHS[0] * WIDTHS[1] + WIDTHS[1] * WIDTHS[2])
NARROW, WIDE = 2 * 8 * 8, 2 * (8 * 16 + 16 * 8)
info, node = helper.make_tensor_value_info, helper.make_node


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.random.default_rng(0).standard_normal(shape).astype(np.float32), name)


def body(reads: str, *, wide: bool) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """One or two products with weights of their own that make `after` of what they read."""
    if not wide:
        return [node("MatMul", [reads, "u"], ["after"])], [weight("u", 8, 8)]
    nodes = [node("MatMul", [reads, "v"], ["inner"]), node("MatMul", ["inner", "o"], ["after"])]
    return nodes, [weight("v", 8, 16), weight("o", 16, 8)]


def network(
    middle: onnx.NodeProto, inputs: list[onnx.ValueInfoProto], weights: list[onnx.TensorProto]
) -> onnx.ModelProto:
    """dense · middle · dense; `middle` makes `g` of `h`, both [2, 8]."""
    nodes = [node("MatMul", ["x", "w0"], ["h"], name="first"), middle, node("MatMul", ["g", "w1"], ["y"], name="last")]
    around = [weight("w0", *WIDTHS[:2]), weight("w1", *WIDTHS[1:])]
    graph = helper.make_graph(
        nodes, "net", [info("x", FLOAT, [2, 6]), *inputs], [info("y", FLOAT, [2, 4])], [*around, *weights]
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def counted(model: onnx.ModelProto, folder: Path) -> tuple[float, tuple[str, ...]]:
    onnx.save(model, folder / "net.onnx")
    twin = load(folder / "net.onnx").twin
    coupling = couple(twin)
    return macs(twin, coupling).at({}), remarks(twin, coupling)


def branch(name: str, *, wide: bool, reads: str = "h") -> onnx.GraphProto:
    nodes, weights = body(reads, wide=wide)
    return helper.make_graph(nodes, name, [], [info("after", FLOAT, [2, 8])], weights)


@pytest.mark.parametrize("then", [False, True])
@pytest.mark.parametrize("otherwise", [False, True])
def test_of_a_condition_the_dearer_branch_counts(then: bool, otherwise: bool, tmp_path: Path) -> None:
    middle = node("If", ["c"], ["g"], name="choice", then_branch=branch("then", wide=then),
                  else_branch=branch("else", wide=otherwise))  # fmt: skip
    total, said = counted(network(middle, [info("c", BOOL, [])], []), tmp_path)
    assert total == AROUND + (WIDE if then or otherwise else NARROW)
    assert said == (() if then == otherwise else ("MACs count the dearer branch of choice",))


def loop(most: str, *, ends: bool = False) -> onnx.NodeProto:
    """An `If` in its body keeps it closed; its condition may end it after the first step."""
    nodes = [
        node("Not" if ends else "Identity", ["on"], ["goes_on"]),
        node("If", ["on"], ["next"], then_branch=branch("then", wide=True, reads="state"),
             else_branch=branch("else", wide=True, reads="state")),
    ]  # fmt: skip
    into = [info("i", INT64, []), info("on", BOOL, []), info("state", FLOAT, [2, 8])]
    graph = helper.make_graph(nodes, "body", into, [info("goes_on", BOOL, []), info("next", FLOAT, [2, 8])])
    return node("Loop", [most, "go", "h"], ["g"], name="loop", body=graph)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_closed_loop_counts_as_often_as_it_is_told_to_run(steps: int, tmp_path: Path) -> None:
    weights = [numpy_helper.from_array(np.array(steps), "m"), numpy_helper.from_array(np.array(True), "go")]
    total, said = counted(network(loop("m"), [], weights), tmp_path)
    assert total == AROUND + steps * WIDE
    assert said == ()


@pytest.mark.parametrize("endless", [False, True])
def test_a_loop_that_its_condition_ends_counts_once_and_a_note_says_so(endless: bool, tmp_path: Path) -> None:
    weights = [numpy_helper.from_array(np.array(np.iinfo(np.int64).max), "m")] if endless else []
    inputs = [info("go", BOOL, [])] + ([] if endless else [info("m", INT64, [])])
    total, said = counted(network(loop("m", ends=True), inputs, weights), tmp_path)
    assert total == AROUND + WIDE
    assert said == ("MACs count the body of loop once: how often it runs is not known",)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_scan_counts_as_often_as_it_takes_a_slice(axis: int, tmp_path: Path) -> None:
    nodes, weights = body("state", wide=True)
    nodes += [node("MatMul", ["slice", "s"], ["seen"]), node("Add", ["after", "seen"], ["next"])]
    into = [info("state", FLOAT, [2, 8]), info("slice", FLOAT, [2, 3])]
    inner = helper.make_graph(nodes, "body", into, [info("next", FLOAT, [2, 8])], [*weights, weight("s", 3, 8)])
    middle = node("Scan", ["h", "seq"], ["g"], name="scan", body=inner, num_scan_inputs=1, scan_input_axes=[axis])
    shape = [2, 3]
    shape.insert(axis, 7)
    total, said = counted(network(middle, [info("seq", FLOAT, shape)], []), tmp_path)
    assert total == AROUND + 7 * (WIDE + 2 * 3 * 8)
    assert said == ()


def distances(domain: str = "com.microsoft") -> onnx.ModelProto:
    """onnxruntime's CDist, which multiplies and which halpc has no formula for."""
    middle = node("CDist", ["h", "z"], ["g"], domain=domain, metric="sqeuclidean")
    return network(middle, [], [weight("z", 8, 8)])


def test_operators_that_may_cost_and_are_not_counted_are_named(tmp_path: Path) -> None:
    total, said = counted(distances(), tmp_path)
    assert total == AROUND
    assert said == ("MACs do not count com.microsoft::CDist (1x): halpc does not know what these cost",)


def test_the_report_says_what_is_not_counted(tmp_path: Path) -> None:
    onnx.save(distances(), tmp_path / "net.onnx")
    report = compile_model(
        Options(tmp_path / "net.onnx", (parse_budget("params", "100%"),), out=tmp_path / "out", dry_run=True)
    )
    assert any("MACs do not count com.microsoft::CDist" in note for note in report.notes)
