"""cast: give the ONNX graph the precision that is asked for, with a library's converter.

Strongly typed runtimes (TensorRT 11 knows no other) compute in the types of the graph, so precision is a
property of the model that is handed to them:

    fp32, tf32   the graph as it is; TF32 is the runtime's choice within float32
    fp16, bf16   see passes/casting/half.py; bf16 needs opset 22
    int8         `onnxruntime.quantization`: static Q/DQ, weights symmetric per channel, ranges from inputs
    fp8          the same conversion, its int8 retyped as float8 (E4M3) from the original weights: scale = amax / 448

Where activations are quantised is a matter of who runs them. TensorRT wants symmetric int8 before what consumes it.
Processors' kernels multiply uint8 by int8, and fuse only what is quantised on all sides: every operator that can be,
biases as int32.

Requires: a float32 model, or one that already has the precision (it passes through unchanged).
Ensures: initializer names survive, except that a quantised weight `w` becomes `w_quantized` with its scale.

Source: ONNX operators QuantizeLinear, DequantizeLinear and Cast; TensorRT, "Working with quantized types".
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, version_converter
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from halpc.errors import CalibrationError, ModelError, UsageError
from halpc.options import PRECISIONS
from passes.casting.float8 import as_float8, has_float8
from passes.casting.half import as_bfloat16, as_float16
from passes.proto import opset_of

log = logging.getLogger(__name__)

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_QUANTISERS = (
    "QuantizeLinear",
    "DequantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
)
_LEVELS, _FEW = 256, 2
_OPSET = {
    "bf16": 22,
    "int8": 13,
    "fp8": 19,
}  # Conv takes bfloat16 from 22, Q/DQ per channel from 13, float8 from 19

Inputs = Sequence[Mapping[str, NDArray[Any]]]


def cast(
    model: onnx.ModelProto,
    precision: str,
    *,
    inputs: Inputs = (),
    keep_io_types: bool = True,
    processor: bool = False,
) -> onnx.ModelProto:
    """A copy of `model` at `precision`.

    Args:
        precision: one of `PRECISIONS`.
        inputs: calibration inputs, for int8 and fp8; each maps every graph input to an array of its shape.
        keep_io_types: whether graph inputs and outputs stay float32 (fp16 and bf16; Q/DQ models always do).
        processor: int8 as processors' runtimes take it, in place of TensorRT.

    Raises:
        UsageError: no such precision.
        ModelError: the model has another precision already, or cannot be converted.
        CalibrationError: int8 or fp8 without inputs, or with inputs that do not fit the model.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}.")
    found = precision_of(model)
    if found == precision or (found == "fp32" and precision == "tf32"):
        return _copy(model)
    if found != "fp32":
        raise ModelError(
            f"the model is already {found} and cannot be made {precision}: a conversion starts from float32. "
            f"Use `--precision {found}`, or hand over the float32 model."
        )
    if precision == "fp16":
        return as_float16(_copy(model), keep_io_types)
    if precision == "bf16":
        return as_bfloat16(_at_opset(model, "bf16"), keep_io_types)
    return _to_fp8(model, inputs) if precision == "fp8" else _to_int8(model, inputs, processor)


def cast_for_timing(
    model: onnx.ModelProto,
    precision: str,
    *,
    seed: int = 0,
    keep_io_types: bool = True,
    processor: bool = False,
) -> onnx.ModelProto:
    """`cast` for a stop-watch: calibration inputs, where needed, are random, since ranges cost no time.

    A model in which nothing can be quantised stays as it is.
    """
    inputs: Inputs = ()
    if precision in ("int8", "fp8"):
        if not _nodes_to_quantise(_copy(model)):  # runs in float in a quantised network, too
            return _at_opset(model, precision)
        rng = np.random.default_rng(seed)
        inputs = [{name: _random(rng, shape, kind) for name, shape, kind in _inputs_of(model)} for _ in range(2)]
    return cast(model, precision, inputs=inputs, keep_io_types=keep_io_types, processor=processor)


def precision_of(model: onnx.ModelProto) -> str:
    """What the graph is now: fp32, fp16, bf16, int8 or fp8, by its Q/DQ nodes and weights."""
    quantised = [node for node in model.graph.node if node.op_type in _QUANTISERS]
    types = [tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1]
    types += [a.t.data_type for node in model.graph.node for a in node.attribute if a.HasField("t") and a.t.dims]
    if quantised:
        return "fp8" if has_float8(model) else "int8"
    counts = {"bf16": types.count(TensorProto.BFLOAT16), "fp16": types.count(TensorProto.FLOAT16)}
    counts["fp32"] = types.count(TensorProto.FLOAT)
    most = max(counts, key=lambda name: counts[name])
    return most if counts[most] else "fp32"


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _at_opset(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """`model`, converted upwards where its operator set does not know the precision's types."""
    needed = _OPSET[precision]
    version = opset_of(model, needed)
    if version >= needed:
        return _copy(model)
    try:
        return version_converter.convert_version(_copy(model), needed)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"{precision} needs ONNX operator set {needed}, the model has {version} and cannot be raised: "
            f"{error}. Export it with opset_version={needed} or later."
        ) from error


