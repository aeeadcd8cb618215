"""What may be done to an exported file, in place: quantisation in its spellings, and float16."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime import quantization
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType

from tests.corpus.randomise import example
from tests.corpus.row import Input

Conversion = Callable[[Path, tuple[Input, ...]], None]
SAMPLES = 4
logging.getLogger("onnxruntime.quantization").setLevel(logging.ERROR)


class _Samples(CalibrationDataReader):  # type: ignore[misc]
    """A few random inputs to calibrate with."""

    def __init__(self, path: Path, inputs: tuple[Input, ...]) -> None:
        names = [each.name for each in onnx.load(path, load_external_data=False).graph.input]
        self.samples: Iterator[dict[str, np.ndarray]] = iter(
            {name: value.numpy() for name, value in zip(names, example(inputs), strict=False)} for _ in range(SAMPLES)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.samples, None)


def _static(**options: Any) -> Conversion:
    """Quantised with activation ranges from a calibration run."""

    def convert(path: Path, inputs: tuple[Input, ...]) -> None:
        prepared = path.with_suffix(".prepared")
        quantization.quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        try:
            quantization.quantize_static(str(prepared), str(path), _Samples(prepared, inputs), **options)
        finally:
            prepared.unlink(missing_ok=True)

    return convert


def _dynamic(path: Path, inputs: tuple[Input, ...]) -> None:
    """Weights quantised, activations at run time: ConvInteger, MatMulInteger, DynamicQuantizeLinear."""
    model = onnx.load(path)
    quantization.quantize_dynamic(model, str(path), weight_type=QuantType.QUInt8)


def _dynamic_channel(path: Path, inputs: tuple[Input, ...]) -> None:
    model = onnx.load(path)
    quantization.quantize_dynamic(
        model, str(path), weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul", "Gemm"]
    )


def _blockwise(quant_format: QuantFormat) -> Conversion:
    """MatMul weights in int4, in blocks of 32 along the reduced axis."""

    def convert(path: Path, inputs: tuple[Input, ...]) -> None:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantizer = MatMulNBitsQuantizer(onnx.load(path), block_size=32, is_symmetric=False, quant_format=quant_format)
        quantizer.process()
        onnx.save(quantizer.model.model, path)

    return convert


def _float16(keep_io_types: bool) -> Conversion:
    def convert(path: Path, inputs: tuple[Input, ...]) -> None:
        from onnxconverter_common import float16

        onnx.save(float16.convert_float_to_float16(onnx.load(path), keep_io_types=keep_io_types), path)

    return convert


INT8 = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
UINT8 = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8}
MIXED = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
FLOAT8 = {"activation_type": QuantType.QFLOAT8E4M3FN, "weight_type": QuantType.QFLOAT8E4M3FN}
AFTERWARDS: dict[str, Conversion] = {
    "qdq": _static(quant_format=QuantFormat.QDQ, **INT8),
    "qdq-uint8": _static(quant_format=QuantFormat.QDQ, **UINT8),
    "qdq-channel": _static(quant_format=QuantFormat.QDQ, per_channel=True, **INT8),
    "qdq-weights": _static(
        quant_format=QuantFormat.QDQ, per_channel=True, extra_options={"QuantizeBias": False}, **INT8
    ),
    "qdq-fp8": _static(
        quant_format=QuantFormat.QDQ, calibrate_method=quantization.CalibrationMethod.Distribution, **FLOAT8
    ),
    "qdq-int16": _static(quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt16, weight_type=QuantType.QInt8),
    "qoperator": _static(quant_format=QuantFormat.QOperator, **MIXED),
    "qoperator-channel": _static(quant_format=QuantFormat.QOperator, per_channel=True, **MIXED),
    "dynamic8": _dynamic,
    "dynamic8-channel": _dynamic_channel,
    "int4": _blockwise(QuantFormat.QDQ),
    "int4-contrib": _blockwise(QuantFormat.QOperator),
    "fp16": _float16(keep_io_types=False),
    "fp16-inside": _float16(keep_io_types=True),
}
