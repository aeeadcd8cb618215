"""OpenVINO as a stop-watch; skipped where it is not installed."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest

from halpc.errors import BackendError
from halpc.ir.profiler import ASIDE
from profilers import profiler_for
from profilers.openvino import OpenVinoProfiler
from tests.small import model


@pytest.fixture(scope="module")
def profiler() -> OpenVinoProfiler:
    pytest.importorskip("openvino")
    return OpenVinoProfiler(threads=1)


def fixed() -> onnx.ModelProto:
    proto = model()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    return proto


def conv(width: int, size: int, aside: bool = False) -> onnx.ModelProto:
    before = f"[{ASIDE}_0] {ASIDE}_y = Neg (x)" if aside else ""
    proto = onnx.parser.parse_model(f"""
<ir_version: 9, opset_import: ["": 17]>
conv (float[1,{width},{size},{size}] x) => (float[1,{width},{size},{size}] y)
{{ {before} [conv] y = Conv <pads = [1,1,1,1]> ({ASIDE + "_y" if aside else "x"}, w) }}
""")
    values = np.random.default_rng(0).standard_normal((width, width, 3, 3)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    return proto


def test_the_device_names_what_a_table_depends_on(profiler: OpenVinoProfiler) -> None:
    device = profiler.device
    assert (device.kind, device.backend, device.precision, device.threads) == ("cpu", "openvino", "fp32", 1)
    assert device == profiler_for("openvino").profiler.device
    assert device.key != OpenVinoProfiler(threads=2).device.key != OpenVinoProfiler(precision="int8").device.key


def test_a_kernel_of_many_times_the_work_takes_longer(profiler: OpenVinoProfiler) -> None:
    small, large = profiler.kernels([conv(8, 16), conv(64, 48)], repetitions=3)
    assert 0 < 5 * small < large


def test_scaffolding_is_not_counted(profiler: OpenVinoProfiler) -> None:
    bare, aside = profiler.kernels([conv(32, 32), conv(32, 32, aside=True)], repetitions=5)
    assert aside < 2 * bare
    only = onnx.parser.parse_model(f"""
<ir_version: 9, opset_import: ["": 17]>
aside (float[1,64,64,64] x) => (float[1,64,64,64] {ASIDE}_y) {{ [{ASIDE}_0] {ASIDE}_y = Neg (x) }}
""")
    assert profiler.kernels([only]) == 0


def test_layers_name_the_nodes_they_contain(profiler: OpenVinoProfiler) -> None:
    proto = fixed()
    layers = profiler.layers(proto, repetitions=3)
    by_output = {node.output[0]: node.name for node in proto.graph.node}
    home = {node: i for i, layer in enumerate(layers) for node in layer.nodes}
    for fused in (("a", "r"), ("c", "d"), ("e", "s", "t")):
        assert len({home[by_output[name]] for name in fused}) == 1
    assert by_output["y"] in home
    assert all(layer.time_ms > 0 for layer in layers)


def test_models_compared_share_rounds(profiler: OpenVinoProfiler) -> None:
    small, large = profiler.compare([conv(8, 16), conv(64, 48)], seconds=0.2)
    assert small.rounds == large.rounds >= 7
    assert small.median_ms < large.median_ms
    assert "precision hint f32" in small.regime


def test_a_model_that_openvino_refuses_is_a_backend_error(profiler: OpenVinoProfiler) -> None:
    strange = onnx.parser.parse_model("""
<ir_version: 9, opset_import: ["": 17, "made.up": 1]>
strange (float[1] x) => (float[1] y) { y = made.up.Strange (x) }
""")
    with pytest.raises(BackendError, match="openvino cannot load the model"):
        profiler.compare([strange])


def test_a_precision_that_the_processor_lacks_is_a_backend_error(profiler: OpenVinoProfiler) -> None:
    with pytest.raises(BackendError, match="has no fp8 on this processor"):
        OpenVinoProfiler(precision="fp8")


def test_openvino_missing_is_a_backend_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match="pip install openvino") as caught:
        profiler_for("openvino")
    assert caught.value.exit_code == 6
