"""A static graph as rules see it: one `Op` per node, operands with shapes and small integers, no weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from halpc.errors import ModelError
from passes.coupling.signs import sign_of
from passes.loading.bodies import Open
from passes.loading.computed import Computed
from passes.loading.uniform import Uniform
from passes.rules.language import Body, Op, Operand
from passes.weights import array_of, dtype_name

FEW = 8  # constants of any type up to this many entries (scales, limits) are shown to rules
SMALL = 65_536  # integer constants up to this many entries are shown to rules
SHOWN = ("int64", "int32", "bool", "int8", "uint8", "int16", "uint16", "int4", "uint4", "int2", "uint2")


def view(graph: gs.Graph) -> Iterator[Op]:
    """Every node of a topologically sorted static graph, as rules see it.

    Raises:
        ModelError: a shape is not static.
    """
    known: dict[str, Operand] = {}
    for node in graph.nodes:
        op = _op(node, int(graph.opset), known)
        yield op
        _sign(op, known)
        body = node.attrs.get("body")
        if isinstance(body, Open):
            for inner in body.nodes:
                op = replace(_op(inner, int(graph.opset), known), inside=True)
                yield op
                _sign(op, known)


def _op(node: gs.Node, opset: int, known: dict[str, Operand]) -> Op:
    body = node.attrs.get("body")
    seen = isinstance(body, Open)
    tensors = [*node.inputs, *([] if seen else captured(node))]
    return Op(
        name=node.name,
        type=node.op,
        domain=node.domain or "",
        opset=opset,
        inputs=tuple(_operand(tensor, known) for tensor in tensors),
        outputs=tuple(_operand(tensor, known) for tensor in node.outputs),
        attributes={k: v for k, v in node.attrs.items() if not isinstance(v, gs.Graph)},
        body=_body(body, known) if seen else None,
    )


def _body(body: gs.Graph, known: dict[str, Operand]) -> Body:
    return Body(*(tuple(_operand(t, known) for t in side) for side in (body.inputs, body.outputs)))


def _sign(op: Op, known: dict[str, Operand]) -> None:
    sign = sign_of(op)
    known.update((y.name, replace(y, sign=sign)) for y in op.outputs if y is not None)


def captured(node: gs.Node) -> list[gs.Tensor]:
    """Outer tensors that the bodies of If, Loop and Scan read."""
    found: dict[str, gs.Tensor] = {}
    for body in (v for v in node.attrs.values() if isinstance(v, gs.Graph)):
        own = {t.name for n in body.nodes for t in n.outputs} | {t.name for t in body.inputs}
        for inner in body.nodes:
            for tensor in (*inner.inputs, *captured(inner)):
                if tensor.name and tensor.name not in own:
                    found[tensor.name] = tensor
        for tensor in body.outputs:
            if tensor.name and tensor.name not in own:
                found[tensor.name] = tensor
    return list(found.values())


def _operand(tensor: gs.Tensor, known: dict[str, Operand]) -> Operand | None:
    if tensor.is_empty():
        return None
    if tensor.name not in known:
        known[tensor.name] = _look(tensor)
    return known[tensor.name]


def _look(tensor: gs.Tensor) -> Operand:
    shape = tensor.shape
    if shape is None or any(not isinstance(n, (int, np.integer)) or n < 0 for n in shape):
        raise ModelError(f"tensor {tensor.name}: shape {shape} is not static; give --shape for the model's inputs")
    dtype = dtype_name(tensor.dtype)
    constant = isinstance(tensor, gs.Constant)
    known = Operand(
        tensor.name, tuple(int(n) for n in shape), dtype, constant, _value(tensor, dtype) if constant else None
    )
    if isinstance(tensor, Uniform):
        return replace(known, masked=not array_of(tensor).any())
    return _computed(known, tensor) if isinstance(tensor, Computed) else known


def _computed(operand: Operand, tensor: Computed) -> Operand:
    """What the twin has as a literal and the model computes: which entries vary, and which not by whole factors."""
    here = np.asarray(tensor.values).reshape(-1)
    varying: set[int] = set()
    adding: set[int] = set()
    for other in tensor.others:
        there = other.reshape(-1)
        if there.shape != here.shape:
            varying = adding = set(range(here.size))
            break
        varying.update(np.flatnonzero(there != here).tolist())
        with np.errstate(all="ignore"):
            adding.update(
                np.flatnonzero((here == 0) & (there != 0) | (np.where(here == 0, 0, there % here) != 0)).tolist()
            )
    return replace(operand, computed=True, varying=frozenset(varying), adding=frozenset(adding))


def _value(tensor: gs.Constant, dtype: str) -> np.ndarray[Any, Any] | None:
    count = int(np.prod(tensor.shape, dtype=np.int64))
    if count <= FEW or (count <= SMALL and dtype in SHOWN):
        return array_of(tensor)
    return None
