"""half: a float32 graph in float16 or bfloat16, with onnxruntime's converter.

bfloat16 is the same conversion, its float16 retyped, weights rounded from the originals, as far as their names tell.
What the converter does not know is told beforehand (operators that have no float16) or found afterwards (types that do
not fit each other), and the model then refused: no graph leaves that no runtime takes.

Source: ONNX operators and their type constraints; https://onnxruntime.ai/docs/performance/model-optimizations/float16.html
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence

import networkx as nx
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference
from onnxruntime.transformers.float16 import convert_float_to_float16

from halpc.errors import ModelError, shortened
from passes.proto import bodies, check_model, every_graph_of, every_node, every_node_of, fits, opset_of, reads

_MAX = float(np.finfo(np.float16).max)
_FLOAT32_INSIDE = ("MeanVarianceNormalization",)  # what onnx defines it by adds float32 constants
_PROCESSORS_ONLY = "com.microsoft.nchwc"  # onnxruntime's layout for processors, float32 alone


def as_float16(model: onnx.ModelProto, keep_io_types: bool) -> onnx.ModelProto:
    """`model` in float16; it is used up.

    Args:
        keep_io_types: whether graph inputs and outputs stay float32.

    Raises:
        ModelError: a weight is beyond float16's range, or the converter makes no valid graph of it.
    """
    _as_tensors(model)
    for name, tensor in _held(model):
        peak = float(np.max(np.abs(numpy_helper.to_array(tensor)), initial=0.0))
        if _MAX < peak < np.inf and peak < float(np.finfo(np.float32).max):
            raise ModelError(
                f"'{name}' reaches {peak:.4g}, beyond fp16's {_MAX:.0f}: use "
                "`--precision bf16`, which has float32's range, or rescale the layer."
            )
    sound = _fit_together(model)
    return _checked(_converted(model, keep_io_types, ("float16",)), "float16", sound)


def as_bfloat16(model: onnx.ModelProto, keep_io_types: bool) -> onnx.ModelProto:
    """`model` in bfloat16, its operator set being 22 or later; it is used up.

    Args:
        keep_io_types: whether graph inputs and outputs stay float32.

    Raises:
        ModelError: the converter makes no valid graph of it.
    """
    _as_tensors(model)
    originals = _by_name(model)
    sound = _fit_together(model)
    _drop_regions(model)
    half = _converted(model, keep_io_types, ("float16", "bfloat16"))
    for graph in every_graph_of(half):
        for tensor in graph.initializer:
            _retype(tensor, tensor.name, originals)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
                    attribute.i = TensorProto.BFLOAT16
                if attribute.HasField("t"):
                    _retype(attribute.t, node.output[0], originals)
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                value.type.tensor_type.elem_type = TensorProto.BFLOAT16
        del graph.value_info[:]
    return _checked(half, "bfloat16", sound)


def _as_tensors(model: onnx.ModelProto) -> None:
    """Constants that are written as numbers as what the converter knows, in place."""
    for node in every_node_of(model):
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name in ("value_float", "value_floats"):
                values = np.array(helper.get_attribute_value(attribute), np.float32)
                attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(values)))


def _drop_regions(model: onnx.ModelProto) -> None:
    """Resize without the region that nothing but cropping reads, which is never bfloat16."""
    for node in every_node(model.graph):
        modes = [a.s for a in node.attribute if a.name == "coordinate_transformation_mode"]
        if node.op_type == "Resize" and len(node.input) > 2 and b"tf_crop_and_resize" not in modes:
            node.input[1] = ""


def _converted(model: onnx.ModelProto, keep_io_types: bool, kinds: Sequence[str]) -> onnx.ModelProto:
    """The library's float16 conversion; it appends input casts at the end, so the nodes are sorted again."""
    if any(node.domain == _PROCESSORS_ONLY for node in every_node(model.graph)):
        raise ModelError(
            f"the model has operators of {_PROCESSORS_ONLY}, onnxruntime's layout for processors, which know float32"
            " alone: hand over the file as it was before onnxruntime optimised it"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values below fp16's least subnormal are rounded to it
            blocked = list(_lacking(model, kinds))
            half = convert_float_to_float16(model, keep_io_types=keep_io_types, node_block_list=blocked)
    except AssertionError as error:  # all that the converter asserts
        raise ModelError(
            "the model cannot be converted to half precision: weights in its bodies (If, Loop, Scan) have one name;"
            " export it with names of their own"
        ) from error
    except (ValueError, RuntimeError, shape_inference.InferenceError) as error:
        raise ModelError(f"the model cannot be converted to half precision: {error}.") from error
    _sort(half.graph)
    return half


def _lacking(model: onnx.ModelProto, kinds: Sequence[str]) -> Iterator[str]:
    """Nodes whose operator takes float32 and not all of these types; those without a name get one."""
    opset = opset_of(model, 1)
    for node in every_node(model.graph):
        if not node.domain and (node.op_type in _FLOAT32_INSIDE or _lacks(node.op_type, opset, kinds)):
            node.name = node.name or f"{node.op_type} {node.output[0]}"
            yield node.name


def _lacks(op: str, opset: int, kinds: Sequence[str]) -> bool:
    try:
        schema = onnx.defs.get_schema(op, opset)
    except onnx.defs.SchemaError:
        return False
    constraints = {each.type_param_str: each.allowed_type_strs for each in schema.type_constraints}
    allowed = constraints.get(schema.inputs[0].type_str, ()) if schema.inputs else ()
    return "tensor(float)" in allowed and not all(f"tensor({kind})" in allowed for kind in kinds)


def _sort(graph: onnx.GraphProto) -> None:
    """Nodes behind what they read, and what their bodies read."""
    maker = {name: i for i, node in enumerate(graph.node) for name in node.output}
    order = nx.DiGraph()
    order.add_nodes_from(range(len(graph.node)))
    for i, node in enumerate(graph.node):
        order.add_edges_from((maker[name], i) for name in reads(node) & maker.keys())
    nodes = [onnx.NodeProto.FromString(graph.node[i].SerializeToString())
             for i in nx.lexicographical_topological_sort(order)]  # fmt: skip
    del graph.node[:]
    graph.node.extend(nodes)


def _checked(half: onnx.ModelProto, what: str, sound: bool) -> onnx.ModelProto:
    """The model, whose types fit each other where they did before."""
    try:
        check_model(half)
        if sound:
            _infer(half)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as error:
        said = shortened(str(error).partition("==> Context")[0])
        nested = next(bodies(half.graph.node), None) is not None
        inside = "; operators in bodies (If, Loop, Scan) that have no such type are beyond it" if nested else ""
        raise ModelError(
            f"the model cannot be made {what}: onnxruntime's converter makes no valid graph of it{inside}: {said}"
        ) from error
    return half


def _fit_together(model: onnx.ModelProto) -> bool:
    """Whether onnx's inference finds nothing wrong with the types; it knows not all operators and sizes."""
    try:
        _infer(model)
    except shape_inference.InferenceError:
        return False
    return True


def _infer(model: onnx.ModelProto) -> None:
    if fits(model):
        shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


def _held(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """float32 weights and constants, those in bodies too, each with its name."""
    for graph in every_graph_of(model):
        held = [(tensor.name, tensor) for tensor in graph.initializer]
        held += [(node.output[0], a.t) for node in graph.node for a in node.attribute if a.HasField("t")]
        yield from ((name, tensor) for name, tensor in held if tensor.data_type == TensorProto.FLOAT)


def _by_name(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """What `_held` gives, but for names that stand for several."""
    several: set[str] = set()
    found: dict[str, NDArray[np.float32]] = {}
    for name, tensor in _held(model):
        several |= {name} & found.keys()
        found[name] = numpy_helper.to_array(tensor)
    return {name: values for name, values in found.items() if name not in several}


def _retype(tensor: onnx.TensorProto, name: str, originals: Mapping[str, NDArray[np.float32]]) -> None:
    """A float16 tensor as bfloat16, in place, from the float32 original where there is one of this name.

    Rounded to the nearest, ties to even: bfloat16 is the upper half of float32's bits.
    """
    if tensor.data_type != TensorProto.FLOAT16:
        return
    values = originals[name] if name in originals else numpy_helper.to_array(tensor).astype(np.float32)
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    rounded = np.where(np.isnan(values), np.uint16(0x7FC0), rounded)
    tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.BFLOAT16, tensor.dims, rounded.tobytes(), raw=True))
