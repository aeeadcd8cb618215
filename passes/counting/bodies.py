"""Bodies of control flow: those that halpc sees through, and closed ones, which cost the same at every width.

Of an `If` the dearer branch counts. A loop counts as often as it runs, where that is a number of the model, and a body
whose tensors change their shapes on the way as in its first step.
"""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_graphsurgeon as gs

from passes.counting.formulas import formula_of, label, may_cost
from passes.counting.sizes import Sizes, UnknownSizeError, Volume
from passes.loading.bodies import FIRST, Open, bodies_of
from passes.loading.fold import Known, interpret_body, look_up, onnx_type

ENDLESS = 1 << 31  # loops that are told to run this often are ended by their condition
SLICED = 9  # the opset from which on Scan has no axis for the batch


@dataclass(slots=True)
class Tally:
    """What the nodes of a graph cost.

    Attributes:
        volumes: of all that is counted.
        uncounted: how many nodes may cost something that is not counted, by operator.
        once: loops of which nobody knows how often they run, and whose body counts once.
        branches: `If` nodes whose branches cost differently.
    """

    volumes: list[Volume] = field(default_factory=list)
    uncounted: Counter[str] = field(default_factory=Counter)
    once: list[str] = field(default_factory=list)
    branches: list[str] = field(default_factory=list)

    def node(self, node: gs.Node, sizes: Sizes) -> None:
        """A node that is no control flow."""
        formula = formula_of(node)
        if formula is None:
            if may_cost(node):
                self.uncounted[label(node)] += 1
            return
        try:
            self.volumes += formula(node, sizes)
        except UnknownSizeError:
            self.uncounted[label(node)] += 1

    def add(self, other: Tally, times: float = 1.0) -> None:
        """Another graph's, so many times over."""
        self.volumes += [replace(volume, coefficient=times * volume.coefficient) for volume in other.volumes]
        self.uncounted += other.uncounted
        self.once += other.once
        self.branches += other.branches

    @property
    def whole(self) -> float:
        """All volumes at full width."""
        return sum(volume.whole for volume in self.volumes)


def tally(graph: gs.Graph, sizes: Sizes) -> Tally:
    """All nodes of a static graph, and of the bodies in it."""
    result = Tally()
    known: dict[str, Known] | None = None
    for node in graph.nodes:
        body = node.attrs.get("body")
        if isinstance(body, Open):
            inner = Tally()
            for each in body.nodes:
                inner.node(each, sizes)
            _repeat(result, node, inner, _steps_of_open(node))
        elif bodies_of(node):
            known = _known(graph) if known is None else known
            _closed(result, node, known, int(graph.opset))
        else:
            result.node(node, sizes)
    return result


def _known(graph: gs.Graph) -> dict[str, Known]:
    """Tensors of a static graph and of its open bodies."""
    tensors = dict(graph.tensors())
    for node in graph.nodes:
        if isinstance(node.attrs.get("body"), Open):
            tensors.update(node.attrs["body"].tensors())
    found = ((name, _fact(tensor)) for name, tensor in tensors.items())
    return {name: fact for name, fact in found if fact is not None}


def _fact(tensor: gs.Tensor) -> Known | None:
    if isinstance(tensor, gs.Constant):
        return look_up(tensor, {})
    if tensor.shape is None or not all(isinstance(n, int | np.integer) for n in tensor.shape):
        return None
    return Known(tuple(int(n) for n in tensor.shape), onnx_type(tensor.dtype))


def _closed(result: Tally, node: gs.Node, known: Mapping[str, Known], opset: int) -> None:
    """A node with bodies that nothing is pruned in: all of them are fixed costs."""
    if may_cost(node):
        result.uncounted[label(node)] += 1
    if node.op == "If":
        found = [_inside(body, known, {}, opset) for body in bodies_of(node)]
        result.add(max(found, key=lambda each: each.whole))
        result.uncounted |= functools.reduce(operator.or_, (each.uncounted for each in found))
        if len({each.whole for each in found}) > 1:
            result.branches.append(node.name)
        return
    for body in bodies_of(node):
        _repeat(result, node, _inside(body, known, _given(node, body, known, opset), opset), _steps(node, known, opset))


def _repeat(result: Tally, node: gs.Node, inner: Tally, steps: float | None) -> None:
    if steps is None and inner.volumes:
        result.once.append(node.name)
    result.add(inner, 1.0 if steps is None else steps)


def _inside(body: gs.Graph, known: Mapping[str, Known], given: Mapping[str, Known], opset: int) -> Tally:
    facts = interpret_body(body, {**known, **given})
    result = Tally()
    for node in body.nodes:
        if bodies_of(node):
            _closed(result, node, facts, opset)
        else:
            result.node(node, Sizes({}, facts))
    return result


def _given(node: gs.Node, body: gs.Graph, known: Mapping[str, Known], opset: int) -> dict[str, Known]:
    """What is known of the body's inputs at the first step."""
    facts = [None if tensor.is_empty() else look_up(tensor, known) for tensor in node.inputs]
    if node.op == "Loop":
        facts[:FIRST] = [Known((), onnx_type(tensor.dtype)) for tensor in body.inputs[:FIRST]]
    elif node.op == "Scan" and opset >= SLICED:
        states = len(facts) - int(node.attrs["num_scan_inputs"])
        axes = node.attrs.get("scan_input_axes", [0] * len(facts))
        sliced = zip(facts[states:], axes, strict=False)
        facts = facts[:states] + [None if fact is None else _without(fact, axis) for fact, axis in sliced]
    else:
        return {}
    named = zip((tensor.name for tensor in body.inputs), facts, strict=False)
    return {name: fact for name, fact in named if fact is not None}


def _without(fact: Known, axis: int) -> Known:
    place = range(len(fact.shape))[axis]
    return Known(fact.shape[:place] + fact.shape[place + 1 :], fact.dtype)


def _steps(node: gs.Node, known: Mapping[str, Known], opset: int) -> float | None:
    """How often a loop runs; None where the model does not say."""
    if node.op == "Scan" and opset >= SLICED:
        scanned = look_up(node.inputs[-1], known)
        axis = node.attrs.get("scan_input_axes", [0])[-1]
        return None if scanned is None else float(scanned.shape[axis])
    return _told(node, known) if node.op == "Loop" else None


def _told(loop: gs.Node, known: Mapping[str, Known]) -> float | None:
    fact = None if loop.inputs[0].is_empty() else look_up(loop.inputs[0], known)
    steps = None if fact is None or fact.value is None else float(np.asarray(fact.value).reshape(-1)[0])
    return steps if steps is not None and steps < ENDLESS else None


def _steps_of_open(loop: gs.Node) -> float | None:
    """The same of a loop that is seen through: it may collect something, once in every step."""
    collected = [tensor for tensor in loop.outputs[len(loop.inputs) - FIRST :] if not tensor.is_empty()]
    return float(collected[0].shape[0]) if collected else _told(loop, {})