class _Reader(CalibrationDataReader):
    """Hands calibration inputs to onnxruntime's quantiser, one at a time."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._next = iter(inputs)

    def get_next(self) -> Mapping[str, NDArray[Any]] | None:
        return next(self._next, None)

    def rewind(self) -> None:
        self._next = iter(self._inputs)


def _to_int8(model: onnx.ModelProto, inputs: Inputs, processor: bool) -> onnx.ModelProto:
    _check_inputs(model, "int8", inputs)
    return _quantised(_at_opset(model, "int8"), "int8", inputs, everywhere=processor)


def _to_fp8(model: onnx.ModelProto, inputs: Inputs) -> onnx.ModelProto:
    """The int8 conversion retyped: onnxruntime's own float8 takes its scales from standard deviations, and clips."""
    _check_inputs(model, "fp8", inputs)
    source = _at_opset(model, "fp8")
    return as_float8(_quantised(source, "fp8", inputs, everywhere=False), source)


def _quantised(source: onnx.ModelProto, precision: str, inputs: Inputs, everywhere: bool) -> onnx.ModelProto:
    """Static Q/DQ in int8 for `precision`, at weighted layers and residual adds, or wherever onnxruntime can."""
    nodes = _nodes_to_quantise(source)
    if not nodes:
        raise ModelError(
            f"nothing in the model can be made {precision}: it has no {', '.join(_WEIGHTED)} with weights."
        )
    with tempfile.TemporaryDirectory() as folder, _quiet():
        before, after = Path(folder, "float.onnx"), Path(folder, "quantised.onnx")
        onnx.save(source, before)
        try:
            quantize_static(
                before,
                after,
                _Reader(inputs),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8 if everywhere else QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_quantize=None if everywhere else nodes,
                op_types_to_quantize=None if everywhere else [*_WEIGHTED, "Add"],
                extra_options={"WeightSymmetric": True} if everywhere else _options(),
            )
        except (ValueError, RuntimeError, TypeError, KeyError, IndexError) as error:
            raise ModelError(f"onnxruntime cannot quantise the model to {precision}: {error}.") from error
        return onnx.load(after)


def _options() -> dict[str, object]:
    return {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,  # TensorRT's DequantizeLinear takes no int32
        "OpTypesToExcludeOutputQuantization": [
            *_WEIGHTED,
            "Add",
        ],  # Q/DQ before what consumes int8, as vendors place it
    }


def _nodes_to_quantise(model: onnx.ModelProto) -> list[str]:
    """Names of layers with constant weights and of adds that join a convolution to its shortcut.

    Nodes without a name get one.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    names = []
    for number, node in enumerate(model.graph.node):
        weighted = node.op_type in _WEIGHTED and node.input[1] in constants
        residual = node.op_type == "Add" and not constants & set(node.input)
        if weighted or (residual and any(makers.get(name) == "Conv" for name in node.input)):
            node.name = node.name or f"{node.op_type}_{number}"
            names.append(node.name)
    return names


def _inputs_of(model: onnx.ModelProto) -> list[tuple[str, tuple[int, ...], int]]:
    """(name, shape with 0 for what is not fixed, element type) of every input that is no initializer."""
    constants = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in constants]
    kinds = [value.type.tensor_type for value in values]
    return [
        (value.name, tuple(dim.dim_value for dim in kind.shape.dim), kind.elem_type)
        for value, kind in zip(values, kinds, strict=True)
    ]


def _random(rng: np.random.Generator, shape: tuple[int, ...], kind: int) -> NDArray[Any]:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    shape = tuple(size or 1 for size in shape)
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, _LEVELS if dtype == np.uint8 else _FEW, shape).astype(dtype)  # pixels; indices and masks


def _check_inputs(model: onnx.ModelProto, precision: str, inputs: Inputs) -> None:
    if not inputs:
        raise CalibrationError(
            f"{precision} needs calibration inputs to find the range of every tensor: give some with "
            "`--calibration`, or hand over a model that is already quantised."
        )
    for number, feed in enumerate(inputs):
        for name, shape, _ in _inputs_of(model):
            given = feed.get(name)
            if given is None or not _fits(given.shape, shape):
                found = "is missing" if given is None else f"has shape {given.shape}"
                raise CalibrationError(f"calibration input {number}: '{name}' {found}, the model takes {shape}.")


def _fits(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether an array's shape is the model's, where 0 stands for any size."""
    return len(given) == len(wanted) and all(w in (0, g) for g, w in zip(given, wanted, strict=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps off the user what onnxruntime's quantiser prints, and its advice on the root logger."""
    printed, root = io.StringIO(), logging.getLogger()
    handler = logging.NullHandler()  # without one, logging.warning() would install a handler for good

    def passes(record: logging.LogRecord) -> bool:
        return "pre-processing" not in record.getMessage()

    root.addHandler(handler)
    root.addFilter(passes)
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        root.removeFilter(passes)
        root.removeHandler(handler)
        for line in printed.getvalue().splitlines():
            log.debug("onnxruntime: %s", line)
