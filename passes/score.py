"""score: importance per channel, from a file that a training framework wrote or from the weights.

A file holds a 1-D array of length C_out per layer. Its key may be the ONNX initializer, the node, the node's
output tensor, or the module path that the exporter left in the node's name, with or without `.weight`; or a Keras
layer's path (`passes/scopes.py`).
A group's score for a channel is the sum over its members that have one (HALP, arXiv 2110.10811, section 3.3).
"""

from __future__ import annotations

import difflib
import json
import logging
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from halpc.errors import SaliencyError
from halpc.ir.dims import Dim, leaves
from halpc.ir.groups import Coupling
from halpc.ir.plan import Plan
from halpc.ir.saliency import Saliency, Scores, project
from passes.coupling.members import WEIGHTED, layer_name
from passes.data_score import DataScore
from passes.loading.bodies import seen
from passes.scopes import Scoped, scoped
from passes.select.sp_lamp import sp_lamp_scores
from passes.weights import array_of

log = logging.getLogger(__name__)

DATA_SCORES = ("energy", "unrecoverable")
CLOSE = 0.8  # of difflib's ratio: a slip of the hand
LARGEST = 1e100  # of an importance
SUFFIXES = (".weight", ".kernel", ".gamma", ".scale")


@dataclass(frozen=True, slots=True)
class Layer:
    """A node whose output channels can carry importance.

    Attributes:
        name: module path, for people.
        aliases: every key that names it.
        tensor: the weight; `axis` is its output axis.
    """

    name: str
    aliases: tuple[str, ...]
    tensor: gs.Constant
    axis: int
    op: str


def layers(graph: gs.Graph) -> list[Layer]:
    """Every node with weights and output channels, BatchNormalization included, in graph order."""
    found = []
    for node in seen(graph):
        place = _weight_of(node)
        if place is None:
            continue
        tensor, axis = place
        name = layer_name(node)
        keys = [name, node.name, tensor.name, *(t.name for t in node.outputs)]
        found.append(Layer(name, tuple(dict.fromkeys(k for k in keys if k)), tensor, axis, node.op))
    return found


def _weight_of(node: gs.Node) -> tuple[gs.Constant, int] | None:
    """The node's weight and its output axis; a DequantizeLinear in between is looked through."""
    if node.op == "BatchNormalization":
        return (node.inputs[1], 0) if isinstance(node.inputs[1], gs.Constant) else None
    if node.op == "Gather" and not node.domain and node.attrs.get("axis", 0) == 0:  # columns of a table looked up
        table = _through_quantisation(node.inputs[0])
        return (table, 1) if table is not None and len(table.shape) == 2 else None
    if node.op not in WEIGHTED:
        return None
    if node.op == "Einsum":
        return None  # which of its operands' axes are channels is not to be told from the node
    for i in (3, 1, 0) if node.op in ("QLinearConv", "QLinearMatMul", "QGemm") else (1, 0):
        tensor, order = _turned(node.inputs[i]) if i < len(node.inputs) else (None, ())
        if tensor is not None and len(tensor.shape) >= 2:
            return tensor, order[_output_axis(node, tensor, i)]
    return None


def _turned(tensor: gs.Tensor) -> tuple[gs.Constant | None, Sequence[int]]:
    """The weight behind a layer's operand, and which of its axes is each of the operand's."""
    turn = tensor.inputs[0] if len(tensor.inputs) == 1 and tensor.inputs[0].op == "Transpose" else None
    weight = _through_quantisation(tensor if turn is None else turn.inputs[0])
    axes = range(0 if weight is None else len(weight.shape))
    return weight, axes if turn is None else turn.attrs.get("perm", axes[::-1])


def _through_quantisation(tensor: gs.Tensor) -> gs.Constant | None:
    if isinstance(tensor, gs.Constant):
        return tensor
    if len(tensor.inputs) == 1 and tensor.inputs[0].op == "DequantizeLinear":
        return _through_quantisation(tensor.inputs[0].inputs[0])
    return None


