"""--precision from the command line to the files: what is measured, evaluated and written has it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnxruntime.quantization import QuantFormat

from halpc import casting
from halpc.cli import main
from halpc.ir.latency import Device, Timing
from passes.cast import cast, precision_of
from profilers import ort_device
from profilers.onnxrt import OnnxRuntimeProfiler
from tests.halpc.quantised import quantised
from tests.passes.patterns import model_of
from tests.small import RESIDUAL, SHAPES, model, saved, weights

WIDE = {"w0": (32, 3, 3, 3), "b0": (32,), "w1": (48, 32, 3, 3), "b1": (48,), "w2": (32, 48, 3, 3), "b2": (32,),
        "w3": (5, 32), "b3": (5,)}  # fmt: skip


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HALPC_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    images = rng.standard_normal((64, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "calibration.npz", x=images)
    np.savez(tmp_path / "test.npz", x=images, labels=rng.integers(0, 5, 64))
    return saved(tmp_path, model(arrays=weights(WIDE)))


def compiled(network: Path, precision: str, *arguments: str) -> tuple[int, Path]:
    out = network.parent / f"out-{precision}"
    device = () if "--profiler" in arguments else ("--profiler", "onnxruntime")
    common = ["-o", str(out), "-q", *device, "--precision", precision]
    return main(["compile", str(network), *common, *arguments]), out


def data(network: Path) -> list[str]:
    return ["--calibration", str(network.parent / "calibration.npz"), "--evaluate", str(network.parent / "test.npz")]


def top1_of(path: Path, precision: str, labelled: Path) -> float | None:
    """By a session of onnxruntime's own, without its optimisations at fp8; None where it has no kernels."""
    arrays, options, levels = np.load(labelled), ort.SessionOptions(), ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if precision == "fp8" else levels.ORT_ENABLE_ALL
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        scores = session.run(None, {"x": arrays["x"]})[0]
    except Exception:
        return None
    return float((scores.argmax(1) == arrays["labels"]).mean())


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
def test_the_deployed_model_has_the_precision_and_top1_is_its_own(network: Path, precision: str) -> None:
    code, out = compiled(network, precision, "--macs", "60%", *data(network))
    report = json.loads((out / "report.json").read_text())
    assert code == 0
    assert precision_of(onnx.load(out / "pruned.onnx")) == "fp32"
    assert precision_of(onnx.load(out / f"pruned.{precision}.onnx")) == precision
    assert 0 <= report["result"]["accuracy"] <= 1
    cannot_run = any("cannot run here" in note for note in report["notes"])
    labelled = network.parent / "test.npz"
    own, exact = (top1_of(out / name, precision, labelled) for name in (f"pruned.{precision}.onnx", "pruned.onnx"))
    assert cannot_run == (own is None)
    assert report["result"]["accuracy"] == (exact if own is None else own)


