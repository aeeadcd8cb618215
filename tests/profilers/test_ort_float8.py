"""float8 in onnxruntime: measured only where it is computed as the model says, which is tried."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from halpc.errors import BackendError
from profilers import onnxrt, ort_device
from profilers.onnxrt import OnnxRuntimeProfiler
from tests.profilers.test_onnxrt import RESIDUAL, with_weights


def given_for_minus_one(level: str) -> float | None:
    """What this onnxruntime makes of Relu(-1) in float8 at a level; None where it has no kernels for it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, onnxrt.LEVELS[level])
    model = ort_device.relu_before_float8().SerializeToString()
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return float(session.run(None, {"x": np.full(1, -1, np.float32)})[0][0])
    except Exception:
        return None


@pytest.mark.parametrize("level", onnxrt.LEVELS)
def test_fp8_is_measured_only_where_this_onnxruntime_computes_it(level: str) -> None:
    if given_for_minus_one(level) in (None, 0.0):
        assert OnnxRuntimeProfiler(precision="fp8", optimisation=level).device.precision == "fp8"
    else:
        with pytest.raises(BackendError, match=f"optimisation '{level}' it drops a Relu"):
            OnnxRuntimeProfiler(precision="fp8", optimisation=level)


IDENTITY = '<ir_version: 9, opset_import: ["": 19]> g (float[1] x) => (float[1] y) { y = Identity (x) }'
NO_KERNEL = '<ir_version: 9, opset_import: ["": 19, "none": 1]> g (float[1] x) => (float[1] y) { y = none.No (x) }'


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Puts a model of one's own in the place of the one that is tried; gives a list of every time it is."""

    def put(text: str) -> list[str]:
        tried: list[str] = []
        model = onnx.parser.parse_model(text)
        monkeypatch.setattr(ort_device, "relu_before_float8", lambda: tried.append(text) or model)
        return tried

    return put


def test_an_onnxruntime_that_drops_the_relu_is_named_with_its_version(probe: Callable[[str], list[str]]) -> None:
    probe(IDENTITY)
    with pytest.raises(BackendError, match=rf"onnxruntime {onnxruntime.__version__} .*compute capability 8\.9"):
        OnnxRuntimeProfiler(precision="fp8")


def test_an_onnxruntime_without_float8_is_left_to_refuse_the_model(probe: Callable[[str], list[str]]) -> None:
    tried = probe(NO_KERNEL)
    assert OnnxRuntimeProfiler(precision="fp8").device.precision == "fp8"
    assert len(tried) == 1


def test_float8_is_tried_once_and_for_fp8_alone(probe: Callable[[str], list[str]]) -> None:
    tried = probe(IDENTITY.replace("Identity", "Relu"))
    for precision in ("fp32", "int8"):
        OnnxRuntimeProfiler(precision=precision).check(with_weights(RESIDUAL), precision)
    assert not tried
    OnnxRuntimeProfiler(precision="fp8").check(with_weights(RESIDUAL), "fp8")
    assert len(tried) == 1


def test_a_model_that_came_as_fp8_is_refused_where_fp8_is_computed_wrongly(probe: Callable[[str], list[str]]) -> None:
    probe(IDENTITY)
    with pytest.raises(BackendError, match="does not compute fp8 models as they are"):
        OnnxRuntimeProfiler().check(with_weights(RESIDUAL), "fp8")