def _output_axis(node: gs.Node, tensor: gs.Constant, index: int) -> int:
    rank = len(tensor.shape)
    if node.op in ("ConvTranspose", "LSTM", "GRU", "RNN"):
        return 1
    if node.op in ("Gemm", "QGemm", "FusedGemm"):
        return 0 if node.attrs.get("transB", 0) else 1
    if "MatMul" in node.op and node.op != "MatMulNBits":
        turned = bool(node.attrs.get("transA" if index == 0 else "transB", 0))
        return rank - 1 if (index == 0) == turned else rank - 2
    return 0


# ---- from files ---------------------------------------------------------------------------------


def read_importance(path: Path) -> dict[str, NDArray[np.generic]]:
    """Arrays by key from `.npz`, `.safetensors` or `.json`.

    Raises:
        SaliencyError: unreadable, or of another kind.
    """
    readers: dict[str, Callable[[Path], Mapping[str, NDArray[np.generic]]]] = {
        ".npz": _read_npz, ".safetensors": _read_safetensors, ".json": _read_json,
    }  # fmt: skip
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise SaliencyError(f"{path}: importance files are .npz, .safetensors or .json")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "no such file"
        raise SaliencyError(f"{path}: {what}; give a file")
    try:
        return dict(reader(path))
    except SaliencyError:
        raise
    except Exception as error:  # three libraries, each with errors of its own for a damaged file
        raise SaliencyError(f"{path}: not a readable {path.suffix} file: {error}") from error


def _read_npz(path: Path) -> Mapping[str, NDArray[np.generic]]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no archive of arrays as numpy.savez writes, or truncated")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _read_safetensors(path: Path) -> Mapping[str, NDArray[np.generic]]:
    import ml_dtypes  # with which numpy knows bfloat16
    from safetensors.numpy import load_file

    arrays: dict[str, NDArray[np.generic]] = load_file(path)
    return {name: a.astype(np.float32) if a.dtype == ml_dtypes.bfloat16 else a for name, a in arrays.items()}


def _read_json(path: Path) -> Mapping[str, NDArray[np.generic]]:
    data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    if not isinstance(data, dict):
        raise ValueError("expected an object of layer → list of numbers")
    data = data.get("importance", data) if "format" in data else data
    if not isinstance(data, dict):
        raise ValueError(f"expected an object of layer → list of numbers under 'importance', found {_kind(data)}")
    return {name: _json_array(path, name, values) for name, values in data.items()}


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object's entries.

    Raises:
        ValueError: one is there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise ValueError(f"{twice!r} is there twice; keep one of them")
    return found


def _kind(value: object) -> str:
    """What a value of JSON is, without all that is in it."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return json.dumps(value)[:40]


def _json_array(path: Path, name: str, values: object) -> NDArray[np.generic]:
    entries = values if isinstance(values, list) else [values]
    odd = next((v for v in entries if isinstance(v, bool | str | dict) or v is None), None)
    try:
        if odd is not None or None in entries:
            raise ValueError(f"{_kind(odd)} among its entries")
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise SaliencyError(f"{path}: {name!r} is no list of numbers ({error}); expected one per channel") from error


def score_from_file(path: Path, graph: gs.Graph, coupling: Coupling) -> Saliency:
    """Importance from a file.

    Raises:
        SaliencyError: an unknown layer (with the nearest name), a wrong length, NaN, infinity or a negative score.
    """
    arrays = read_importance(path)
    if not arrays:
        raise SaliencyError(f"{path}: holds no arrays; expected one 1-D array per layer")
    table = layers(graph)
    names = _names(table)
    names |= _by_scope(path, {key: v.size for key, v in arrays.items() if not _known(key, names)}, table)
    chosen: list[tuple[Layer, Scores]] = []
    taken: dict[str, str] = {}
    for key, values in arrays.items():
        layer = _known(key, names)
        if layer is None:
            raise SaliencyError(f"{path}: {key!r} is no layer of the model{_nearest(key, names)}")
        if layer.name in taken:
            raise SaliencyError(f"{path}: {taken[layer.name]!r} and {key!r} are one layer; keep one of them")
        taken[layer.name] = key
        chosen.append((layer, _checked(path, key, values, int(layer.tensor.shape[layer.axis]))))
    return _gather(chosen, coupling, str(path))


def _bare(key: str) -> str:
    for suffix in SUFFIXES:
        if key.endswith(suffix):
            return key[: -len(suffix)]
    return key


def _names(table: list[Layer]) -> dict[str, Layer]:
    """Every alias that names one layer only; convolutions and products before BatchNormalization."""
    names: dict[str, Layer] = {}
    for layer in sorted(table, key=lambda item: item.op == "BatchNormalization"):
        for alias in layer.aliases:
            for key in (alias, _bare(alias)):
                names.setdefault(key, layer)
    return names


def _by_scope(path: Path, sizes: Mapping[str, int], table: list[Layer]) -> dict[str, Layer]:
    """What is left, as Keras' paths."""
    places = [Scoped(each.tensor.name, each.aliases, int(each.tensor.shape[each.axis])) for each in table]
    try:
        return {key: table[place] for key, place in scoped(sizes, places).items()}
    except SaliencyError as error:
        raise SaliencyError(f"{path}: {error}") from error


