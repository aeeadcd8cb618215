"""onnxruntime as a stop-watch. Times are compared with each other, never with a clock."""

from __future__ import annotations

import itertools
import resource
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from halpc.errors import BackendError, ModelError, OutputError, UsageError
from halpc.ir.profiler import ASIDE
from profilers import onnxrt, ort_device
from profilers.feeds import random_array
from profilers.onnxrt import OnnxRuntimeProfiler
from profilers.ort_events import NodeTimes, Profile
from profilers.ort_layers import map_layers, plain_name
from tests.small import model, weights

RESIDUAL = """
<ir_version: 9, opset_import: ["": 17]>
residual (float[1,16,8,8] x) => (float[1,10] y)
<float[32,16,3,3] w1, float[32] b1, float[32,32,3,3] w2, float[32,32,1,1] w3, float[10,32] w4, float[10] b4>
{
  [stem] a1 = Conv <pads = [1,1,1,1]> (x, w1, b1)
  [stem_relu] a2 = Relu (a1)
  [inner] a3 = Conv <pads = [1,1,1,1]> (a2, w2)
  [inner_relu] a4 = Relu (a3)
  [last] a5 = Conv (a4, w3)
  [sum] a6 = Add (a5, a2)
  [sum_relu] a7 = Relu (a6)
  [pool] a8 = GlobalAveragePool (a7)
  [flat] a9 = Flatten (a8)
  [head] y = Gemm <transB = 1> (a9, w4, b4)
}
"""


def with_weights(text: str) -> onnx.ModelProto:
    """The model with random values for every initializer that its text declares."""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    inputs = {value.name for value in model.graph.input}
    declared = [value for value in model.graph.value_info if value.name not in inputs]
    for value in declared:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, value.name))
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    return model


def conv(cin: int, cout: int, size: int, *, aside: bool = False) -> onnx.ModelProto:
    """One convolution, behind scaffolding when `aside`."""
    before = f"[{ASIDE}_0] {ASIDE}_h = Neg (x)" if aside else ""
    source = f"{ASIDE}_h" if aside else "x"
    return with_weights(f"""
<ir_version: 9, opset_import: ["": 17]>
conv (float[1,{cin},{size},{size}] x) => (float[1,{cout},{size},{size}] y) <float[{cout},{cin},3,3] w>
{{ {before} y = Conv <pads = [1,1,1,1]> ({source}, w) }}
""")


@pytest.fixture(scope="module")
def profiler() -> OnnxRuntimeProfiler:
    return OnnxRuntimeProfiler(threads=1)


def test_the_device_names_what_a_table_depends_on(profiler: OnnxRuntimeProfiler) -> None:
    device = profiler.device
    assert (device.kind, device.backend, device.provider, device.threads) == ("cpu", "onnxruntime", "cpu", 1)
    assert device.name
    assert device.details["optimisation"] == "all"
    keys = {
        OnnxRuntimeProfiler(threads=2).device.key,
        OnnxRuntimeProfiler(optimisation="extended").device.key,
        OnnxRuntimeProfiler(precision="int8").device.key,
        device.key,
    }
    assert len(keys) == 4
    assert OnnxRuntimeProfiler().device == device


def test_a_kernel_of_many_times_the_work_takes_longer(profiler: OnnxRuntimeProfiler) -> None:
    times = profiler.kernels([conv(8, 8, 8), conv(64, 64, 32), conv(8, 8, 8)], repetitions=3)
    assert times.shape == (3,)
    assert (times > 0).all()
    assert times[1] > 3 * max(times[0], times[2])


