"""load: from a file to a `Model`: checked, constants folded, functions inlined, with a static twin for analysis."""

from __future__ import annotations

import functools
import hashlib
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx_graphsurgeon as gs
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo

from halpc.errors import ModelError, shortened
from halpc.ir.model import Model
from passes.bare import Bare, is_stub
from passes.loading.branches import inline_branches
from passes.loading.counts import recounted
from passes.loading.explicit import make_explicit, write_split_sizes
from passes.loading.fitting import fitting
from passes.loading.fold import Knowledge, interpret
from passes.loading.given import set_inputs
from passes.loading.literal import literalise, settle
from passes.loading.origins import origins_of
from passes.loading.recipes import recipes_of
from passes.loading.sizes import ODD_STEPS, USUAL_STEPS, static_shapes, tell, varied
from passes.loading.spellings import drop_absent, respell
from passes.loading.stored import stored_entries
from passes.loading.turned import turned
from passes.loading.twin import twin_of
from passes.loading.uniform import part
from passes.loading.weights import check_weights, read_weights
from passes.loading.whole import check_operands, check_ports, check_sizes, settle_text
from passes.proto import check_model, unused
from passes.weights import array_of, constants

log = logging.getLogger(__name__)

OPSETS = range(7, 27)
NEWEST_IR = 13


def load(
    path: Path,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int | None = None,
    values: Mapping[str, float] | None = None,
) -> Model:
    """Read and prepare a model.

    Args:
        path: an ONNX file; external data is looked for beside it.
        shapes: static shapes for inputs by name, needed where axes other than the batch are dynamic.
        batch: size of a dynamic first axis (default 1).
        values: inputs that always have this value; they stay inputs, and nothing reads them.

    Raises:
        ModelError: not ONNX, truncated, invalid, or outside the supported IR and opset range.
        UsageError: a shape, a batch or a value that the model cannot take.
    """
    try:
        return _load(path, dict(shapes or {}), batch, values or {})
    except ModelError as error:
        if str(path) in str(error):
            raise
        raise ModelError(f"{path}: {error}") from error


def _load(path: Path, given: dict[str, tuple[int, ...]], batch: int | None, values: Mapping[str, float]) -> Model:
    bare, files = read(path)
    digest, size = _digest(files)
    proto = bare.proto
    stored = stored_entries(proto)
    weights = {t.name for t in proto.graph.initializer}
    weights |= {name for node in proto.graph.node if node.op_type == "Constant" for name in node.output}
    proto = _inlined(proto)
    check_operands(proto)
    drop_absent(proto)
    set_inputs(proto, values)
    graph = _import(Bare(proto, bare.weights))
    static, dynamic = static_shapes(graph, given, batch)
    if inline_branches(graph, lambda: [interpret(graph, static), *_worlds(graph, static, dynamic)]):
        _tidy(graph)
    static, known = fitting(graph, static, dynamic, given)
    tell(static, dynamic, given)
    check_sizes(known.tensors, static)
    make_explicit(graph, known.tensors)
    variants = _worlds(graph, static, dynamic)
    if known.observed:
        variants += recounted(graph, static, known.observed)
    origins = origins_of(graph, known.tensors, weights)
    recipes = recipes_of(graph, functools.cache(lambda name: _common(name, known, variants)))
    kept = turned(graph, lambda name: _common(name, known, variants) is not None)
    _fold_common(graph, known, variants, kept)
    uniform = part(graph)
    write_split_sizes(graph, [known, *variants])
    twin = twin_of(graph, known, variants, uniform)
    return Model(path, digest, graph, twin, static, dynamic, size, _header(proto), origins, recipes, stored, uniform)


def _inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    if not proto.functions:
        return proto
    try:
        return onnx.inliner.inline_local_functions(proto)
    except RuntimeError as error:  # what its assertions raise
        said = str(error).splitlines()[0].rpartition("failed: ")[2]
        raise ModelError(f"its functions are not called as they are defined: {said}; export it again") from error


