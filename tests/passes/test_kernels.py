"""Kernels: which axes they have, which share a table, and that they run at any widths."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import onnx
import pytest

from halpc.ir.dims import Leaf, Product, Sum
from halpc.ir.groups import Coupling, Group
from halpc.ir.latency import LayerTime
from halpc.ir.model import Model
from passes.latency.clusters import Cluster, clusters_by_rule, clusters_of, times_of
from passes.latency.kernels import Kernel, _share, atoms, kernel_of
from profilers.onnxrt import OnnxRuntimeProfiler
from tests.passes.kernel_models import BRANCHES, CHAIN, prepared


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Model, Coupling]:
    return prepared(CHAIN, tmp_path)


def kernel(model: Model, coupling: Coupling, *nodes: str) -> Kernel:
    found = kernel_of(Cluster(nodes[0], nodes), model, coupling)
    assert found is not None
    return found


def shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {w.name: tuple(w.dims) for w in proto.graph.initializer}


def test_kernels_that_differ_in_width_or_rectifier_only_share_a_signature(chain: tuple[Model, Coupling]) -> None:
    second, third = kernel(*chain, "second", "second_relu"), kernel(*chain, "third")
    assert second.signature == third.signature
    assert (second.sizes, third.sizes) == ((32, 64), (64, 64))
    assert kernel(*chain, "first", "first_relu").signature != second.signature
    assert "float32[1,A,16,16]" in second.signature.about


def test_a_kernel_has_one_axis_for_channels_that_are_tied(chain: tuple[Model, Coupling]) -> None:
    assert kernel(*chain, "depthwise").sizes == (64,)
    assert kernel(*chain, "first").sizes == (32,)
    assert kernel(*chain, "head").sizes == (64,)


def test_a_residual_sum_is_left_to_the_network(chain: tuple[Model, Coupling]) -> None:
    with_sum, without = kernel(*chain, "last", "sum", "sum_relu"), kernel(*chain, "last")
    assert with_sum.signature == without.signature
    assert [node.op for node in with_sum.part.graph.nodes] == ["Conv"]


def test_nodes_without_weights_are_kernels_too(chain: tuple[Model, Coupling]) -> None:
    assert kernel(*chain, "pool").sizes == (64,)
    assert kernel(*chain, "sum", "sum_relu").sizes == (64,)


def test_a_cluster_that_no_width_changes_is_no_kernel(chain: tuple[Model, Coupling]) -> None:
    model, coupling = chain
    pinned = Coupling(
        coupling.axes,
        {n: Group(n, g.size, g.members, "frozen") for n, g in coupling.groups.items()},
        coupling.follows,
        coupling.graph,
        {},
    )
    assert kernel_of(Cluster("second", ("second",)), model, pinned) is None


@pytest.mark.parametrize("widths", [(32, 64), (8, 16), (1, 1), (96, 200)])
def test_a_kernel_can_be_made_narrower_and_wider_than_it_is(
    chain: tuple[Model, Coupling], widths: tuple[int, int]
) -> None:
    model, coupling = chain
    proto = kernel(model, coupling, "second", "second_relu").model(coupling, widths)
    assert shapes(proto) == {"w2": (widths[1], widths[0], 3, 3)}
    onnx.checker.check_model(proto, full_check=True)
    assert OnnxRuntimeProfiler().kernels([proto], repetitions=1)[0] > 0


def test_a_depthwise_kernel_counts_its_groups_anew(chain: tuple[Model, Coupling]) -> None:
    model, coupling = chain
    proto = kernel(model, coupling, "depthwise").model(coupling, (24,))
    assert shapes(proto) == {"wd": (24, 1, 3, 3)}
    assert {a.name: a.i for a in proto.graph.node[0].attribute}["group"] == 24


def test_a_consumer_of_a_concat_has_one_axis_for_all_of_it(tmp_path: Path) -> None:
    model, coupling = prepared(BRANCHES, tmp_path)
    out = kernel(model, coupling, "out")
    assert out.sizes == (40,)
    assert shapes(out.model(coupling, (20,))) == {"wc": (4, 20, 1, 1)}
    assert shapes(out.model(coupling, (64,))) == {"wc": (4, 64, 1, 1)}


def test_a_concat_itself_has_its_parts_as_axes(tmp_path: Path) -> None:
    model, coupling = prepared(BRANCHES, tmp_path)
    join = kernel(model, coupling, "join")
    assert join.sizes == (16, 24)
    proto = join.model(coupling, (8, 16))
    assert [v.type.tensor_type.shape.dim[1].dim_value for v in proto.graph.input] == [8, 16]


def test_atoms_of_a_product_are_its_factors_and_sums_stay_whole_unless_shared() -> None:
    sizes = {"a": 4, "b": 2, "c": 3}
    groups = {n: Group(n, s, ()) for n, s in sizes.items()}
    coupling = Coupling({}, groups, (), None, {})  # type: ignore[arg-type]
    a, b, c = (Leaf(n, s) for n, s in sizes.items())
    pair = Sum((a, b))
    assert list(atoms([Product((a, b)), b], coupling)) == [a, b]
    assert list(atoms([pair, c], coupling)) == [pair, c]
    assert list(atoms([pair, a, c], coupling)) == [a, b, c]
    assert list(atoms([Sum((a, a))], coupling)) == [a]
    assert list(atoms([Product((c, Leaf("still", 49)))], coupling)) == [c]


def test_clusters_are_what_the_runtime_fuses(chain: tuple[Model, Coupling]) -> None:
    layers = [
        LayerTime("r", "ReorderInput", ("x",), 0.5),
        LayerTime("k", "Conv", ("a2",), 2.0, ("first", "first_relu")),
        LayerTime("s", "Conv", ("a10",), 3.0, ("last", "sum", "sum_relu")),
        LayerTime("o", "ReorderOutput", ("a10",), 0.25),
        LayerTime("?", "Mystery", ("elsewhere",), 0.125),
    ]
    graph = chain[0].twin
    clusters = clusters_of(graph, layers)
    assert [c.name for c in clusters] == ["first", "last"]
    assert times_of(clusters, graph, layers) == ({"first": 2.5, "last": 3.25}, 0.125)


def test_a_node_that_runs_in_two_kernels_belongs_to_the_first(chain: tuple[Model, Coupling]) -> None:
    graph = chain[0].twin
    layers = [LayerTime("a", "", (), 2.0, ("first", "first_relu")), LayerTime("b", "", (), 1.0, ("first_relu",))]
    clusters = clusters_of(graph, layers)
    assert [cluster.nodes for cluster in clusters] == [("first", "first_relu")]
    assert times_of(clusters, graph, layers) == ({"first": 3.0}, 0.0)


def test_layers_that_fuse_otherwise_in_a_slimmer_network_count_for_the_same_kernel(
    chain: tuple[Model, Coupling],
) -> None:
    graph = chain[0].twin
    clusters = clusters_of(graph, [LayerTime("k", "Conv", ("a2",), 2.0, ("first", "first_relu"))])
    apart = [LayerTime("c", "Conv", ("a1",), 1.5, ("first",)), LayerTime("r", "Relu", ("a2",), 0.25, ("first_relu",))]
    assert times_of(clusters, graph, apart) == ({"first": 1.75}, 0.0)


def test_without_a_word_from_the_runtime_elementwise_nodes_follow_what_they_read(
    chain: tuple[Model, Coupling],
) -> None:
    found = {c.name: c.nodes for c in clusters_by_rule(chain[0].twin)}
    assert found["first"] == ("first", "first_relu")
    assert found["last"] == ("last", "sum", "sum_relu")
    assert sorted(n for nodes in found.values() for n in nodes) == sorted(n.name for n in chain[0].twin.nodes)


@pytest.mark.parametrize("size", [3, 8, 27, 40])
def test_no_part_of_an_axis_is_measured_without_channels(size: int) -> None:
    parts = (Leaf("a", 24), Leaf("b", 12), Leaf("c", 4))
    groups = {leaf.name: Group(leaf.name, leaf.size, ()) for leaf in parts}
    found = _share(Sum(parts), size, Coupling({}, groups, (), nx.Graph(), {}))
    assert sum(found.values()) == size
    assert all(1 <= found[leaf.name] <= leaf.size for leaf in parts)