def test_more_models_than_fit_at_once_come_back_in_order(
    profiler: OnnxRuntimeProfiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profilers.onnxrt._TOGETHER", 2)
    times = profiler.kernels([conv(8, 8, 8), conv(8, 8, 8), conv(64, 64, 32), conv(8, 8, 8)], repetitions=2)
    assert int(np.argmax(times)) == 2
    assert profiler.kernels([]).shape == (0,)


@pytest.mark.parametrize(("warm_s", "company"), [(50e-6, 2), (50e-6, 30), (2e-3, 2), (2e-3, 30)])
def test_a_kernel_finds_its_own_data_in_the_caches_whatever_the_company(warm_s: float, company: int) -> None:
    ran: list[int] = []

    class Cached:
        """Half as fast where another ran before it."""

        def __init__(self, name: int) -> None:
            self.name = name

        def run(self) -> float:
            cold = not ran or ran[-1] != self.name
            ran.append(self.name)
            return warm_s * (2 if cold else 1)

    typical, counted = onnxrt._in_turns([Cached(name) for name in range(company)], 5)
    assert typical == [warm_s] * company
    for name in range(company):
        warm = [a == b for a, b in itertools.pairwise([-1, *ran]) if b == name]
        assert len(warm) == len(counted[name])
        assert all(itertools.compress(warm, counted[name]))
        assert sum(counted[name]) >= 3


def test_scaffolding_is_not_counted(profiler: OnnxRuntimeProfiler) -> None:
    only = with_weights(f"""
<ir_version: 9, opset_import: ["": 17]>
aside (float[1,64,64,64] x) => (float[1,64,64,64] {ASIDE}_y) {{ [{ASIDE}_0] {ASIDE}_y = Neg (x) }}
""")
    times = profiler.kernels([only, conv(8, 8, 8, aside=True)], repetitions=2)
    assert times[0] == 0
    assert times[1] > 0


def test_layers_name_the_nodes_they_contain(profiler: OnnxRuntimeProfiler) -> None:
    layers = profiler.layers(with_weights(RESIDUAL), repetitions=3)
    by_nodes = {layer.nodes: layer for layer in layers if layer.nodes}
    assert by_nodes.keys() >= {
        ("stem", "stem_relu"),
        ("inner", "inner_relu"),
        ("last", "sum", "sum_relu"),
        ("pool",),
    }
    assert by_nodes["last", "sum", "sum_relu"].outputs == ("a7",)
    assert by_nodes["last", "sum", "sum_relu"].op == "Conv"
    everything = [node for layer in layers for node in layer.nodes]
    assert sorted(everything) == sorted(node.name for node in with_weights(RESIDUAL).graph.node)
    assert all(layer.time_ms > 0 for layer in layers)


@pytest.mark.parametrize("what", ["layers", "kernels", "precisions"])
def test_an_interrupt_leaves_no_profile_behind(
    what: str, profiler: OnnxRuntimeProfiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: object) -> tuple[float, float]:
        raise KeyboardInterrupt

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(onnxrt._Runner, "timed", interrupted)
    model = conv(4, 4, 8)
    with pytest.raises(KeyboardInterrupt):
        getattr(profiler, what)([model] if what == "kernels" else model)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["layers", "kernels", "precisions"])
