"""Names for what couple solved: which weights a group is made of, and what people call it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from itertools import pairwise

import onnx_graphsurgeon as gs

from halpc.errors import UsageError
from halpc.ir.dims import Dim, leaves
from halpc.ir.groups import Member
from passes.coupling.unify import Unifier
from passes.loading.bodies import seen

WEIGHTED = (
    "Conv", "ConvTranspose", "Gemm", "MatMul", "ConvInteger", "QLinearConv", "QLinearMatMul", "MatMulInteger",
    "FusedMatMul", "QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits", "Einsum",
    "LSTM", "GRU", "RNN", "DeformConv", "FusedConv", "FusedGemm",
)  # fmt: skip
LAYERS = (*WEIGHTED, "Loop")  # a loop is a layer where it carries weights
QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
MAKERS = (*QUANTISERS, "Transpose")  # of one weight, what a layer reads


def layer_name(node: gs.Node) -> str:
    """The module path that the exporter left in the node's name.

    `/layer1/layer1.0/downsample/downsample.0/Conv` is `layer1.0.downsample.0`: a scope repeats the name of the one
    around it where that is a container.
    """
    parts = [p for p in node.name.split("/") if p]
    if len(parts) < 2:
        return _from_weights(node) or str(node.name or node.outputs[0].name)
    path = [str(part) for part in parts[:-1]]
    name = path[0]
    for before, part in pairwise(path):
        name += part[len(before) :] if part.startswith(before + ".") else f".{part}"
    return name


def _from_weights(node: gs.Node) -> str:
    """A layer's name from its weight's, where the node's own name tells nothing."""
    for tensor in node.inputs[1:]:
        name = str(tensor.name) if isinstance(tensor, gs.Constant) else ""
        if re.search(r"\.(weight|kernel)$", name):
            return name.rsplit(".", 1)[0]
        scope = re.fullmatch(r"(.+)/[^/]+/(ReadVariableOp|merged_input)(:\d+)?", name)  # what tf2onnx leaves of Keras
        if scope:
            return scope[1].replace("/", ".")
    return ""


def produced_by(graph: gs.Graph, patterns: Iterable[str]) -> list[str]:
    """Tensors produced by the layers, or made with the weights, that match a glob pattern; each must match one.

    Raises:
        UsageError: a pattern matches nothing.
    """
    found: list[str] = []
    for pattern in patterns:
        hits = [
            node.outputs[0].name
            for node in seen(graph)
            if any(fnmatchcase(name, pattern) for name in (*aliases(node), *_tables(node)))
        ]
        if not hits:
            raise UsageError(f"--freeze {pattern!r}: no layer matches; halpc inspect lists them")
        found += hits
    return found


def _tables(node: gs.Node) -> list[str]:
    """Names of a node's weights, biases left out: groups that no layer produces are called after them."""
    return [str(tensor.name) for tensor in weights_of(node) if len(tensor.shape or ()) >= 2]


def aliases(node: gs.Node) -> tuple[str, ...]:
    """Every name that people use for a node: its layer's, its own, its first output's."""
    return (layer_name(node), node.name, node.outputs[0].name)


def members_of(graph: gs.Graph, axes: Mapping[tuple[str, int], Dim]) -> dict[str, tuple[Member, ...]]:
    """Leaf name → weight axes made of it, in graph order."""
    found: dict[str, dict[tuple[str, int, str], Member]] = {}
    for node in seen(graph):
        weights = [] if _is_made(node) else weights_of(node)
        if not weights:
            continue
        produced = _leaf_names(_results(node), axes)
        for tensor in weights:
            for axis in range(len(tensor.shape or ())):
                dim = axes.get((tensor.name, axis))
                for leaf in leaves(dim) if dim is not None else ():
                    role = "out" if leaf.name in produced else "in"
                    member = Member(tensor.name, axis, node.name, node.op, role)  # type: ignore[arg-type]
                    found.setdefault(leaf.name, {}).setdefault((tensor.name, axis, node.name), member)
    return {name: tuple(group.values()) for name, group in found.items()}


def weights_of(node: gs.Node) -> list[gs.Constant]:
    """The constants a node reads, also those that are quantised, made real or turned just before it."""
    found: list[gs.Constant] = []
    for tensor in node.inputs:
        if isinstance(tensor, gs.Constant):
            found.append(tensor)
        elif tensor.inputs and _is_made(tensor.inputs[0]):
            found += weights_of(tensor.inputs[0])
    return found


def _is_made(node: gs.Node) -> bool:
    """Whether a node only makes a quantised, real or transposed constant of one."""
    if node.op not in MAKERS or not node.inputs:
        return False
    data = node.inputs[0]
    return isinstance(data, gs.Constant) or (bool(data.inputs) and _is_made(data.inputs[0]))


def _results(node: gs.Node) -> list[gs.Tensor]:
    """What a node gives out; of a loop, without the weights that it only carries."""
    carried = node.inputs[2:] if node.op == "Loop" else []
    unchanged = {i for i, tensor in enumerate(carried) if isinstance(tensor, gs.Constant)}
    return [tensor for i, tensor in enumerate(node.outputs) if i not in unchanged]


def _leaf_names(tensors: list[gs.Tensor], axes: Mapping[tuple[str, int], Dim]) -> set[str]:
    dims = (axes.get((t.name, i)) for t in tensors for i in range(len(t.shape or ())))
    return {leaf.name for dim in dims if dim is not None for leaf in leaves(dim)}


def name_leaves(graph: gs.Graph, variables: Mapping[tuple[str, int], int], unifier: Unifier) -> dict[int, str]:
    """A unique name for every leaf: the first layer with weights that produces it, else the first tensor."""
    names: dict[int, str] = {}
    taken: dict[str, int] = {}

    def give(keys: list[tuple[str, int]], base: str) -> None:
        for key in keys:
            if key in variables and unifier.size(variables[key]) != 1:
                for leaf in sorted(unifier.leaves(variables[key])):
                    if leaf not in names:
                        count = taken[base] = taken.get(base, 0) + 1
                        names[leaf] = base if count == 1 else f"{base}#{count}"

    for node in seen(graph):
        if node.op in LAYERS and weights_of(node):
            give([(t.name, i) for t in _results(node) for i in range(len(t.shape or ()))], layer_name(node))
    for key in variables:
        give([key], key[0])
    return names
