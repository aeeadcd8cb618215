"""Loops that carry their weights, as recurrences of other frameworks are exported: halpc sees through their bodies."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from halpc.inspection import inspect
from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from passes.count import macs
from passes.couple import couple
from passes.feeds import random_feeds
from passes.latency.clusters import Cluster
from passes.latency.kernels import kernel_of
from passes.load import load
from passes.proto import proto_of
from passes.runtime import session_of
from passes.slim import plan_for, slim
from passes.verify import verify

STEPS, INTO, HIDDEN = 7, 6, 8
FLOAT = TensorProto.FLOAT


def info(name: str, *shape: int | str | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


@dataclass
class Network:
    """dense · loop over a gated recurrence · dense; what differs from test to test is put in.

    Attributes:
        step: nodes that make `after` of the state and `gated`, which holds two gates.
        around: further nodes before the loop.
        inside: initializers of the body.
        weights: further initializers; one of the two makes `zeros`, the state before the first step.
    """

    step: list[onnx.NodeProto]
    inside: dict[str, np.ndarray] = field(default_factory=dict)
    around: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=lambda: {"zeros": np.zeros((2, HIDDEN), np.float32)})
    batch: int | str = 2

    def proto(self) -> onnx.ModelProto:
        rng = np.random.default_rng(0)
        shapes = {"pre": (4, INTO), "into": (INTO, 2 * HIDDEN), "again": (HIDDEN, 2 * HIDDEN), "out": (HIDDEN, 5)}
        values = {name: rng.standard_normal(shape).astype(np.float32) * 0.4 for name, shape in shapes.items()}
        values |= {"steps": np.array(STEPS), "go": np.array(True)}
        body = helper.make_graph(
            [helper.make_node("Gather", ["sequence", "i"], ["now"], name="now"),
             helper.make_node("MatMul", ["now", "w"], ["a"], name="a"),
             helper.make_node("MatMul", ["h", "r"], ["b"], name="b"),
             helper.make_node("Add", ["a", "b"], ["gated"], name="gated"),
             *self.step,
             helper.make_node("Identity", ["on"], ["go_on"], name="go_on"),
             helper.make_node("Identity", ["after"], ["kept"], name="kept")],
            "body",
            [info("i", kind=TensorProto.INT64), info("on", kind=TensorProto.BOOL), info("h", None, HIDDEN),
             info("w", INTO, 2 * HIDDEN), info("r", HIDDEN, 2 * HIDDEN)],
            [info("go_on", kind=TensorProto.BOOL), info("after", None, HIDDEN), info("w", INTO, 2 * HIDDEN),
             info("r", HIDDEN, 2 * HIDDEN), info("kept", None, HIDDEN)],
            [numpy_helper.from_array(value, name) for name, value in self.inside.items()],
        )  # fmt: skip
        nodes = [
            helper.make_node("MatMul", ["x", "pre"], ["sequence"], name="pre"),
            *self.around,
            helper.make_node("Loop", ["steps", "go", "zeros", "into", "again"], ["last", "w1", "r1", "all"],
                             name="loop", body=body),
            helper.make_node("MatMul", ["all", "out"], ["y"], name="out"),
        ]  # fmt: skip
        weights = [numpy_helper.from_array(value, name) for name, value in (values | self.weights).items()]
        x, y = info("x", STEPS, self.batch, 4), info("y", STEPS, self.batch, 5)
        graph = helper.make_graph(nodes, "net", [x], [y], weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def solved(self, folder: Path) -> tuple[Model, Coupling]:
        path = folder / "loop.onnx"
        proto = self.proto()
        onnx.checker.check_model(proto, full_check=True)
        onnx.save(proto, path)
        model = load(path)
        return model, couple(model.twin)


def gates(*sizes: int) -> list[onnx.NodeProto]:
    """after = sigmoid(first) · tanh(second)."""
    return [
        helper.make_node("Split", ["gated", *(["sizes"] if sizes else [])], ["p", "q"], name="split", axis=1),
        helper.make_node("Sigmoid", ["p"], ["open"], name="open"),
        helper.make_node("Tanh", ["q"], ["content"], name="content"),
        helper.make_node("Mul", ["open", "content"], ["after"], name="after"),
    ]


EQUAL = Network(gates())
COUNTED = Network(gates(HIDDEN, HIDDEN), inside={"sizes": np.array([HIDDEN, HIDDEN])})
OPEN_BATCH = Network(
    gates(),
    batch="N",
    around=[
        helper.make_node("Shape", ["sequence"], ["shape"], name="shape"),
        helper.make_node("Gather", ["shape", "second"], ["batch"], name="batch"),
        helper.make_node("Concat", ["batch", "width"], ["sizes_of_state"], name="sizes_of_state", axis=0),
        helper.make_node("Expand", ["nothing", "sizes_of_state"], ["zeros"], name="zeros"),
    ],
    weights={"second": np.array([1]), "width": np.array([HIDDEN]), "nothing": np.float32([0])},
)


def narrowed(model: Model, coupling: Coupling) -> onnx.ModelProto:
    """The model at half of every free group; verified."""
    masks = {name: np.arange(group.size) % 2 == 0 for name, group in coupling.free().items()}
    plan = plan_for(model, coupling, masks)
    proto = proto_of(slim(model, coupling, plan))
    onnx.checker.check_model(proto, full_check=True)
    verify(model, coupling, plan, proto)
    return proto


@pytest.mark.parametrize("network", [EQUAL, COUNTED, OPEN_BATCH])
def test_what_goes_into_a_loop_and_what_it_carries_may_shrink(network: Network, tmp_path: Path) -> None:
    model, coupling = network.solved(tmp_path)
    assert sorted(group.size for group in coupling.free().values()) == [INTO, HIDDEN]
    proto = narrowed(model, coupling)
    shapes = {t.name: list(t.dims) for t in proto.graph.initializer}
    assert shapes["into"] == [INTO // 2, HIDDEN]
    assert shapes["again"] == [HIDDEN // 2, HIDDEN]
    assert shapes["out"] == [HIDDEN // 2, 5]


def test_a_loop_counts_as_often_as_it_runs_and_is_a_layer(tmp_path: Path) -> None:
    model, coupling = EQUAL.solved(tmp_path)
    body = 2 * (INTO + HIDDEN) * 2 * HIDDEN
    assert macs(model.twin, coupling).at({}) == STEPS * (2 * 4 * INTO + body + 2 * HIDDEN * 5)
    found = inspect(model.path, {}, None, (), False)
    (state,) = (row for row in found.rows if row.size == HIDDEN and not row.pin)
    assert not found.whole
    assert state.name.startswith("loop")
    assert "loop" in state.layers
    assert all(row.name.startswith("pre") for row in found.rows if row.size == INTO)
    roles = {(m.tensor, m.axis): m.role for group in coupling.groups.values() for m in group.members if m.op == "Loop"}
    assert roles["into", 0] == "in"
    assert roles["into", 1] == "out"


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Network([*gates()[:3], helper.make_node("Mul", ["open", "content"], ["g"], name="g"),
                  helper.make_node("Mul", ["g", "gain"], ["after"], name="after")],
                 inside={"gain": np.ones(HIDDEN, np.float32)}), "gain is a constant in the body of a loop"),
        (Network([*gates()[:3], helper.make_node("Mul", ["open", "content"], ["g"], name="g"),
                  helper.make_node("Shape", ["g"], ["s"], name="s"),
                  helper.make_node("Reshape", ["g", "s"], ["after"], name="after")]), "its size is read as a number"),
        (Network([*gates()[:3], helper.make_node("Mul", ["open", "content"], ["g"], name="g"),
                  helper.make_node("ReduceMean", ["g"], ["m"], name="m", axes=[1]),
                  helper.make_node("Sub", ["g", "m"], ["after"], name="after")]), "a mean is taken over it"),
    ],
)  # fmt: skip
def test_what_cannot_follow_in_a_body_stays_whole(network: Network, reason: str, tmp_path: Path) -> None:
    model, coupling = network.solved(tmp_path)
    assert [group.size for group in coupling.free().values()] == [INTO]
    assert any(reason in (group.pin or "") for group in coupling.groups.values())
    narrowed(model, coupling)


def test_a_body_with_a_body_in_it_is_closed(tmp_path: Path) -> None:
    branch = helper.make_graph([helper.make_node("Neg", ["g"], ["n"], name="n")], "no", [], [info("n", None, None)])
    other = helper.make_graph([helper.make_node("Abs", ["g"], ["m"], name="m")], "yes", [], [info("m", None, None)])
    step = [*gates()[:3], helper.make_node("Mul", ["open", "content"], ["g"], name="g"),
            helper.make_node("If", ["on"], ["after"], name="if", then_branch=branch, else_branch=other)]  # fmt: skip
    model, coupling = Network(step).solved(tmp_path)
    assert not coupling.free()
    assert "its body sees it (Loop)" in (inspect(model.path, {}, None, (), False).whole["pre"])


def test_a_body_whose_names_are_those_of_another_is_closed(tmp_path: Path) -> None:
    proto = EQUAL.proto()
    again = helper.make_node(
        "Loop", ["steps", "go", "zeros", "into", "again"], ["l2", "w2", "r2", "all2"], name="again"
    )
    again.attribute.append(next(node for node in proto.graph.node if node.op_type == "Loop").attribute[0])
    proto.graph.node.insert(2, again)
    proto.graph.output.append(info("all2", STEPS, 2, HIDDEN))
    onnx.save(proto, tmp_path / "two.onnx")
    assert not couple(load(tmp_path / "two.onnx").twin).free()


@pytest.mark.parametrize("width", [HIDDEN, 3])
def test_a_loop_is_a_kernel_that_runs_at_any_width(width: int, tmp_path: Path) -> None:
    model, coupling = EQUAL.solved(tmp_path)
    kernel = kernel_of(Cluster("loop", ("loop",)), model, coupling)
    assert kernel is not None
    assert sorted(kernel.sizes) == [INTO, HIDDEN]
    assert "MatMul" in kernel.signature.about
    proto = kernel.model(coupling, [width] * 2)
    session = session_of(proto, optimise=False)
    feeds = random_feeds(session, {value.name: tuple(value.shape) for value in session.get_inputs()})
    assert session.run(["all"], feeds)[0].shape == (STEPS, 2, width)