def _known(key: str, names: Mapping[str, Layer]) -> Layer | None:
    return names.get(key) or names.get(_bare(key))


def _nearest(key: str, names: Mapping[str, Layer]) -> str:
    """The name that was meant: hardly another, or one that the key ends with, or any."""
    ends = sorted((n for n in names if key.endswith((f".{n}", f"/{n}")) or _bare(key).endswith(f".{n}")), key=len)
    close = (
        difflib.get_close_matches(_bare(key), names, n=1, cutoff=CLOSE)
        or ends[-1:]
        or difflib.get_close_matches(_bare(key), names, n=1, cutoff=0.0)
    )
    return f"; the nearest name is {close[0]!r}" if close else ""


def _checked(path: Path, key: str, values: NDArray[np.generic], length: int) -> Scores:
    if not np.issubdtype(values.dtype, np.number) or np.issubdtype(values.dtype, np.complexfloating):
        raise SaliencyError(f"{path}: {key!r} holds {values.dtype}, expected numbers")
    if values.ndim != 1 or values.size != length:
        raise SaliencyError(
            f"{path}: {key!r} has shape {list(values.shape)}, expected [{length}]: one score per output channel"
        )
    scores = values.astype(np.float64)
    faults = (~np.isfinite(scores), "not finite"), (scores < 0, "negative"), (scores > LARGEST, "too large to add up")
    for bad, word in faults:
        if bad.any():
            raise SaliencyError(
                f"{path}: {key!r} is {word} at channel {int(np.argmax(bad))} ({scores[bad][0]});"
                f" expected finite, ≥ 0, at most {LARGEST:.0e}"
            )
    return scores


# ---- from weights -------------------------------------------------------------------------------


def _norms(layer: Layer, order: int) -> Scores:
    return _norm_along(layer.tensor, layer.axis, order)


def _norm_along(tensor: gs.Constant, axis: int, order: int) -> Scores:
    """float64[size of the axis]: norm over the other axes."""
    weights = array_of(tensor).astype(np.float64)
    others = tuple(i for i in range(weights.ndim) if i != axis)
    if order == 1:
        return np.asarray(np.abs(weights, out=weights).sum(axis=others))
    return np.asarray(np.sqrt(np.square(weights, out=weights).sum(axis=others)))


def _relative(scores: Scores) -> Scores:
    """Scores of one layer against its mean, so that layers of different scale compare."""
    return scores / max(float(scores.mean()), 1e-300) if scores.size else scores


def score_from_weights(kind: str, graph: gs.Graph, coupling: Coupling) -> Saliency:
    """Built-in scores: `l1` or `l2` norms of the filters, `bn` scales, `sp-lamp`.

    Norms are divided by their layer's mean. `bn` falls back on l2 where a group has no BatchNormalization. Groups that
    no layer produces (the columns of a table that is looked up) are judged by the other weights made of them.

    Raises:
        SaliencyError: `bn` was asked for and the model has no BatchNormalization.
    """
    table = layers(graph)
    if kind == "bn":
        chosen = [(layer, _relative(_norms(layer, 1))) for layer in table if layer.op == "BatchNormalization"]
        if not chosen:
            raise SaliencyError("--score bn: the model has no BatchNormalization (folded by the exporter?); use l2")
        scored = _gather(chosen, coupling, "BatchNormalization scales")
        return _fill(scored, score_from_weights("l2", graph, coupling))
    weighted = [layer for layer in table if layer.op != "BatchNormalization"]
    order, judge = (2, sp_lamp_scores) if kind == "sp-lamp" else (int(kind[1]), _relative)
    chosen = [(layer, judge(_norms(layer, order))) for layer in weighted]
    scored = _gather(chosen, coupling, f"{kind} of the weights")
    return _fill(scored, _by_members(scored, order, judge, graph, coupling))


