"""What every folded constant was made of, noted before it is folded."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from halpc.ir.origin import Mixed, Moved, Origin, Source
from passes.loading.fold import Known, look_up
from passes.weights import constants

STAYS = ("Identity", "Cast", "CastLike", "Dropout")
MOVES = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "DepthToSpace",
         "SpaceToDepth", "Expand", "Tile")  # fmt: skip
JOINS = ("Concat",)


def origins_of(graph: gs.Graph, tensors: Mapping[str, Known], names: Collection[str]) -> dict[str, Origin]:
    """Tensor → origin, for every constant and whatever has a constant value.

    Args:
        graph: topologically sorted, nothing folded yet.
        tensors: what is known of its tensors.
        names: weights of the file.
    """
    found: dict[str, Origin] = {tensor.name: _constant(tensor, names) for tensor in constants(graph)}
    for node in graph.nodes:
        for tensor in node.outputs:
            fact = tensors.get(tensor.name)
            if fact is not None and fact.value is not None:
                found[tensor.name] = _made(node, tensor, tensors, found)
    return found


def _constant(tensor: gs.Constant, names: Collection[str]) -> Origin:
    if tensor.name in names:
        return Source(tensor.name, tuple(int(n) for n in tensor.shape))
    return Mixed("it is a weight of a function's, a branch's or a loop's own")


def _made(node: gs.Node, output: gs.Tensor, tensors: Mapping[str, Known], found: Mapping[str, Origin]) -> Origin:
    parents = {t.name: found.get(t.name, Mixed("it has no weights")) for t in node.inputs if not t.is_empty()}
    standard = not node.domain or node.domain == "ai.onnx"
    if standard and node.op in STAYS and output is node.outputs[0]:
        first = node.inputs[0].name
        return Moved(None, output.name, {first: parents[first]})
    moved = parents if node.op in JOINS else dict(list(parents.items())[:1])
    others = {t.name: fact.value for t in node.inputs if t.name not in moved and (fact := look_up(t, tensors))}
    if not standard or node.op not in (*MOVES, *JOINS) or any(value is None for value in others.values()):
        return Mixed(f"{node.op} computes it", tuple(parents.values()))
    known = {name: value for name, value in others.items() if value is not None}
    return Moved(OnnxExporter.export_node(node), output.name, moved, known)
