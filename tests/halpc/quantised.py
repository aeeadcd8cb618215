"""A float model quantised by onnxruntime, in either of its two forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static


class Random(CalibrationDataReader):
    """Standard normal inputs, four of them."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(0)
        self._left = [{name: rng.standard_normal(shape).astype(np.float32)} for _ in range(4)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self._left.pop() if self._left else None


def quantised(path: Path, form: QuantFormat, name: str = "x", shape: tuple[int, ...] = (1, 3, 8, 8)) -> Path:
    """`path` with int8 weights per channel, beside it."""
    target = path.with_name(f"{path.stem}.{form.name}.onnx")
    kind = QuantType.QInt8 if form is QuantFormat.QDQ else QuantType.QUInt8
    quantize_static(path, target, Random(name, shape), quant_format=form, per_channel=True, weight_type=QuantType.QInt8,
                    activation_type=kind)  # fmt: skip
    return target