def test_a_full_disk_is_told_from_a_wrong_model(what: str, profiler: OnnxRuntimeProfiler) -> None:
    model, limits = conv(4, 4, 8), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, limits[1]))
    try:
        with pytest.raises(OutputError, match="make room, or set TMPDIR"):
            getattr(profiler, what)([model] if what == "kernels" else model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_layer_that_the_runtime_added_names_the_tensor_it_moves(profiler: OnnxRuntimeProfiler) -> None:
    layers = profiler.layers(with_weights(RESIDUAL), repetitions=2)
    moved = {layer.op: layer.outputs for layer in layers if not layer.nodes}
    assert moved.get("ReorderInput", ("x",)) == ("x",)
    assert moved.get("ReorderOutput", ("a8",)) == ("a8",)
    assert set(moved) <= {"ReorderInput", "ReorderOutput"}


def test_without_fusion_every_node_is_its_own_layer() -> None:
    layers = OnnxRuntimeProfiler(optimisation="disable").layers(with_weights(RESIDUAL), repetitions=2)
    assert [layer.nodes for layer in layers] == [(node.name,) for node in with_weights(RESIDUAL).graph.node]


def test_what_reads_a_shape_or_a_type_and_runs_first_contains_nothing_of_what_computes_the_tensor() -> None:
    before = onnx.parser.parse_model("""
<ir_version: 9, opset_import: ["": 17]>
unfolded (float[1,3,8,8] x) => (float[1,3,8,8] y) <float[3,3,1,1] w, float[1] one>
{
  [conv] a = Conv (x, w)
  [relu] b = Relu (a)
  [like] c = CastLike (one, b)
  [sizes] d = Shape (b)
  [wide] e = Expand (c, d)
  [product] f = Mul (b, e)
  [sum] y = Add (f, e)
}
""")
    after = onnx.parser.parse_model("""
<ir_version: 9, opset_import: ["": 17]>
executed (float[1,3,8,8] x) => (float[1,3,8,8] y) <float[3,3,1,1] w, float[1] one, int64[4] sizes>
{
  [wide] e = Expand (one, sizes)
  [fused] b = Conv (x, w)
  [product] f = Mul (b, e)
  [sum] y = Add (f, e)
}
""")
    times = [NodeTimes(node.name, node.op_type, 0, np.ones(1)) for node in after.graph.node]
    contained = {layer.name: layer.nodes for layer in map_layers(before, after, times)}
    assert contained == {
        "wide": ("like", "sizes", "wide"),
        "fused": ("conv", "relu"),
        "product": ("product",),
        "sum": ("sum",),
    }


def test_what_another_layer_computes_later_is_that_layers() -> None:
    before = onnx.parser.parse_model("""
<ir_version: 9, opset_import: ["": 17]>
two (float[1,3,8,8] x) => (float[1,3,8,8] y)
{
  [first] a = Relu (x)
  [second] b = Neg (a)
  [third] c = Exp (b)
  [sum] y = Add (c, b)
}
""")
    after = onnx.parser.parse_model("""
<ir_version: 9, opset_import: ["": 17]>
executed (float[1,3,8,8] x) => (float[1,3,8,8] y)
{
  [odd] c = Exp (x)
  [second] b = Neg (x)
  [sum] y = Add (c, b)
}
""")
    times = [NodeTimes(node.name, node.op_type, 0, np.ones(1)) for node in after.graph.node]
    contained = {layer.name: layer.nodes for layer in map_layers(before, after, times)}
    assert contained == {"odd": ("third",), "second": ("first", "second"), "sum": ("sum",)}


def test_nodes_without_names_go_by_their_first_output(profiler: OnnxRuntimeProfiler) -> None:
    model = with_weights(RESIDUAL)
    for node in model.graph.node:
        node.ClearField("name")
    contained = {layer.nodes for layer in profiler.layers(model, repetitions=2)}
    assert {("a1", "a2"), ("a3", "a4"), ("a5", "a6", "a7")} <= contained


def test_half_precision_models_keep_their_nodes(profiler: OnnxRuntimeProfiler) -> None:
    from onnxconverter_common import float16

    model = float16.convert_float_to_float16(with_weights(RESIDUAL))
    contained = [node for layer in profiler.layers(model, repetitions=2) for node in layer.nodes]
    assert sorted(contained) == sorted(node.name for node in model.graph.node)


def test_a_model_may_be_a_path(profiler: OnnxRuntimeProfiler, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(with_weights(RESIDUAL), path, save_as_external_data=True, size_threshold=0)
    assert ("stem", "stem_relu") in {layer.nodes for layer in profiler.layers(path, repetitions=1)}
    assert len(profiler.compare([path], seconds=0.01)[0].samples_ms) >= 7


def test_compare_tells_a_large_model_from_a_small_one(profiler: OnnxRuntimeProfiler) -> None:
    small, large, again = profiler.compare([conv(8, 8, 8), conv(64, 64, 32), conv(8, 8, 8)], seconds=0.1)
    assert small.min_ms < large.min_ms
    assert again.min_ms < large.min_ms
    assert small.rounds == large.rounds >= 7
    assert small.by_round_ms.shape[0] == small.rounds
    assert "1 thread" in small.regime


def test_compare_takes_the_inputs_it_is_given(profiler: OnnxRuntimeProfiler) -> None:
    feeds = {"x": np.zeros((1, 16, 8, 8), np.float32)}
    assert profiler.compare([with_weights(RESIDUAL)], seconds=0.01, feeds=feeds)[0].min_ms > 0
    wrong = {"x": np.zeros((1, 15, 8, 8), np.float32)}
    with pytest.raises(BackendError, match="onnxruntime failed to run the model"):
        profiler.compare([with_weights(RESIDUAL)], seconds=0.01, feeds=wrong)


def test_a_model_that_onnxruntime_refuses_is_a_backend_error(profiler: OnnxRuntimeProfiler) -> None:
    with pytest.raises(BackendError, match="cannot load the model"):
        profiler.kernels([onnx.ModelProto()])


def test_a_symbolic_input_is_refused_with_the_option_that_mends_it(profiler: OnnxRuntimeProfiler) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 17]> g (float[N] x) => (float[N] y) {y = Neg (x)}'
    )
    with pytest.raises(ModelError, match="--shape x:"):
        profiler.layers(model)


def test_an_unknown_optimisation_level_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="choose all, extended, basic, disable"):
        OnnxRuntimeProfiler(optimisation="fast")