def read(path: Path) -> tuple[Bare, list[Path]]:
    """The checked model, external data included, and the files that it is in.

    Raises:
        ModelError: saying what is wrong with the file and what to do.
    """
    proto = _parsed(path)
    check_weights(path, proto)
    files = [path, *(path.parent / name for name in sorted(_locations(proto)))]
    bare = read_weights(path, proto)
    del proto
    respell(bare.proto)
    check_ports(path, bare.proto)
    _check(path, bare.proto)
    return bare, files


def _parsed(path: Path) -> onnx.ModelProto:
    """The file as a proto, external data left where it is."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ModelError(f"{path}: is no regular file (it is read more than once); copy it into one")
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise ModelError(f"{path}: is a folder, expected an ONNX file") from error
    except PermissionError as error:
        raise ModelError(f"{path}: permission denied; make the file readable") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (DecodeError, UnicodeDecodeError, ValueError) as error:
        raise ModelError(f"{path}: not an ONNX file, or truncated; export or copy it again") from error
    settle_text(path, proto)
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise ModelError(f"{path}: not an ONNX file, or truncated: it has no graph; export or copy it again")
    for what in ("node", "output"):
        if not getattr(proto.graph, what):
            raise ModelError(f"{path}: the graph has no {what}s, so there is nothing to prune; export it again")
    _check_versions(path, proto)
    return proto


def _header(proto: onnx.ModelProto) -> onnx.ModelProto:
    header = onnx.ModelProto()
    for field in ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"):
        if proto.HasField(field):
            setattr(header, field, getattr(proto, field))
    header.metadata_props.extend(proto.metadata_props)
    return header


def _check_versions(path: Path, proto: onnx.ModelProto) -> None:
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), None)
    if opset is None:
        raise ModelError(f"{path}: imports no opset of the standard domain; export it again")
    if opset not in OPSETS:
        raise ModelError(
            f"{path}: opset {opset}, expected {OPSETS.start} to {OPSETS.stop - 1}; export it with another opset_version"
            " or convert it with onnx.version_converter"
        )
    if proto.ir_version > NEWEST_IR:
        raise ModelError(
            f"{path}: IR version {proto.ir_version}, expected up to {NEWEST_IR}, the newest that onnxruntime reads;"
            f" save it with model.ir_version = {NEWEST_IR}"
        )


def _check(path: Path, proto: onnx.ModelProto) -> None:
    try:
        check_model(proto)
    except onnx.checker.ValidationError as error:
        said = " ".join(str(error).partition("==> Context")[0].split())
        foreign = re.search(r"No Op registered for (\S+)", said)
        if foreign:
            raise ModelError(
                f"{path}: operator {foreign[1]} is none of ONNX's at the model's opset: what exported it had no"
                " translation; export it with another opset or a newer exporter, or with that layer written otherwise"
            ) from error
        raise ModelError(f"{path}: not a valid ONNX model: {shortened(said)}; export it again") from error
    except ValueError as error:
        raise ModelError(f"{path}: cannot be checked: {error}") from error


def _locations(proto: onnx.ModelProto) -> set[str]:
    external = (t for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL)
    return {ExternalDataInfo(tensor).location for tensor in external}


def _digest(files: Iterable[Path]) -> tuple[str, int]:
    """sha256 and bytes of the file and, in order of name, its external data."""
    digest, size = hashlib.sha256(), 0
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                size += len(block)
    return digest.hexdigest(), size


def _import(bare: Bare) -> gs.Graph:
    """graphsurgeon's graph with unique node names, literals as constants, in topological order."""
    proto = bare.proto
    ports = {value.name for value in (*proto.graph.input, *proto.graph.output)}
    for value in [value for value in proto.graph.value_info if value.name in ports]:
        proto.graph.value_info.remove(value)  # what an input or output is called a second time, at times with less
    try:
        graph = gs.import_onnx(proto)
    except UnicodeDecodeError as error:
        raise ModelError(f"attribute {error.object!r} is no text; the file is damaged: export it again") from error
    for tensor in constants(graph):
        if is_stub(tensor._values.tensor):
            tensor.values, tensor.data_location = bare.weights[tensor.name], None
    graph.ir_version = max(int(proto.ir_version), 8)
    return _tidy(graph)


