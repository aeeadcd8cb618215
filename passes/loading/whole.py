"""What a model cannot be without: inputs and outputs that are tensors, and weights that are numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from google.protobuf.message import Message

from halpc.errors import ModelError
from passes.coupling.enclosed import enclosed
from passes.coupling.members import WEIGHTED
from passes.loading.bodies import Open
from passes.loading.fold import Known
from passes.proto import every_node
from passes.weights import array_of

OPTIONAL = onnx.defs.OpSchema.FormalParameterOption.Optional
_CHECKED = ("BatchNormalization", "QuantizeLinear", "DequantizeLinear")  # beside layers


def check_ports(path: Path, proto: onnx.ModelProto) -> None:
    """That what goes in and out are tensors, and what goes in has a rank.

    Raises:
        ModelError: naming the first that is not so.
    """
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        kind = value.type.tensor_type.elem_type
        if kind not in onnx.TensorProto.DataType.values():
            raise ModelError(f"{path}: tensor {value.name} has the unknown element type {kind}; export it again")
    for what, values in (("input", proto.graph.input), ("output", proto.graph.output)):
        for value in values:
            kind = value.type.WhichOneof("value") or "tensor_type"
            if kind != "tensor_type":
                raise ModelError(
                    f"{path}: {what} {value.name} is of {kind.replace('_', ' ')}, expected a tensor; export the model"
                    f" with a tensor in its place"
                )
            if what == "input" and not value.type.tensor_type.HasField("shape"):
                raise ModelError(
                    f"{path}: input {value.name} has no shape; export it with one (sizes may be open), or write it in:"
                    " onnx.tools.update_model_dims"
                )


def check_operands(proto: onnx.ModelProto) -> None:
    """That no operator, functions being inlined, lacks an operand which it has to have, and what Split has to give.

    onnx or onnxruntime may crash there.

    Raises:
        ModelError: naming the first that does.
    """
    versions = {each.domain: each.version for each in proto.opset_import}
    for node in every_node(proto.graph):
        parts = next((a.i for a in node.attribute if a.name == "num_outputs"), len(node.output))
        if node.op_type == "Split" and parts != len(node.output):
            raise ModelError(
                f"node {node.name or node.output[0]} (Split) has {len(node.output)} outputs, and num_outputs is"
                f" {parts}; export it again"
            )
        if all(node.input):
            continue
        try:
            formal = onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain).inputs
        except onnx.defs.SchemaError:  # onnxruntime's own
            continue
        for i, name in enumerate(node.input):
            if not name and formal[min(i, len(formal) - 1)].option != OPTIONAL:
                raise ModelError(
                    f"operand {i} of node {node.name or node.output[0]} ({node.op_type}) is missing, expected a"
                    " tensor; export it again"
                )


def settle_text(path: Path, proto: onnx.ModelProto) -> None:
    """That every name is text; descriptions that are none are dropped, in place.

    Raises:
        ModelError: a name is none.
    """
    try:
        wrong = next(_undecoded(proto), None)
    except UnicodeDecodeError as error:  # what protobuf without its C library raises
        wrong = error.object
    if wrong is not None:
        raise ModelError(f"{path}: {wrong!r} in it is no text; the file is damaged: export it again")


def _undecoded(message: Message) -> Iterator[bytes]:
    """Names that are no text: protobuf leaves them as bytes."""
    if isinstance(message, onnx.TensorProto):  # not all its entries
        yield from [message.name] if isinstance(message.name, bytes) else []
        for entry in message.external_data:
            yield from _undecoded(entry)
        return
    for field, value in message.ListFields():
        several = [value] if isinstance(value, Message | str | bytes) else value
        if field.name == "metadata_props":
            described = [each for each in several if next(_undecoded(each), None) is None]
            del several[:]
            several.extend(described)
        elif field.message_type is not None:
            for each in several:
                yield from _undecoded(each)
        elif field.type == field.TYPE_STRING:
            wrong = [each for each in several if isinstance(each, bytes)]
            if field.name != "doc_string":
                yield from wrong
            elif wrong:
                message.ClearField("doc_string")


def check_sizes(tensors: Mapping[str, Known], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """That the inputs are large enough for what slides along them.

    Raises:
        ModelError: naming a tensor that is left with less than nothing.
    """
    for name, fact in tensors.items():
        if any(size < 0 for size in fact.shape):
            sizes = ", ".join(f"{input_} {'x'.join(map(str, shape))}" for input_, shape in shapes.items())
            raise ModelError(
                f"tensor {name} comes out as {'x'.join(map(str, fact.shape))} from inputs of {sizes}; give --shape with"
                " larger sizes, or export the model with them"
            )


def check_layers(path: Path, twin: gs.Graph) -> dict[str, str]:
    """Layers inside control flow, which stay whole, each with the reason.

    Raises:
        ModelError: there are no others.
    """
    inside = enclosed(twin)
    open_ = (node for node in twin.nodes if node.op in WEIGHTED or isinstance(node.attrs.get("body"), Open))
    if inside and not any(open_):
        layer, reason = next(iter(inside.items()))
        raise ModelError(f"{path}: nothing to prune, since no layer is outside of control flow: {layer}: {reason}")
    return inside


def check_numbers(path: Path, graph: gs.Graph) -> None:
    """That no weight of a layer, and nothing that quantised numbers are scaled by, is NaN or infinite.

    Raises:
        ModelError: naming the first that is.
    """
    for node in graph.nodes:
        if node.op not in WEIGHTED and node.op not in _CHECKED:
            continue
        for tensor in node.inputs:
            if not isinstance(tensor, gs.Constant):
                continue
            values = array_of(tensor)
            if "float" in values.dtype.name and not np.isfinite(values).all():
                at = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
                raise ModelError(
                    f"{path}: weight {tensor.name} of {node.name} is {values[at]} at {list(at)}, expected finite"
                    " numbers; train or export it again"
                )
