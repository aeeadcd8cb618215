"""Loops that carry their weights, as recurrences of other frameworks are exported: halpc sees through their bodies."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from halpc.inspection import inspect
from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from passes.count import macs, params
from passes.couple import couple
from passes.coupling.members import produced_by
from passes.feeds import random_feeds
from passes.latency.clusters import Cluster
from passes.latency.kernels import kernel_of
from passes.load import load
from passes.loading.bodies import Open
from passes.proto import proto_of
from passes.replay import in_the_files_words
from passes.runtime import session_of
from passes.score import score_from_weights
from passes.slim import plan_for, slim
from passes.vanish import vanishable
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


OWN_GAIN = Network(
    [
        *gates()[:3],
        helper.make_node("Mul", ["open", "content"], ["g"], name="g"),
        helper.make_node("Mul", ["g", "gain"], ["after"], name="after"),
    ],
    inside={"gain": np.linspace(0.5, 1.5, HIDDEN, dtype=np.float32)},
)


@pytest.mark.parametrize("network", [EQUAL, COUNTED, OPEN_BATCH, OWN_GAIN])
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


LOOP = """
    <ir_version: 10, opset_import: ["" : 18]>
    main (float[4,6] x) => (float[4,5] y)
        <float[6,8] pre = {0}, float[8,8] square = {0}, float[8,10] up = {0}, float[10,8] down = {0},
         float[8,5] out = {0}, int64 steps = {3}, bool go = {1}> {
        s = MatMul (x, pre)
        a = BEFORE
        last = Loop <body = each (int64 i, bool on, float[4,8] h) => (bool go_on, float[4,8] after) {
            b = MatMul (h, INNER)
            c = Relu (b)
            after = MatMul (c, down)
            go_on = Identity (on)
        }> (steps, go, a)
        y = MatMul (last, out)
    }"""
ONLY_INSIDE = LOOP.replace("BEFORE", "Relu (s)").replace("INNER", "up")
READ_TWICE = LOOP.replace("BEFORE", "MatMul (s, square)").replace("INNER", "square").replace("[10,8]", "[8,8]")


def read_outside(text: str, folder: Path) -> tuple[Model, Coupling]:
    """A model whose loop reads weights of the graph around it, filled with numbers."""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for tensor in proto.graph.initializer:
        if tensor.data_type == FLOAT:
            values = rng.standard_normal(tuple(tensor.dims)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values * 0.4, tensor.name))
    onnx.save(proto, folder / "outside.onnx")
    model = load(folder / "outside.onnx")
    return model, couple(model.twin)


def stored(proto: onnx.ModelProto) -> dict[str, list[list[int]]]:
    """Shapes of what the graph and its bodies hold, by name."""
    loop = next(node for node in proto.graph.node if node.op_type == "Loop")
    found: dict[str, list[list[int]]] = {}
    for tensor in (*proto.graph.initializer, *loop.attribute[0].g.initializer):
        found.setdefault(tensor.name, []).append(list(tensor.dims))
    return found


def test_weights_of_the_graph_around_that_only_a_loop_reads_shrink(tmp_path: Path) -> None:
    model, coupling = read_outside(ONLY_INSIDE, tmp_path)
    assert sorted(group.size for group in coupling.free().values()) == [8, 10]
    assert not vanishable(model, coupling)
    assert params(model.twin, coupling).at({}) == 6 * 8 + 8 * 10 + 10 * 8 + 8 * 5
    shapes = stored(narrowed(model, coupling))
    assert (shapes["pre"], shapes["up"], shapes["down"]) == ([[6, 4]], [[4, 5]], [[5, 4]])
    found = inspect(model.path, {}, None, (), False)
    assert {row.size: set(row.layers) for row in found.rows if not row.pin}[10] == {"MatMul_4", "MatMul_7"}


def test_weights_that_are_read_outside_and_inside_a_loop_shrink_at_both(tmp_path: Path) -> None:
    model, coupling = read_outside(READ_TWICE, tmp_path)
    assert not vanishable(model, coupling)
    shapes = stored(narrowed(model, coupling))
    assert (shapes["pre"], shapes["square"], shapes["down"]) == ([[6, 4]], [[4, 4]], [[4, 4]])


def test_a_plan_names_the_weights_that_only_a_loop_reads(tmp_path: Path) -> None:
    model, coupling = read_outside(ONLY_INSIDE, tmp_path)
    plan = plan_for(model, coupling, {name: np.arange(g.size) < 3 for name, g in coupling.free().items()})
    told = in_the_files_words(model, plan)
    assert not told.derived
    assert [list(axis) for axis in told.keep["up"].values()] == [[0, 1, 2], [0, 1, 2]]


def test_layers_in_a_loop_are_scored_and_may_be_frozen(tmp_path: Path) -> None:
    model, coupling = read_outside(ONLY_INSIDE, tmp_path)
    assert not score_from_weights("l2", model.twin, coupling).unscored
    frozen = couple(model.twin, freeze=produced_by(model.twin, ["MatMul_4"]))
    assert [group.size for group in frozen.free().values()] == [8]


def test_bodies_whose_constants_share_a_name_but_no_values_are_closed(tmp_path: Path) -> None:
    proto = OWN_GAIN.proto()
    first = next(node for node in proto.graph.node if node.op_type == "Loop")
    branches = []
    for name, value in (("then_branch", 1.0), ("else_branch", 2.0)):
        gain = numpy_helper.from_array(np.full(HIDDEN, value, np.float32), "gain")
        node = helper.make_node("Mul", ["all", "gain"], [name])
        branches.append(helper.make_graph([node], name, [], [info(name, STEPS, 2, HIDDEN)], [gain]))
    other = helper.make_node("If", ["flag"], ["chosen"], then_branch=branches[0], else_branch=branches[1])
    proto.graph.node.append(other)
    proto.graph.input.append(info("flag", kind=TensorProto.BOOL))
    proto.graph.output.append(info("chosen", STEPS, 2, None))
    del first.attribute[0].g.value_info[:]
    onnx.save(proto, tmp_path / "names.onnx")
    twin = load(tmp_path / "names.onnx").twin
    assert not any(isinstance(node.attrs.get("body"), Open) for node in twin.nodes)
