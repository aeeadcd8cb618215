"""The static twin: a copy of the model at fixed input shapes in which all that is constant there is a literal.

Where the model has dynamic axes, some of these literals are computed in the model itself. They are marked, since
nothing of them can be sliced, and remember which of their entries vary with the dynamic axes.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from passes.loading.bodies import open_bodies
from passes.loading.computed import Computed
from passes.loading.fold import Knowledge, Known
from passes.loading.literal import settle
from passes.loading.uniform import Uniform

SCALARS = 16  # floats and truth values that count or choose something; more are data, and their operators stay


def twin_of(graph: gs.Graph, known: Knowledge, variants: list[Knowledge], uniform: Collection[str] = ()) -> gs.Graph:
    """The twin of `graph` at the shapes of `known`; `variants` are known at other sizes of the dynamic axes.

    Args:
        uniform: names of constants that are no weights.
    """
    twin = graph.copy()
    measured = [node.inputs[0] for node in twin.nodes if node.op in ("Shape", "Size") and not node.domain]
    outputs = {t.name for t in twin.outputs}
    for name, tensor in twin.tensors().items():
        fact = known.tensors.get(name)
        if name in uniform:
            tensor.__class__ = Uniform
        if isinstance(tensor, gs.Constant) or fact is None:
            continue
        if fact.value is not None and name not in outputs and tensor.inputs and _is_literal(fact):
            settle(tensor, np.ascontiguousarray(fact.value).reshape(fact.shape))
            tensor.__class__ = Computed
            tensor.others = [_value(world, name) for world in variants if not world.partial or name in world.tensors]
        else:
            tensor.shape, tensor.dtype = list(fact.shape), tensor.dtype if tensor.dtype is not None else fact.dtype
    twin = _tidy(twin, measured)
    open_bodies(twin, known)
    return twin


def _tidy(twin: gs.Graph, measured: list[gs.Tensor]) -> gs.Graph:
    """Without what nobody needs; tensors whose shape alone is read at run time are needed, for their widths."""
    outputs = list(twin.outputs)
    names = {t.name for t in outputs}
    twin.outputs = [
        *outputs,
        *{t.name: t for t in measured if not isinstance(t, gs.Constant) and t.name not in names}.values(),
    ]
    twin.cleanup()
    twin.outputs = outputs
    return twin.toposort()


def _is_literal(fact: Known) -> bool:
    """Integers, a few floats and truth values; whole computed tables and masks stay what computes them."""
    assert fact.value is not None
    return fact.value.dtype.kind not in "fb" or fact.value.size <= SCALARS


def _value(world: Knowledge, name: str) -> NDArray[np.generic]:
    fact = world.tensors.get(name)
    return np.zeros(0) if fact is None or fact.value is None else np.asarray(fact.value)
