"""Constants of one value that several operands are: each gets its own, which need not be as wide as the others.

Exporters write equal constants once. So the ones and zeros of normalisations without parameters, which the dynamo
exporter makes of GroupNorm too, would tie all of a network's layers to each other. These are no weights that somebody
trained: what is removed of them is not zero in the masked original, and a plan says nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from passes.proto import unused
from passes.weights import array_of, dtype_name


class Uniform(gs.Constant):
    """Such a constant in the twin."""


def part(graph: gs.Graph) -> frozenset[str]:
    """Give every operand its own copy, in place; names of all copies."""
    elsewhere = {t.name for t in graph.outputs}
    elsewhere |= {name for body in graph.subgraphs(recursive=True) for name in body.tensors()}
    found: set[str] = set()
    taken = set(graph.tensors())
    for tensor in _shared(graph):
        if tensor.name in elsewhere or not _is_uniform(tensor):
            continue
        found.add(tensor.name)
        places = [
            (node, i)
            for node in {id(n): n for n in tensor.outputs}.values()
            for i, x in enumerate(node.inputs)
            if x is tensor
        ]
        for node, i in places[1:]:
            name = unused(f"{tensor.name}/{node.name}", taken)
            node.inputs[i] = gs.Constant(name, array_of(tensor))
            found.add(name)
    return frozenset(found)


def _shared(graph: gs.Graph) -> Iterator[gs.Constant]:
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Constant) and len(tensor.outputs) > 1:
            yield tensor


def _is_uniform(tensor: gs.Constant) -> bool:
    """Whether its entries are floats, one number, and in a row."""
    if dtype_name(tensor.dtype) not in ("float16", "float32", "float64"):
        return False
    if sum(size > 1 for size in tensor.shape) != 1:
        return False
    values = array_of(tensor)
    return bool(np.all(values == values.flat[0]))