def _tidy(graph: gs.Graph) -> gs.Graph:
    """Unique node names, literals as constants, topological order."""
    _constants(graph)
    _copies(graph)
    graph.cleanup().toposort()
    nodes = [*graph.nodes, *(node for body in graph.subgraphs(recursive=True) for node in body.nodes)]
    taken, named = {node.name for node in nodes}, set[str]()
    for i, node in enumerate(nodes):
        if not node.name or node.name in named:
            node.name = unused(f"{node.name or node.op}_{i}", taken)
        named.add(node.name)
    return graph


def _copies(graph: gs.Graph) -> None:
    """An `Identity` of a weight is the weight itself: what is cut of it is cut for all who read it.

    Exporters write equal weights once. Zeros stay copies: whatever is cut of them, the others do not change.
    """
    results = {t.name for t in graph.outputs}
    for node in graph.nodes:
        if node.op != "Identity" or not isinstance(node.inputs[0], gs.Constant) or node.outputs[0].name in results:
            continue
        weight, copy = node.inputs[0], node.outputs[0]
        if array_of(weight).any():
            for reader in list(copy.outputs):
                reader.inputs = [weight if tensor is copy else tensor for tensor in reader.inputs]


def _constants(graph: gs.Graph) -> None:
    """`Constant` nodes become constants."""
    results = {t.name for t in graph.outputs}
    for node in graph.nodes:
        if node.op == "Constant" and node.outputs and node.outputs[0].name not in results:
            value = _literal(node.attrs)
            if value is not None:
                tensor = node.outputs[0]
                node.outputs.clear()
                tensor.to_constant(value)


def _literal(attrs: Mapping[str, Any]) -> np.ndarray[Any, Any] | None:
    for name, kind in (("value", None), ("value_float", np.float32), ("value_floats", np.float32),
                       ("value_int", np.int64), ("value_ints", np.int64)):  # fmt: skip
        if name in attrs:
            value = attrs[name]
            if isinstance(value, gs.Constant):
                value = value.values
            elif hasattr(value, "load"):
                value = value.load()
            return np.asarray(value) if kind is None else np.asarray(value, dtype=kind)
    return None


def _worlds(
    graph: gs.Graph, static: Mapping[str, tuple[int, ...]], dynamic: Mapping[str, tuple[int, ...]]
) -> list[Knowledge]:
    """The same at other sizes of the dynamic axes, to tell what depends on them; some that the model may not take."""
    if not any(dynamic.values()):
        return []
    worlds = [interpret(graph, varied(graph, static, dynamic, *step)) for step in USUAL_STEPS]
    return worlds + [
        replace(interpret(graph, varied(graph, static, dynamic, *step)), partial=True) for step in ODD_STEPS
    ]


def _fold_common(graph: gs.Graph, known: Knowledge, variants: list[Knowledge], kept: Collection[str]) -> None:
    """Replace what has the same value at every size of the dynamic axes by that value, but `kept`, and tidy up."""
    literalise(graph, known, variants)
    outputs = {*kept, *(t.name for t in graph.outputs)}
    for node in list(graph.nodes):
        for tensor in list(node.outputs):
            value = _common(tensor.name, known, variants)
            if value is not None and tensor.name not in outputs:
                settle(tensor, np.asarray(value, order="C"))
    graph.cleanup().toposort()


def _common(name: str, known: Knowledge, variants: list[Knowledge]) -> np.ndarray[Any, Any] | None:
    fact = known.tensors.get(name)
    if fact is None or fact.value is None:
        return None
    for other in variants:
        twin = other.tensors.get(name)
        if twin is None and other.partial:
            continue
        if twin is None or twin.value is None or not np.array_equal(fact.value, twin.value):
            return None
    return fact.value