def test_int8_without_inputs_for_its_ranges_is_refused_before_anything_is_measured(
    network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = compiled(network, "int8", "--latency", "60%")
    assert code == 2
    assert "needs --calibration" in capsys.readouterr().err
    assert not out.exists()
    assert not (network.parent / "cache").exists()


def test_a_precision_that_the_runtime_lacks_is_refused_before_anything_is_profiled(
    network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = compiled(network, "bf16", "--latency", "60%")
    assert code == 6
    assert "at --precision bf16: onnxruntime cannot load the model" in capsys.readouterr().err
    assert not out.exists()


def came_as_fp8(network: Path) -> Path:
    source = network.parent / "came.onnx"
    images = np.load(network.parent / "calibration.npz")["x"]
    onnx.save(cast(onnx.load(network), "fp8", inputs=[{"x": images[:1]}]), source)
    return source


@pytest.fixture
def _wrong_at_float8(monkeypatch: pytest.MonkeyPatch) -> None:
    """An onnxruntime that drops the Relu before float8, whatever the one that is installed does."""
    dropped = '<ir_version: 9, opset_import: ["": 19]> g (float[1] x) => (float[1] y) { y = Identity (x) }'
    monkeypatch.setattr(ort_device, "relu_before_float8", lambda: onnx.parser.parse_model(dropped))


@pytest.mark.usefixtures("_wrong_at_float8")
def test_fp8_that_the_runtime_computes_wrongly_is_refused_before_anything_is_profiled(
    network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = compiled(network, "fp8", "--latency", "60%", *data(network))
    assert code == 6
    assert "does not compute fp8 models as they are" in capsys.readouterr().err
    assert not out.exists()
    assert not (network.parent / "cache").exists()


@pytest.mark.usefixtures("_wrong_at_float8", "_quiet")
def test_a_model_that_came_as_fp8_is_not_measured_where_it_is_computed_wrongly(
    network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = came_as_fp8(network)
    code, out = compiled(source, "fp32", "--latency", "60%")
    assert code == 6
    assert f"{source}: onnxruntime {ort.__version__} does not compute fp8" in capsys.readouterr().err
    assert not out.exists()


def test_a_model_that_came_as_fp8_is_evaluated_as_it_is(network: Path) -> None:
    source, labelled = came_as_fp8(network), network.parent / "test.npz"
    code, out = compiled(source, "fp8", "--macs", "70%", *data(network))
    if top1_of(source, "fp8", labelled) is None:  # onnxruntime before 1.32
        assert code == 6
        return
    assert code == 0
    report = json.loads((out / "report.json").read_text())
    assert report["baseline"]["accuracy"] == top1_of(source, "fp8", labelled)
    assert report["result"]["accuracy"] == top1_of(out / "pruned.onnx", "fp8", labelled)


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_a_model_that_is_quantised_already_passes_through(network: Path, form: QuantFormat) -> None:
    source = quantised(network, form)
    code, out = compiled(source, "int8", "--macs", "70%")
    assert code == 0
    pruned = onnx.load(out / "pruned.onnx")
    assert precision_of(pruned) == "int8"
    assert pruned.SerializeToString() == cast(pruned, "int8").SerializeToString()


@pytest.mark.parametrize("profiler", ["onnxruntime", "auto"])
def test_tf32_on_a_processor_is_refused_by_name(
    network: Path, profiler: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # `auto` would take a GPU
    assert compiled(network, "tf32", "--latency", "60%", "--profiler", profiler)[0] == 6
    assert "TF32 is a mode of NVIDIA's tensor cores" in capsys.readouterr().err


def test_what_is_profiled_and_compared_has_the_precision(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def compare(self: OnnxRuntimeProfiler, models: list[onnx.ModelProto], **options: Any) -> list[Timing]:
        seen.extend(map(precision_of, models))
        return [Timing(np.ones(8), "pretended", 4) for _ in models]

    monkeypatch.setattr(OnnxRuntimeProfiler, "compare", compare)
    other = saved(network.parent, model(arrays=weights({**WIDE, "w1": (32, 32, 3, 3), "b1": (32,),
                                                        "w2": (32, 32, 3, 3)})), "narrow.onnx")  # fmt: skip
    common = ["-q", "--profiler", "onnxruntime", "--precision", "fp16"]
    assert main(["bench", str(network), str(other), *common]) == 0
    assert main(["profile", str(network), "-o", str(network.parent / "t.jsonl"), *common]) == 0
    assert set(seen) == {"fp16"}


@pytest.fixture
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """End to end, a model takes as many nanoseconds as its file has bytes: never slower for having been pruned."""

    def compare(self: OnnxRuntimeProfiler, models: list[onnx.ModelProto], **options: Any) -> list[Timing]:
        return [Timing(np.full(8, proto.ByteSize() / 1e6), "pretended", 4) for proto in models]

    monkeypatch.setattr(OnnxRuntimeProfiler, "compare", compare)


@pytest.mark.usefixtures("_quiet")
def test_int8_on_a_processor_runs_in_int8_kernels(network: Path) -> None:
    code, out = compiled(network, "int8", "--latency", "95%", *data(network))
    assert code == 0
    report = json.loads((out / "report.json").read_text())
    assert report["profiler"]["kernels"] == {"int8": 4}
    assert 0 < report["verification"]["conversion_error"] < 0.2
    assert not any("run in int8 kernels" in note for note in report["notes"])


def moved(out: Path) -> list[str]:
    return [note for note in json.loads((out / "report.json").read_text())["notes"] if "moves the outputs" in note]


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
def test_a_conversion_that_moves_the_outputs_by_more_than_a_quarter_is_noted(
    network: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("halpc.compile.conversion_error", lambda *_: 0.26)
    code, out = compiled(network, precision, "--macs", "60%", *data(network))
    assert code == 0
    (note,) = moved(out)
    assert f"--precision {precision} moves the outputs by up to 26% of the largest on calibration inputs" in note
    assert ("or --calibration inputs that are like those to come" in note) == (precision in ("int8", "fp8"))


@pytest.mark.parametrize("error", [None, 0.0, 0.25])
def test_a_conversion_that_moves_little_or_cannot_run_here_needs_no_note(
    network: Path, error: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("halpc.compile.conversion_error", lambda *_: error)
    code, out = compiled(network, "fp16", "--macs", "60%")
    assert (code, moved(out)) == (0, [])


def test_ranges_of_one_calibration_input_that_is_unlike_the_others_are_noted(network: Path) -> None:
    images = np.load(network.parent / "calibration.npz")["x"]
    images[7] *= 1e4  # int8 then rounds all others to 0
    np.savez(network.parent / "calibration.npz", x=images)
    code, out = compiled(network, "int8", "--macs", "60%", "--no-recover", *data(network))
    assert code == 0
    assert len(moved(out)) == 1


def test_int8_for_tensorrt_is_symmetric_and_for_processors_it_is_uint8(network: Path) -> None:
    inputs = [{"x": np.load(network.parent / "calibration.npz")["x"][:1]}]
    for processor, kinds in ((False, {onnx.TensorProto.INT8}), (True, {onnx.TensorProto.UINT8})):
        found = cast(onnx.load(network), "int8", inputs=inputs, processor=processor)
        known = {t.name: t for t in found.graph.initializer}
        zeros = [known[n.input[2]] for n in found.graph.node if n.op_type == "QuantizeLinear" and n.input[2] in known]
        assert {zero.data_type for zero in zeros} == kinds


@pytest.mark.usefixtures("_quiet")
def test_the_report_says_in_which_kernels_the_model_runs(network: Path) -> None:
    code, out = compiled(network, "fp16", "--latency", "95%", "--no-recover")
    assert code == 0
    report = json.loads((out / "report.json").read_text())
    assert report["precision"] == "fp16"
    assert sum(report["profiler"]["kernels"].values()) == 4
    fp16 = report["profiler"]["kernels"].get("fp16", 0)
    assert any(f"of 4 convolutions and matrix products {fp16} run in fp16" in n for n in report["notes"]) == (fp16 < 4)
    assert report["profiler"]["fp32_baseline_ms"] > 0


@pytest.mark.parametrize(("provider", "said"), [("cuda", True), ("tensorrt", False)])
def test_a_gpu_that_widens_int8_says_so(monkeypatch: pytest.MonkeyPatch, provider: str, said: bool) -> None:
    """onnxruntime's own kernels, not the engines that TensorRT builds inside it."""
    device = Device("cuda", "a GPU", "onnxruntime", "1.32.0", provider, "int8")
    inner = SimpleNamespace(device=device, precisions=lambda model: {"fp32": 4})
    notes: list[str] = []
    job: Any = MagicMock(options=SimpleNamespace(precision="int8"), profile_stats={}, evidence=None, note=notes.append)
    for name, answer in (
        ("backend_of", inner),
        ("as_measured", None),
        ("static_proto", None),
        ("precision_of", "fp32"),
    ):
        monkeypatch.setattr(casting, name, lambda *_, answer=answer: answer)
    casting.say_what_runs(job)
    wanted = "of 4 convolutions and matrix products 0 run in int8 kernels on this device, 4 in fp32"
    assert [note.startswith(wanted) for note in notes] == [True] * said


def test_a_model_that_came_quantised_is_not_called_fp32_in_silence(
    network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = quantised(network, QuantFormat.QDQ)
    assert main(["compile", str(source), "-o", str(network.parent / "o"), "--macs", "70%"]) == 0
    assert "the model came as int8" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_a_model_that_came_quantised_is_recovered(network: Path, form: QuantFormat) -> None:
    code, out = compiled(quantised(network, form), "int8", "--macs", "70%", *data(network))
    notes = json.loads((out / "report.json").read_text())["notes"]
    assert code == 0
    assert not any("nothing was recovered" in n for n in notes)


def test_results_alone_are_on_stdout(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compiled(network, "bf16", "--macs", "60%", "--json")[0] == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "bf16"


def test_activations_beyond_fp16_fail_verification(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proto = onnx.load(network)
    for tensor in proto.graph.initializer:
        if tensor.name == "w2":
            tensor.CopyFrom(onnx.numpy_helper.from_array(30_000 * np.ones(WIDE["w2"], np.float32), "w2"))
    onnx.save(proto, network)
    code, out = compiled(network, "fp16", "--macs", "60%", *data(network))
    assert code == 5
    assert "beyond fp16's 65504: use --precision bf16" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_latency_budget_is_met_at_the_precision(network: Path, precision: str) -> None:
    code, out = compiled(network, precision, "--latency", "75%", *data(network))
    report = json.loads((out / "report.json").read_text())
    assert code == (0 if report["status"] == "met" else 7)
    assert report["device"]["precision"] == precision
    assert report["result"]["latency_ms"] < report["baseline"]["latency_ms"]


MASKED = """masked (float[1,8,6] x, float[6,6] causal) => (float[1,4,6] y)
    <float lowest = {-3.4028234e38}, float nought = {0.0}> {
        q = Conv(x, q_w)
        k = Conv(x, k_w)
        turned = Transpose<perm=[0,2,1]>(q)
        scores = MatMul(turned, k)
        hidden = Greater(causal, nought)
        mask = Where(hidden, lowest, nought)
        seen = Add(scores, mask)
        weights = Softmax<axis=2>(seen)
        v = Conv(x, v_w)
        mixed = MatMul(v, weights)
        y = Conv(mixed, o_w)
    }"""


def test_a_mask_of_the_lowest_number_is_no_overflow(tmp_path: Path) -> None:
    """The converter clips it: what stands for infinity stands for it still."""
    shapes = {"q_w": (8, 8, 1), "k_w": (8, 8, 1), "v_w": (8, 8, 1), "o_w": (4, 8, 1)}
    path = tmp_path / "masked.onnx"
    onnx.save(model_of(MASKED, shapes), path)
    code, out = compiled(path, "fp16", "--macs", "80%")
    assert code == 0
    assert 0 < json.loads((out / "report.json").read_text())["verification"]["conversion_error"] < 0.05


def test_what_is_measured_twice_is_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cast_for_timing, converted = casting.cast_for_timing, []

    def counted(*args: Any, **options: Any) -> onnx.ModelProto:
        converted.append(options)
        return cast_for_timing(*args, **options)

    monkeypatch.setattr(casting, "cast_for_timing", counted)
    at = casting.AtPrecision(OnnxRuntimeProfiler(), "int8")
    fixed = RESIDUAL.replace("float[N,", "float[1,")
    several = [model(fixed, weights(SHAPES, seed)) for seed in range(8)]
    for _ in range(2):
        at.kernels(several, repetitions=1)
        at.layers(several[0], repetitions=1)
    assert len(converted) == 9
    monkeypatch.setattr(casting, "_KEPT_BYTES", 0)
    at.layers(several[1], repetitions=1)
    assert len(at._known) == casting._KEPT
    at.kernels(several, repetitions=1)
    assert len(converted) > 9 + 1