def test_no_thread_count_is_one_thread_per_core() -> None:
    assert OnnxRuntimeProfiler(threads=0).device.threads == ort_device.cores() >= 1


def test_processor_time_is_told_where_one_thread_does_the_work() -> None:
    one = OnnxRuntimeProfiler(threads=1).compare([conv(8, 8, 8)], seconds=0.01)[0]
    assert one.busy_ms is not None
    assert one.busy_ms.shape == one.samples_ms.shape
    assert one.undisturbed_ms <= one.min_ms
    two = OnnxRuntimeProfiler(threads=2).compare([conv(8, 8, 8)], seconds=0.01)[0]
    assert two.busy_ms is None
    assert two.undisturbed_ms == two.min_ms


def test_a_missing_provider_is_refused_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BackendError, match="no CUDAExecutionProvider, only CPUExecutionProvider") as caught:
        OnnxRuntimeProfiler(provider="cuda")
    assert "onnxruntime-gpu" in str(caught.value)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("uint8", 0, 255), ("int64", 0, 1), ("int32", 0, 1), ("bool", 0, 1), ("int8", 0, 1)],
)
def test_random_integers_are_small_and_not_negative(kind: str, low: int, high: int) -> None:
    values = random_array("x", (100,), f"tensor({kind})")
    assert values.dtype == np.dtype(kind)
    assert (values >= low).all()  # type: ignore[operator]
    assert (values <= high).all()  # type: ignore[operator]
    assert len(np.unique(values)) > 1


@pytest.mark.parametrize("kind", ["float", "float16", "bfloat16", "double"])
def test_random_floats_are_normal_and_repeatable(kind: str) -> None:
    values = random_array("x", (1000,), f"tensor({kind})")
    assert abs(float(values.astype(np.float64).std()) - 1) < 0.1
    assert (values == random_array("x", (1000,), f"tensor({kind})")).all()


def test_a_string_input_is_refused() -> None:
    with pytest.raises(ModelError, match="numbers only"):
        random_array("x", (1,), "tensor(string)")


def test_names_lose_what_onnxruntime_adds() -> None:
    added = [
        "relu1_nchwc",
        "InsertedPrecisionFreeCast_relu1",
        "relu1_token_3",
        "relu1_token_3_out0",
        "relu1/duplicated",
    ]
    assert {plain_name(name) for name in added} == {"relu1"}
    assert plain_name("relu_nchwc_1") == "relu_nchwc_1"


def test_the_processor_is_read_from_cpuinfo(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name : A  CPU @ 3 GHz\nflags : fpu avx avx2 avx512f\n\nmodel name : B\n")
    assert ort_device.processor(info) == ("A CPU @ 3 GHz", "avx512f")
    assert ort_device.processor(tmp_path / "none")[0]


def test_what_the_profiler_adds_is_what_an_unprofiled_run_does_not_take() -> None:
    nodes = tuple(NodeTimes(str(i), "Neg", 0, np.full(4, us - 0.5)) for i, us in enumerate([3.0] * 50 + [40.0] * 2))
    profile = Profile(nodes, on_device=False)
    overhead = profile.overhead_ms(wall_ms=0.126, about_ms=0.0015)
    assert overhead == pytest.approx(0.002, rel=0.02)
    assert profile.overhead_ms(wall_ms=1.0, about_ms=0.0015) == pytest.approx(0.00075)
    assert profile.overhead_ms(wall_ms=0.01, about_ms=0.0015) <= 0.003


@pytest.mark.parametrize("size, sessions", [(4, 4), (384, 2)])
def test_layers_that_take_long_need_no_unprofiled_run_beside(
    monkeypatch: pytest.MonkeyPatch, size: int, sessions: int
) -> None:
    """What the profiler adds to each node is then next to nothing, whatever it is."""
    shape = f"float[1, 16, {size}, {size}]"
    text = f"""<ir_version: 9, opset_import: ["": 17]> n ({shape} x) => ({shape} y) {{
        y = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)
    }}"""
    opened = []
    own = OnnxRuntimeProfiler.session

    def session(self: OnnxRuntimeProfiler, *args: object, **options: object) -> object:
        opened.append(args)
        return own(self, *args, **options)

    monkeypatch.setattr(OnnxRuntimeProfiler, "session", session)
    layers = OnnxRuntimeProfiler().layers(model(text, weights({"w": (16, 16, 3, 3)})), repetitions=4)
    assert sum(layer.time_ms for layer in layers) > 0
    assert len(opened) == sessions