def _by_members(
    scored: Saliency, order: int, judge: Callable[[Scores], Scores], graph: gs.Graph, coupling: Coupling
) -> Saliency:
    """Groups without a score, by the weights whose node gives them out, else by those that read them: their mean."""
    tensors = {t.name: t for node in seen(graph) for t in node.inputs if isinstance(t, gs.Constant)}
    found: dict[str, Scores] = {}
    for name in scored.unscored:
        members = [m for m in coupling.groups[name].members if len(tensors[m.tensor].shape) >= 2]
        chosen = [m for m in members if m.role == "out"] or members
        parts: list[Scores] = []
        for tensor, axis in dict.fromkeys((m.tensor, m.axis) for m in chosen):
            onto: dict[str, Scores] = {}
            project(coupling.axes[tensor, axis], judge(_norm_along(tensors[tensor], axis, order)), onto)
            parts.append(onto[name])
        if parts:
            found[name] = np.mean(parts, axis=0)
    left = tuple(name for name in scored.unscored if name not in found)
    return Saliency({**scored.scores, **found}, scored.source, left)


def _fill(scored: Saliency, spare: Saliency) -> Saliency:
    filled = dict(scored.scores) | {group: spare.scores[group] for group in scored.unscored}
    return Saliency(filled, scored.source, spare.unscored)


def _gather(chosen: list[tuple[Layer, Scores]], coupling: Coupling, source: str) -> Saliency:
    """Sum the layers' scores onto the groups that their output axes are made of."""
    onto: dict[str, Scores] = {}
    for layer, scores in chosen:
        dim = coupling.axes.get((layer.tensor.name, layer.axis))
        if dim is not None:
            project(_own(dim, layer), scores, onto)
    free = coupling.free()
    unscored = tuple(name for name in free if name not in onto)
    if unscored:
        log.info("%d of %d groups have no score and count as zero", len(unscored), len(free))
    by_group = {name: onto.get(name, np.zeros(group.size)) for name, group in free.items()}
    return Saliency(by_group, source, unscored)


def _own(dim: Dim, layer: Layer) -> Dim:
    assert dim.size == layer.tensor.shape[layer.axis], [leaf.name for leaf in leaves(dim)]
    return dim


# ---- together -----------------------------------------------------------------------------------


def from_channels(found: Mapping[str, DataScore], spare: Saliency, source: str) -> Saliency:
    """Scores (and value curves) by group; groups that no layer reads take weight scores, scaled to count little."""
    scores = {name: value.scores for name, value in found.items()}
    curves = {name: value.curve for name, value in found.items()}
    missing = tuple(name for name in spare.scores if name not in scores)
    least = min((float(values.mean()) for values in scores.values()), default=1.0)
    left = tuple(name for name in missing if name in spare.unscored)
    return Saliency(scores | {name: least * spare.scores[name] for name in missing}, source, left, curves)


def combined(parts: Sequence[Saliency]) -> Saliency:
    """Importance from several sources: each brought to a total of one, then summed per channel."""
    scores: dict[str, Scores] = {}
    for part in parts:
        total = max(float(sum(values.sum() for values in part.scores.values())), 1e-300)
        for name, values in part.scores.items():
            scores[name] = scores.get(name, np.zeros_like(values)) + values / total
    unscored = tuple(name for name in scores if all(name in part.unscored for part in parts))
    return Saliency(scores, " + ".join(part.source for part in parts), unscored)


def continued(saliency: Saliency, plan: Plan) -> tuple[Saliency, dict[str, int]]:
    """Importance in which channels that an earlier plan of the same groups removed come last, and what it leaves."""
    gone = {name: ~mask for name, mask in plan.masks.items()}
    return replace(saliency, curves={}, gone=gone), plan.widths
