"""Numbers that an operator would derive from a width, written down before the width changes.

Attention without a `scale` divides by √(width of a head); the masked original has the old width, so must the
slim model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from passes.loading.fold import Knowledge, Known, look_up

DOMAIN = "com.microsoft"
COUNTED = {
    ("", "Attention"): "q_num_heads",
    (DOMAIN, "MultiHeadAttention"): "num_heads",
    (DOMAIN, "Attention"): "num_heads",
}


def make_explicit(graph: gs.Graph, tensors: Mapping[str, Known]) -> None:
    """Give every attention its scale as an attribute."""
    for node in graph.nodes:
        attribute = COUNTED.get((node.domain or "", node.op))
        if attribute is None or node.attrs.get("scale", 0.0):
            continue
        dims = _dims_of_a_head(node, attribute, tensors)
        if dims:
            node.attrs["scale"] = 1.0 / math.sqrt(dims)


def _dims_of_a_head(node: gs.Node, attribute: str, tensors: Mapping[str, Known]) -> int:
    """Width of a query head, 0 where it is not known."""
    query = look_up(node.inputs[0], tensors)
    if query is None:
        return 0
    if (node.domain, node.op) == (DOMAIN, "Attention"):
        weight = look_up(node.inputs[1], tensors)
        sizes = node.attrs.get("qkv_hidden_sizes")
        hidden = sizes[0] if sizes else 0 if weight is None else weight.shape[1] // 3
        return int(hidden) // int(node.attrs[attribute])
    if len(query.shape) == 3:
        return query.shape[2] // int(node.attrs[attribute])
    return query.shape[-1] if len(query.shape) == 4 else 0


def write_split_sizes(graph: gs.Graph, worlds: Sequence[Knowledge]) -> None:
    """Give every Split that implies equal parts its sizes, where they do not depend on dynamic axes."""
    opset = int(graph.opset)
    for node in graph.nodes:
        if node.op != "Split" or node.domain or "split" in node.attrs or len(node.inputs) > 1:
            continue
        sizes = [_part_sizes(node, world) for world in worlds]
        if not sizes[0] or any(
            other != sizes[0] for other, world in zip(sizes, worlds, strict=True) if other or not world.partial
        ):
            continue
        node.attrs.pop("num_outputs", None)
        if opset >= 13:
            node.inputs.append(gs.Constant(f"{node.name}/sizes", np.array(sizes[0], dtype=np.int64)))
        else:
            node.attrs["split"] = sizes[0]


def _part_sizes(node: gs.Node, world: Knowledge) -> list[int]:
    """Sizes of a Split's parts, empty where they are not known."""
    parts = [world.tensors.get(tensor.name) for tensor in node.outputs]
    axis = int(node.attrs.get("axis", 0))
    return [int(part.shape[axis]) for part in parts if part is not None] if None not in parts else []
