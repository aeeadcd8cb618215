"""memory: bytes a network needs at once, as a function of the groups' widths.

All weights stay in memory; activations live from the node that makes them to the last that reads them, nodes running
in the file's order. A reshaped tensor is its input under another name, and an elementwise node writes over its first
input where nothing else reads that any more, as runtimes do. What a runtime adds, workspaces and padding, is not in it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from halpc.ir.dims import Dim, leaves
from halpc.ir.groups import Coupling
from halpc.ir.peak import PeakModel
from passes.latency.clusters import ELEMENTWISE
from passes.weights import bytes_of, distinct

RENAMES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})


def peak_memory(graph: gs.Graph, coupling: Coupling) -> PeakModel:
    """Peak memory of the static twin, at its batch and types; of bodies of loops and branches, the weights only."""
    weights = Counter[tuple[Dim, ...]]()
    for tensor in distinct(graph):
        weights.update(_terms(tensor, coupling))
    rows: list[Counter[tuple[Dim, ...]]] = []
    names: list[str] = []
    for node, alive in _alive(graph):
        row = Counter(weights)
        for tensor in alive:
            row.update(_terms(tensor, coupling))
        rows.append(row)
        names.append(node)
    if not rows:  # everything was folded away
        rows, names = [weights], ["the weights"]
    axes = tuple(dict.fromkeys(key for row in rows for key in row if key))
    table = np.array([[row.get(key, 0.0) for key in axes] for row in rows], dtype=np.float64).reshape(len(rows), -1)
    fixed = np.array([row.get((), 0.0) for row in rows], dtype=np.float64)
    kept = _undominated(np.column_stack([table, fixed]))
    return PeakModel(tuple(names[i] for i in kept), axes, table[kept], fixed[kept])


def _terms(tensor: gs.Tensor, coupling: Coupling) -> dict[tuple[Dim, ...], float]:
    """A tensor's bytes: the axes that may shrink, and the bytes of one element of their product."""
    axes = coupling.shape_of(tensor.name, tensor.shape or ())
    free = coupling.free()
    moving = tuple(dim for dim in axes if any(leaf.name in free for leaf in leaves(dim)))
    still = math.prod(dim.size for dim in axes if dim not in moving)
    return {tuple(sorted(moving, key=repr)): still * bytes_of(tensor.dtype)}


def _alive(graph: gs.Graph) -> Iterator[tuple[str, Sequence[gs.Tensor]]]:
    """Per node, the tensors whose buffers are alive while it runs."""
    outputs = {id(tensor) for tensor in graph.outputs}
    home = {id(tensor): tensor for tensor in graph.inputs}
    unread: Counter[int] = Counter()
    alive: dict[int, gs.Tensor] = {}

    def hold(tensor: gs.Tensor, buffer: gs.Tensor) -> None:
        home[id(tensor)] = buffer
        alive[id(buffer)] = buffer
        unread[id(buffer)] += len(tensor.outputs) + (id(tensor) in outputs)

    for tensor in graph.inputs:
        hold(tensor, tensor)
    for node in graph.nodes:
        read = Counter(id(home[id(t)]) for t in node.inputs if id(t) in home)
        for tensor in node.outputs:
            if tensor.name:
                hold(tensor, _buffer(node, tensor, home, unread, read))
        yield node.name, tuple(alive.values())
        unread.subtract(read)
        for buffer in [key for key in alive if unread[key] <= 0]:
            del alive[buffer]


def _buffer(
    node: gs.Node, tensor: gs.Tensor, home: Mapping[int, gs.Tensor], unread: Counter[int], read: Counter[int]
) -> gs.Tensor:
    """Where a node's result lies: over its input, or in memory of its own."""
    first = home.get(id(node.inputs[0])) if node.inputs and tensor is node.outputs[0] else None
    if first is None:
        return tensor
    alike = list(first.shape or ()) == list(tensor.shape or ()) and bytes_of(first.dtype) == bytes_of(tensor.dtype)
    last = unread[id(first)] == read[id(first)]
    over = node.op in RENAMES or (node.op in ELEMENTWISE and alike and last)
    return first if over else tensor


def _undominated(table: NDArray[np.float64]) -> list[int]:
    """Rows that no other is at least as large as in every column; the first of equal ones."""
    order = np.argsort(-table.sum(axis=1), kind="stable")
    kept: list[int] = []
    for index in order:
        if not any(bool((table[other] >= table[index]).all()) for other in kept):
            kept.append(int(index))
    return sorted(kept)


def widest_bytes(graph: gs.Graph) -> float:
    """The most bytes of activations that any node reads and writes: many where the batch is large."""
    return max((sum(_bytes(t) for t in _distinct(node)) for node in graph.nodes), default=0.0)


def _distinct(node: gs.Node) -> Iterable[gs.Tensor]:
    return {t.name: t for t in (*node.inputs, *node.outputs) if not isinstance(t, gs.Constant)}.values()


def _bytes(tensor: gs.Tensor) -> float:
    return math.prod(size for size in tensor.shape or () if isinstance(size, int)) * bytes_of(tensor.dtype)
