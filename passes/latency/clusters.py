"""clusters: which nodes run as one kernel, and which kernel an executed layer belongs to.

A runtime says what it fuses when it profiles the model; where it cannot, a rule of thumb stands in: a node with
weights takes along what is elementwise behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from halpc.ir.latency import LayerTime

HEAVY = frozenset({
    "Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul", "LSTM",
    "GRU", "RNN", "Einsum", "Attention", "DeformConv", "FusedConv", "FusedGemm",
})  # fmt: skip
ELEMENTWISE = frozenset({
    "Add", "Sub", "Mul", "Div", "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Swish",
    "Mish", "Tanh", "Elu", "Celu", "Selu", "Softplus", "Softsign", "Gelu", "Erf", "Sqrt", "Pow", "Neg", "Abs", "Min",
    "Max", "BatchNormalization", "Identity", "Dropout", "QuantizeLinear", "DequantizeLinear", "Cast",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes that run as one kernel.

    Attributes:
        name: that of its main node: the last with weights, else the last.
        nodes: names in topological order.
    """

    name: str
    nodes: tuple[str, ...]


def clusters_of(graph: gs.Graph, layers: Iterable[LayerTime]) -> tuple[Cluster, ...]:
    """What the runtime fuses, as it says; nodes that no layer names are left out: they cost nothing.

    A node that runs in several kernels belongs to the first of them.
    """
    left = {node.name: node for node in graph.nodes}
    named = ([left.pop(name) for name in layer.nodes if name in left] for layer in layers)
    return tuple(_cluster(nodes) for nodes in named if nodes)


def tells_enough(graph: gs.Graph, layers: Iterable[LayerTime]) -> bool:
    """Whether layers name at least half of the nodes with weights: else the runtime does not say what it fuses."""
    heavy = {node.name for node in graph.nodes if node.op in HEAVY}
    return 2 * len(heavy.intersection(name for layer in layers for name in layer.nodes)) >= len(heavy)


def clusters_by_rule(graph: gs.Graph) -> tuple[Cluster, ...]:
    """Every node its own kernel, but what is elementwise goes with the node before it, if that one feeds only it."""
    parts: dict[str, list[gs.Node]] = {}
    home: dict[str, str] = {}
    for node in graph.nodes:
        before = [source for t in node.inputs for source in t.inputs]
        last = max(before, key=lambda n: list(parts).index(home[n.name]), default=None)
        joins = node.op in ELEMENTWISE and last is not None and len(last.outputs[0].outputs) == 1
        home[node.name] = home[last.name] if joins and last is not None else node.name
        parts.setdefault(home[node.name], []).append(node)
    return tuple(_cluster(nodes) for nodes in parts.values())


def _cluster(nodes: Sequence[gs.Node]) -> Cluster:
    heavy = [node for node in nodes if node.op in HEAVY]
    return Cluster((heavy or nodes)[-1].name, tuple(node.name for node in nodes))


def times_of(
    clusters: Sequence[Cluster], graph: gs.Graph, layers: Iterable[LayerTime]
) -> tuple[dict[str, float], float]:
    """Time of each cluster in ms by name, from the layers of this model or of a slimmer one; and what is left over.

    A layer that the runtime put in between (a reorder, a cast) counts for the kernel whose result it moves, or
    for the one that reads the graph's input.
    """
    home = {node: cluster.name for cluster in clusters for node in cluster.nodes}
    movers = _movers(graph, home)
    times: dict[str, float] = {}
    rest = 0.0
    for layer in layers:
        owner = next((home[node] for node in layer.nodes if node in home), None)
        if owner is None and not layer.nodes:
            owner = next((movers[t] for t in layer.outputs if t in movers), None)
        if owner is None:
            rest += layer.time_ms
        else:
            times[owner] = times.get(owner, 0.0) + layer.time_ms
    return times, rest


def _movers(graph: gs.Graph, home: Mapping[str, str]) -> dict[str, str]:
    """Tensor → kernel that answers for moving it."""
    owners: dict[str, str] = {}
    for node in graph.nodes:
        if node.name in home:
            owners.update({t.name: home[node.name] for t in node.outputs})
    for tensor in graph.inputs:
        readers = [home[node.name] for node in tensor.outputs if node.name in home]
        if readers:
            owners[tensor.name] = readers[0]
    return owners
