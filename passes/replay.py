"""A plan in the words of the file: what it keeps of the file's own weights, whatever load made of them.

A weight that load folded by moving entries (Transpose, Reshape, Concat, …) is followed back entry by entry: where
the kept entries are whole slices of the file's weight, and every use of that weight keeps the same ones, the slices
are named there. What cannot be followed (computed weights, say) is `derived`, with the reason; unless it is all zeros
it is in `keep` too, under the tensor's own name, so that `keep` alone says what the slim model has of the original.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from halpc.ir.model import Model
from halpc.ir.origin import Moved, Origin, Source, mixed, sources
from halpc.ir.plan import Derived, Plan
from passes.loading.fold import evaluate
from passes.weights import array_of, constants

Places = NDArray[np.int64]  # a flat position in a source for every entry; −1 where the entry is of another one


def in_the_files_words(model: Model, plan: Plan) -> Plan:
    """`plan` with the file's weights in `keep`, and in `derived` what cannot be said of them."""
    plan = replace(plan, keep={name: axes for name, axes in plan.keep.items() if name not in model.uniform})
    folded = {name for name in plan.keep if not isinstance(model.origins.get(name), Source)}
    derived = {name: why for name in folded if (why := _cannot_follow(model, name)) is not None}
    keep = {name: axes for name, axes in plan.keep.items() if name not in folded}
    uses = _uses(model)
    touched = {source for name in folded - set(derived) for source in sources(model.origins[name])}
    for source in sorted(touched, key=lambda s: s.name):
        axes = _slices(model, plan, source, uses[source])
        if axes is None:
            why = "its entries are no whole slices of that weight, or another use of that weight keeps other ones"
            derived |= {name: why for name in uses[source] if name in folded}
        else:
            keep[source.name] = axes
    values = {tensor.name: tensor for tensor in constants(model.graph)}
    keep |= {name: plan.keep[name] for name in derived if array_of(values[name]).any()}
    lost = {name: Derived(tuple(_names(model, name)), why, plan.keep[name]) for name, why in derived.items()}
    return replace(plan, keep=keep, derived=lost)


def _cannot_follow(model: Model, name: str) -> str | None:
    origin = model.origins.get(name)
    if origin is None:
        return "nothing is known of how it was made"
    found = mixed(origin)
    return None if found is None else found.why


def _names(model: Model, name: str) -> list[str]:
    origin = model.origins.get(name)
    return [] if origin is None else sorted({source.name for source in sources(origin)})


def _uses(model: Model) -> dict[Source, list[str]]:
    """The loaded model's constants that hold entries of each of the file's weights."""
    uses: dict[Source, list[str]] = {}
    for name in dict.fromkeys(tensor.name for tensor in constants(model.graph)):
        origin = model.origins.get(name)
        if origin is not None:
            for source in dict.fromkeys(sources(origin)):
                uses.setdefault(source, []).append(name)
    return uses


def _slices(model: Model, plan: Plan, source: Source, uses: Sequence[str]) -> Mapping[int, NDArray[np.int64]] | None:
    """What all uses keep of a weight of the file, per axis; None where that is no box or uses disagree."""
    count = int(np.prod(source.shape, dtype=np.int64))
    covered, kept = np.zeros(count, dtype=np.bool_), np.zeros(count, dtype=np.bool_)
    each: list[tuple[Places, Places]] = []
    for name in uses:
        if mixed(model.origins[name]) is not None or name in model.uniform:
            return None
        places = _places(model.origins[name], source, model)
        left = places
        for axis, indices in plan.keep.get(name, {}).items():
            left = left.take(indices, axis=axis)
        each.append((_own(places), _own(left)))
        covered[each[-1][0]] = True
        kept[each[-1][1]] = True
    agree = all(np.array_equal(np.unique(all_[kept[all_]]), np.unique(left)) for all_, left in each)
    box = [np.unique(axis) for axis in np.nonzero(kept.reshape(source.shape))]
    if not covered.all() or not agree or int(np.prod([len(b) for b in box])) != int(kept.sum()):
        return None
    return {i: b.astype(np.int64) for i, (b, n) in enumerate(zip(box, source.shape, strict=True)) if len(b) < n}


def _own(places: Places) -> Places:
    flat = places.reshape(-1)
    return flat[flat >= 0]


def _places(origin: Origin, source: Source, model: Model) -> Places:
    """Where every entry of a moved weight was in `source`."""
    return _placed(origin, source, [helper.make_opsetid("", int(model.graph.opset))], {})


def _placed(origin: Origin, source: Source, opsets: list[onnx.OperatorSetIdProto], known: dict[int, Places]) -> Places:
    """The same; `known` holds what is shared, by identity."""
    if id(origin) not in known:
        known[id(origin)] = _moved(origin, source, opsets, known)
    return known[id(origin)]


def _moved(origin: Origin, source: Source, opsets: list[onnx.OperatorSetIdProto], known: dict[int, Places]) -> Places:
    if isinstance(origin, Source):
        flat = np.arange(np.prod(origin.shape, dtype=np.int64)) if origin == source else np.full(origin.shape, -1)
        return flat.reshape(origin.shape).astype(np.int64)
    assert isinstance(origin, Moved)
    moved = {name: _placed(parent, source, opsets, known) for name, parent in origin.parents.items()}
    if origin.node is None:
        return next(iter(moved.values()))
    values = evaluate(origin.node, {**moved, **origin.others}, opsets)
    return np.asarray(values[list(origin.node.output).index(origin.output)], dtype=np.int64)
