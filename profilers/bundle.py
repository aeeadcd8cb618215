"""Many small models as one, side by side: one parse, one build and one run time them all.

Each keeps its own inputs (TensorRT may fuse convolutions that share one), and every name in model `i` is
prefixed `v{i}:`, by which a runtime's layer names are told apart again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx
from onnx import compose

from halpc.errors import ModelError
from halpc.ir.profiler import ASIDE

_START = r"(?:(?<=\.\.\.)|(?<![\w/.:-]))"  # of a name: one that was given may have `_v2:` in it
_PREFIX = re.compile(_START + r"v(\d+):")
_NODES = re.compile(_START + r"v\d+:([^\s,}\])]+)")


def bundle(models: Sequence[onnx.ModelProto]) -> onnx.ModelProto:
    """One model that computes all of `models`, independently.

    Raises:
        ModelError: the models differ in an operator set version.
    """
    merged = onnx.ModelProto()
    merged.CopyFrom(_named(models[0], 0))
    versions = {entry.domain: entry.version for entry in merged.opset_import}
    for index, model in enumerate(models[1:], start=1):
        for entry in model.opset_import:
            if versions.setdefault(entry.domain, entry.version) != entry.version:
                raise ModelError(f"models of different operator sets cannot be bundled: {versions} and {entry.version}")
        part = _named(model, index).graph
        for field in ("node", "initializer", "sparse_initializer", "input", "output", "value_info"):
            getattr(merged.graph, field).extend(getattr(part, field))
    merged.ir_version = max(model.ir_version for model in models)
    del merged.opset_import[:]
    merged.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in versions.items())
    return merged


def _named(model: onnx.ModelProto, index: int) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        node.name = node.name or node.output[0]
    return compose.add_prefix(copy, f"v{index}:")


def owners(layer: str) -> frozenset[int]:
    """Which bundled models a runtime's layer name belongs to; more than one where layers were merged."""
    return frozenset(int(number) for number in _PREFIX.findall(layer))


def is_aside(layer: str) -> bool:
    """Whether a layer is nothing but scaffolding, which does not count."""
    nodes = _NODES.findall(layer)
    return bool(nodes) and all(node.startswith(ASIDE) for node in nodes)
