"""`If` with a condition that does not depend on the input: its branch is part of the graph, and may be pruned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from halpc.ir.model import Model
from passes.count import params
from passes.couple import couple
from passes.load import load
from passes.memory import peak_memory
from passes.proto import proto_of
from passes.runtime import session_of
from passes.slim import plan_for, slim
from passes.verify import verify

rng = np.random.default_rng(0)


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)


def body(name: str, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], result: str) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [onnx.ValueInfoProto(name=result)], weights)


def linear(x: str, width: int, to: int, tag: str, names: str = "w") -> onnx.GraphProto:
    """x · w · v with a hidden layer of `width`; the weights' names may repeat in other branches."""
    nodes = [
        helper.make_node("MatMul", [x, f"{names}_in"], [f"{names}_hidden"], name="up"),
        helper.make_node("Relu", [f"{names}_hidden"], [f"{names}_active"], name="act"),
        helper.make_node("MatMul", [f"{names}_active", f"{names}_out"], [f"{tag}_result"], name="down"),
    ]
    return body(tag, nodes, [weight(f"{names}_in", 6, width), weight(f"{names}_out", width, to)], f"{tag}_result")


def switch(condition: str, result: str, yes: onnx.GraphProto, no: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node("If", [condition], [result], name=f"if_{result}", then_branch=yes, else_branch=no)


def saved(folder: Path, nodes: list[onnx.NodeProto], sizes: tuple[int | str, ...] = (2, 6)) -> Path:
    graph = helper.make_graph(
        nodes,
        "branches",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
        [numpy_helper.from_array(np.array(True), "yes"), numpy_helper.from_array(np.int64(2), "two"),
         numpy_helper.from_array(np.int64([1]), "one"), weight("pre", 6, 6)],
    )  # fmt: skip
    path = folder / "branches.onnx"
    never = body("t", [helper.make_node("Neg", ["a"], ["n"])], [], "n")
    functions = [helper.make_function("own", "Chosen", ["a"], ["b"], [
        helper.make_node("Constant", [], ["never"], value=numpy_helper.from_array(np.array(False), "")),
        helper.make_node("If", ["never"], ["b"], then_branch=never,
                         else_branch=body("e", [helper.make_node("Tanh", ["a"], ["t"])], [], "t")),
    ], [helper.make_opsetid("", 17)])]  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8), path)
    return path


def operators(model: Model) -> list[str]:
    return [node.op for node in model.graph.nodes]


def check(path: Path) -> Model:
    """The loaded model gives what the file gives, can be pruned, and slim equals masked."""
    model = load(path)
    feeds = {"x": rng.standard_normal((2, 6)).astype(np.float32)}
    before, after = (
        session_of(m, optimise=False).run(None, feeds)[0] for m in (onnx.load(path), proto_of(model.graph))
    )
    assert np.array_equal(before, after)
    coupling = couple(model.twin)
    masks = {name: np.arange(g.size) % 2 == 0 for name, g in coupling.free().items()}
    plan = plan_for(model, coupling, masks)
    verify(model, coupling, plan, proto_of(slim(model, coupling, plan), model.header))
    return model


def test_the_branch_taken_is_inlined_and_pruned(tmp_path: Path) -> None:
    model = check(saved(tmp_path, [switch("yes", "y", linear("x", 8, 4, "a"), linear("x", 5, 4, "b"))]))
    assert operators(model) == ["MatMul", "Relu", "MatMul"]
    assert [g.size for g in couple(model.twin).free().values()] == [8]


@pytest.mark.parametrize("sizes", [(2, 6), ("N", 6)])
def test_a_condition_on_a_rank_is_constant_whatever_the_batch(sizes: tuple[int | str, ...], tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Size", ["shape"], ["rank"]),
        helper.make_node("Equal", ["rank", "two"], ["flat"]),
        switch("flat", "y", linear("x", 8, 4, "a"), linear("x", 5, 4, "b")),
    ]
    assert operators(check(saved(tmp_path, nodes, sizes))) == ["MatMul", "Relu", "MatMul"]


def test_a_condition_on_the_batch_stays(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "two_"], ["batch"]),
        helper.make_node("Less", ["batch", "two"], ["small"]),
        switch("small", "y", linear("x", 8, 4, "a"), linear("x", 5, 4, "b")),
    ]
    nodes.insert(0, helper.make_node("Constant", [], ["two_"], value_int=0))
    assert "If" in operators(check(saved(tmp_path, nodes, ("N", 6))))


def test_a_condition_on_the_input_stays(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["any"], to=TensorProto.BOOL),
        switch("any", "y", linear("x", 8, 4, "a"), linear("x", 5, 4, "b")),
    ]
    assert "If" in operators(check(saved(tmp_path, nodes)))


