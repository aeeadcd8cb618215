"""From what onnxruntime executes back to the ONNX nodes of the model it was given.

onnxruntime fuses, renames and reorders. The optimised model that it can save keeps enough names: a fused
node is called after an output (`relu1_nchwc`) or a node (`mul/QuickGeluFusion/`) of the original. From
there the original graph is walked backwards, up to what other layers compute, earlier ones or later ones; whatever is
passed on the way was fused into this layer. The walk ends where only a tensor's shape or type is read: with fixed
shapes that is a constant, and what computes the tensor may run much later.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx

from halpc.ir.latency import LayerTime
from profilers.ort_events import LEAST_MS, REORDERS, NodeTimes

_NCHWC = "_nchwc"
_VALUES_READ = {"Shape": 0, "Size": 0, "CastLike": 1}  # how many inputs an operator reads the values of, where not all
_INSERTED = re.compile(r"^InsertedPrecisionFreeCast_|_token_\d+(_out\d+)?$|/duplicated$|_nchwc$")
_MOVES = REORDERS | {"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Identity"}
# fmt: off
_EPILOGUES = frozenset({
    "Add", "Sub", "Mul", "Div", "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid",
    "HardSwish", "Swish", "Mish", "Tanh", "Elu", "Celu", "Selu", "Softplus", "Softsign", "Gelu", "Erf",
    "Sqrt", "Pow", "Neg", "Abs", "Min", "Max", "BatchNormalization", "Identity", "Dropout",
    "QuantizeLinear",
})
# fmt: on


def node_name(node: onnx.NodeProto) -> str:
    """A node's name, or its first output's where it has none."""
    return str(node.name or next((name for name in node.output if name), node.op_type))


def plain_name(name: str) -> str:
    """`name` without what onnxruntime adds to names.

    >>> plain_name("InsertedPrecisionFreeCast_relu1_token_7"), plain_name("relu1_nchwc")
    ('relu1', 'relu1')
    """
    while (shorter := _INSERTED.sub("", name)) != name:
        name = shorter
    return name


@dataclass(frozen=True, slots=True)
class _Original:
    """The model as it was given, by name."""

    producer: dict[str, onnx.NodeProto]
    by_name: dict[str, onnx.NodeProto]
    inputs: frozenset[str]
    position: dict[str, int]
    readers: dict[str, set[str]]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> _Original:
        nodes = model.graph.node
        readers: dict[str, set[str]] = {value.name: {""} for value in model.graph.output}
        for node in nodes:
            for name in node.input:
                readers.setdefault(name, set()).add(node_name(node))
        return cls(
            {name: node for node in nodes for name in node.output if name},
            {node_name(node): node for node in nodes},
            frozenset(value.name for value in model.graph.input),
            {node_name(node): i for i, node in enumerate(nodes)},
            readers,
        )

    def knows(self, tensor: str) -> bool:
        return tensor in self.producer or tensor in self.inputs

    def anchors(self, node: onnx.NodeProto, carried: dict[str, str]) -> list[str]:
        """The original tensors that an executed node produces, or moves; [] where names do not tell."""
        kept = [name for name in node.output if self.knows(name)]
        if kept:
            return kept
        if node.name.endswith(_NCHWC) and self.knows(tensor := plain_name(node.name)):
            return [tensor]
        if origin := self._fused_from(node.name):
            return [name for name in origin.output if name]
        kept = [name for name in map(plain_name, node.output) if self.knows(name)]
        if kept:
            return kept
        moved = [carried[name] for name in node.input if name in carried]
        return moved[:1]

    def _fused_from(self, name: str) -> onnx.NodeProto | None:
        """The node whose name a fused node extends, as in `mul/QuickGeluFusion/`."""
        while name:
            if found := self.by_name.get(name) or self.by_name.get(plain_name(name)):
                return found
            name = name.rstrip("/").rpartition("/")[0]
        return None

    def give_epilogues(self, clusters: list[list[str]], executed: Sequence[str]) -> None:
        """Move elementwise nodes that precede a cluster's main operator to the layer that computed their
        input.

        Runtimes fuse what follows a kernel into it, not what goes before; a fused convolution keeps the
        name of its own output, so the walk back from its consumer has passed the nodes that belong to it.
        """
        where = {name: i for i, nodes in enumerate(clusters) for name in nodes}
        for i, nodes in enumerate(clusters):
            for name in nodes[: self._main(nodes, executed[i])]:
                node = self.by_name[name]
                sources = [
                    where[node_name(p)]
                    for t in node.input
                    if (p := self.producer.get(t)) is not None and node_name(p) in where
                ]
                if node.op_type in _EPILOGUES and sources and max(sources) < i:
                    where[name] = max(sources)
        moved = sorted(where, key=self.position.__getitem__)
        for i in range(len(clusters)):
            clusters[i] = [name for name in moved if where[name] == i]

    def results(self, cluster: Sequence[str]) -> tuple[str, ...]:
        """Tensors that a cluster computes and somebody outside of it reads."""
        inside = set(cluster)
        made = [name for node in cluster for name in self.by_name[node].output if name]
        return tuple(name for name in made if not self.readers.get(name, {""}) <= inside)

    def _main(self, nodes: Sequence[str], executed: str) -> int:
        """Position of the operator that names the executed node; 0 where it is elementwise itself."""
        if executed in _MOVES:
            return len(nodes)
        ops = [self.by_name[name].op_type for name in nodes]
        mains = [i for i, op in enumerate(ops) if executed.endswith(op) and op not in _EPILOGUES]
        return mains[-1] if mains else 0

    def upstream(self, tensors: Iterable[str], claimed: set[str], elsewhere: Container[str]) -> Iterator[str]:
        """Names of the nodes that compute `tensors`, as far as nobody has claimed them; claims them.

        Args:
            tensors: what a layer produces.
            claimed: nodes that have a layer.
            elsewhere: tensors that other layers produce.
        """
        stack = list(tensors)
        while stack:
            node = self.producer.get(stack.pop())
            if node is None or (name := node_name(node)) in claimed:
                continue
            claimed.add(name)
            yield name
            values = node.input[: _VALUES_READ.get(node.op_type)]
            stack.extend(name for name in values if name and name not in elsewhere)


def map_layers(
    original: onnx.ModelProto,
    optimised: onnx.ModelProto,
    times: Iterable[NodeTimes],
    overhead_ms: float = 0.0,
) -> tuple[LayerTime, ...]:
    """Executed nodes, each with the original tensors that it produces and the original nodes fused into it.

    Args:
        original: the model as it was given.
        optimised: the model that onnxruntime saved.
        times: executed nodes in order.
        overhead_ms: taken off every node's time.
    """
    source = _Original.of(original)
    executed = _executed(optimised)
    carried: dict[str, str] = {name: name for name in source.inputs}
    claimed: set[str] = set()
    layers = []
    for time in times:
        node = executed.get((time.name, time.op, time.occurrence))
        outputs = source.anchors(node, carried) if node is not None else []
        if node is not None and outputs:
            carried.update({name: outputs[min(i, len(outputs) - 1)] for i, name in enumerate(node.output)})
        own_ms = max(time.time_ms - overhead_ms, LEAST_MS)
        layers.append(LayerTime(time.name, time.op, tuple(outputs), own_ms))
    produced = {name for layer in layers for name in layer.outputs}
    clusters = [
        sorted(source.upstream(layer.outputs, claimed, produced), key=source.position.__getitem__) for layer in layers
    ]
    source.give_epilogues(clusters, [layer.op for layer in layers])
    return tuple(
        dataclasses.replace(layer, nodes=tuple(nodes), outputs=source.results(nodes) or layer.outputs)
        for layer, nodes in zip(layers, clusters, strict=True)
    )


def _executed(optimised: onnx.ModelProto) -> dict[tuple[str, str, int], onnx.NodeProto]:
    """Nodes of the saved model as the profiler names them."""
    found: dict[tuple[str, str, int], onnx.NodeProto] = {}
    for node in optimised.graph.node:
        occurrence = 0
        while (key := (node.name, node.op_type, occurrence)) in found:
            occurrence += 1
        found[key] = node
    return found