def undecided(yes: onnx.GraphProto, no: onnx.GraphProto) -> list[onnx.NodeProto]:
    """An `If` on what comes in."""
    return [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["any"], to=TensorProto.BOOL),
        switch("any", "y", yes, no),
    ]


def test_weights_of_branches_that_stay_count(tmp_path: Path) -> None:
    model = load(saved(tmp_path, undecided(linear("x", 8, 4, "a"), linear("x", 5, 4, "b"))))
    coupling = couple(model.twin)
    count = 6 * 8 + 8 * 4 + 6 * 5 + 5 * 4
    assert params(model.twin, coupling).at({}) == count
    assert peak_memory(model.twin, coupling).at({}) > 4 * count


def test_a_weight_of_the_graph_around_that_two_branches_read_is_counted_and_written_once(tmp_path: Path) -> None:
    def reading(tag: str, operator: str) -> onnx.GraphProto:
        nodes = [helper.make_node("MatMul", ["x", "pre"], [f"{tag}_p"]),
                 helper.make_node("MatMul", [f"{tag}_p", "w"], [f"{tag}_q"]),
                 helper.make_node(operator, [f"{tag}_q"], [f"{tag}_result"])]  # fmt: skip
        return body(tag, nodes, [weight("w", 6, 4)], f"{tag}_result")

    model = check(saved(tmp_path, undecided(reading("a", "Relu"), reading("b", "Neg"))))
    graph = proto_of(model.graph).graph
    branches = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    assert [[t.name for t in branch.initializer] for branch in branches] == [["w"], ["w"]]
    assert [t.name for t in graph.initializer].count("pre") == 1
    assert params(model.twin, couple(model.twin)).at({}) == 6 * 6 + 2 * 6 * 4


def test_branches_with_the_same_names_do_not_collide(tmp_path: Path) -> None:
    nodes = [
        switch("yes", "first", linear("x", 8, 6, "a"), linear("x", 5, 6, "b")),
        switch("yes", "y", linear("first", 10, 4, "a"), linear("first", 5, 4, "b")),
    ]
    model = check(saved(tmp_path, nodes))
    assert sorted(g.size for g in couple(model.twin).free().values()) == [6, 8, 10]


def test_nested_branches_read_tensors_around_them(tmp_path: Path) -> None:
    inner = linear("outside", 9, 6, "inner", "v")
    middle = linear("outside", 8, 6, "middle")
    middle.node.append(switch("yes", "deep", inner, linear("outside", 5, 6, "never", "u")))
    middle.node.append(helper.make_node("Add", ["deep", "middle_result"], ["both"], name="both"))
    middle.output[0].name = "both"
    nodes = [
        helper.make_node("MatMul", ["x", "pre"], ["outside"], name="before"),
        switch("yes", "y", middle, linear("outside", 5, 6, "other")),
    ]
    model = check(saved(tmp_path, nodes))
    assert "If" not in operators(model)
    assert sorted(g.size for g in couple(model.twin).free().values()) == [6, 8, 9]


def test_a_branch_that_gives_out_what_it_was_given(tmp_path: Path) -> None:
    given = body("given", [helper.make_node("Identity", ["outside"], ["same"], name="same")], [], "same")
    literal = body("literal", [helper.make_node("Constant", [], ["c"], value=weight("c", 2, 6))], [], "c")
    nodes = [
        helper.make_node("MatMul", ["x", "pre"], ["outside"], name="before"),
        switch("yes", "one_", given, literal),
        switch("yes", "two_", literal, given),
        helper.make_node("Sum", ["one_", "two_", "outside"], ["y"], name="sum"),
    ]
    assert "If" not in operators(check(saved(tmp_path, nodes)))


def test_one_inside_a_local_function(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "pre"], ["outside"], name="before"),
        helper.make_node("Chosen", ["outside"], ["chosen"], domain="own"),
        helper.make_node("MatMul", ["chosen", "pre"], ["y"], name="after"),
    ]
    assert operators(check(saved(tmp_path, nodes))) == ["MatMul", "Tanh", "MatMul"]


def test_an_if_that_stays_inside_a_branch_that_is_taken_keeps_what_it_reads(tmp_path: Path) -> None:
    outer = linear("x", 8, 6, "outer")
    yes = body("yes_", [helper.make_node("Neg", ["outer_result"], ["n"], name="n")], [], "n")
    no = body("no_", [helper.make_node("Abs", ["outer_result"], ["n"], name="n")], [], "n")
    outer.node.extend([
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["any"], to=TensorProto.BOOL),
        switch("any", "deep", yes, no),
    ])  # fmt: skip
    outer.output[0].name = "deep"
    nodes = [
        helper.make_node("MatMul", ["x", "pre"], ["outer_result_"], name="before"),
        switch("yes", "y", outer, linear("outer_result_", 5, 6, "b")),
    ]
    assert operators(check(saved(tmp_path, nodes))).count("If") == 1
