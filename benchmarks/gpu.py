"""What halpc does on this GPU: one command, no hand needed.

    python -m benchmarks.gpu --smoke --out results            # < 1 minute: what loads and runs here at all
    python -m benchmarks.gpu --out results                    # the whole course
    python -m benchmarks.gpu --only staircases --out results  # some sections; merged into gpu.json
    python -m benchmarks.gpu --only compiled --batches 256 --precisions fp16 --out results
    python -m benchmarks.gpu --cpu --out results              # the whole course on the CPU, with small sizes

Writes `gpu.json`, `gpu.md` (the tables of docs/gpu.md) and one PNG per staircase figure, after every step
anew, so that a run that is cut short keeps what it had. A section that fails is recorded with its error, and
the next one runs. Every number says how it was measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import itertools
import json
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks import gpu_models, gpu_report
from halpc.errors import HalpcError
from passes.cast import cast_for_timing
from profilers import profiler_for

SPEEDUPS = (1.6, 2.55)  # HALP's two ResNet-50 points
PACKAGES = (
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "cuda-bindings",
    "numpy",
)
Facts = dict[str, Any]
Kernel = tuple[str, int, int, int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Course:
    """What is run, and how large.

    Attributes:
        provider: onnxruntime's execution provider.
        batches, precisions: every combination is measured.
        side, width: image side and ResNet-50's base width.
        kernels: (name, in-width, largest out-width, kernel, side) of every staircase.
        step: out-widths are multiples of it.
        seconds: time for an end-to-end comparison.
        out: folder of the results.
    """

    provider: str
    batches: tuple[int, ...]
    precisions: tuple[str, ...]
    side: int
    width: int
    kernels: tuple[Kernel, ...]
    step: int
    seconds: float
    out: Path

    def profiler(self, precision: str) -> Any:
        """onnxruntime's stop-watch at one precision."""
        return profiler_for("onnxruntime", provider=self.provider, precision=precision).profiler

    def resnet(self, batch: int, precision: str) -> onnx.ModelProto:
        """The network at one batch size and precision."""
        return cast_for_timing(gpu_models.resnet50(batch, side=self.side, width=self.width), precision)


def course(arguments: argparse.Namespace) -> Course:
    """Sizes for a GPU, or small ones for the CPU."""
    if arguments.cpu:
        kernels: tuple[Kernel, ...] = (
            ("3×3, 16→C, 14×14", 16, 32, 3, 14),
            ("1×1, 32→C, 14×14", 32, 32, 1, 14),
        )
        return Course("cpu", (1, 2), ("fp32", "fp16"), 64, 16, kernels, 8, 0.5, arguments.out)
    kernels = (
        ("3×3, 64→C, 56×56", 64, 128, 3, 56),
        ("1×1, 256→C, 56×56", 256, 128, 1, 56),
        ("3×3, 256→C, 14×14", 256, 256, 3, 14),
        ("1×1, 1024→C, 14×14", 1024, 256, 1, 14),
    )
    return Course("cuda", (1, 256), ("fp32", "fp16"), 224, 64, kernels, 8, 3.0, arguments.out)


def environment(plan: Course) -> Facts:
    """Versions, date, and the GPU as nvidia-smi shows it."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.mem,temperature.gpu,power.draw"]
    try:
        answer = subprocess.run([*query, "--format=csv,noheader"], capture_output=True, text=True, check=False)
        gpu = answer.stdout.strip() or answer.stderr.strip()
    except OSError as error:
        gpu = f"none ({error})"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"date": today, "python": platform.python_version(), "gpu": gpu, "versions": versions}


def onnxruntime_runs(plan: Course) -> Facts:
    """Does the execution provider load, compute what the CPU computes, and show its kernels?"""
    import onnxruntime

    model = gpu_models.convolution(1, (16, 32, 3), 14)
    profiler: Any = plan.profiler("fp32")
    reference: Any = profiler_for("onnxruntime").profiler
    x = np.random.default_rng(0).standard_normal((1, 16, 14, 14)).astype(np.float32)
    found, expected = (p.session(model).run(None, {"x": x})[0] for p in (profiler, reference))
    facts: Facts = {"providers": onnxruntime.get_available_providers(), "device": profiler.device.as_json()}
    facts["relative_error"] = float(np.abs(found - expected).max() / np.abs(expected).max())
    facts["kernel_ms"] = [float(ms) for ms in profiler.kernels([model, model])]
    try:
        facts["layers"] = [dataclasses.asdict(layer) for layer in profiler.layers(model, repetitions=5)]
    except HalpcError as error:
        facts["layers"] = f"not told: {error}"
    return facts


def rtx_runs(plan: Course) -> Facts:
    """Does a TensorRT-RTX plan build, load and run here? (Not a TensorRT result, whatever it says.)"""
    facts: Facts = {}
    for name, model in (
        ("convolution", gpu_models.convolution(1, (16, 32, 3), 14)),
        ("resnet50", gpu_models.resnet50(1, side=plan.side, width=plan.width)),
    ):
        facts[name] = _rtx(model, plan.out / f"rtx-{name}.plan", run=plan.provider != "cpu")
    return facts


def _rtx(model: onnx.ModelProto, path: Path, *, run: bool) -> Facts:
    from profilers.trt import TensorRTProfiler

    facts: Facts = {}
    with TensorRTProfiler("tensorrt_rtx") as profiler:
        try:
            built = profiler.build(model, path)
            facts["build"] = {"seconds": built.seconds, "bytes": built.size_bytes, "notes": list(built.notes)}
            if run:
                facts["device"] = profiler.device.as_json()
                facts["timing"] = _spell(profiler.compare([path], seconds=1.0)[0])
                facts["layers"] = [dataclasses.asdict(layer) for layer in profiler.layers(model)][:8]
                facts["kernel_ms"] = [float(ms) for ms in profiler.kernels([model, model])]
        except HalpcError as error:
            facts["error"] = f"{type(error).__name__}: {error}"
    path.unlink(missing_ok=True)
    path.with_name(f"{path.stem}.layers.json").unlink(missing_ok=True)
    return facts


def tensorrt_runs(plan: Course) -> Facts:
    """Is real TensorRT here?"""
    try:
        return {"device": profiler_for("tensorrt").profiler.device.as_json()}
    except HalpcError as error:
        return {"error": str(error)}


def _spell(timing: Any) -> Facts:
    return {
        "median_ms": timing.median_ms,
        "p95_ms": timing.percentile_ms(95),
        "min_ms": timing.min_ms,
        "spread": timing.spread,
        "runs": len(timing.samples_ms),
        "regime": timing.regime,
    }


def baselines(plan: Course) -> Facts:
    """ResNet-50 end to end, every batch and precision; the same model twice tells the noise."""
    rows = []
    for batch in plan.batches:
        for precision in plan.precisions:
            model = plan.resnet(batch, precision)
            first, again = plan.profiler(precision).compare([model, model], seconds=plan.seconds)
            repeat = abs(again.median_ms - first.median_ms) / first.median_ms
            throughput = batch * 1e3 / first.median_ms
            row = {
                "batch": batch,
                "precision": precision,
                "images_per_s": throughput,
                "repeats_within": repeat,
            }
            rows.append(row | _spell(first))
    return {"rows": rows}


def staircases(plan: Course) -> Facts:
    """Kernel time over out-width, for ResNet-50's own convolutions; one figure per batch and precision."""
    curves = []
    for batch in plan.batches:
        for precision in plan.precisions:
            profiler = plan.profiler(precision)
            for kernel in plan.kernels:
                curves.append(_staircase(profiler, plan, batch, precision, kernel))
    return {"rows": curves, "figures": gpu_report.draw(curves, plan.out)}


def _staircase(profiler: Any, plan: Course, batch: int, precision: str, kernel: Kernel) -> Facts:
    name, width_in, largest, size, side = kernel
    widths = list(range(plan.step, largest + 1, plan.step))
    shapes = [(width_in, width, size) for width in widths]
    models = [cast_for_timing(gpu_models.convolution(batch, shape, side), precision) for shape in shapes]
    started = time.perf_counter()
    times_ms = profiler.kernels(models, repetitions=7)
    seconds = time.perf_counter() - started
    where = {"batch": batch, "precision": precision, "kernel": name}
    return where | {"widths": widths, "times_ms": [float(ms) for ms in times_ms], "seconds": seconds}


def compiled(plan: Course) -> Facts:
    """Compile to HALP's two points and measure: latency, throughput, predicted against measured."""
    points = itertools.product(plan.batches, plan.precisions, SPEEDUPS)
    return {"rows": [_compile(plan, *point) for point in points]}


def _compile(plan: Course, batch: int, precision: str, speedup: float) -> Facts:
    from halpc.compile import compile_model
    from halpc.options import Options
    from halpc.units import parse_budget

    facts: Facts = {"batch": batch, "precision": precision, "speedup_asked": speedup}
    try:
        budget = (parse_budget("latency", f"{speedup}x"),)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "resnet50.onnx"
            onnx.save(gpu_models.resnet50(batch, side=plan.side, width=plan.width), source)
            started = time.perf_counter()
            options = Options(source, budget, Path(folder) / "out", profiler="onnxruntime", provider=plan.provider,
                              precision=precision)  # fmt: skip
            report = compile_model(options).as_json()
        facts["compile_seconds"] = time.perf_counter() - started
        facts |= _outcome(report, batch)
    except Exception as error:  # recorded with its traceback; the other points are still worth having
        facts |= {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()[-2000:]}
    return facts


def _outcome(report: Facts, batch: int) -> Facts:
    """What a report says of latency, in the terms of the table."""
    before, after = (report[name]["latency_ms"] for name in ("baseline", "result"))
    return {
        "status": report["status"],
        "baseline_ms": before,
        "predicted_ms": report["predicted_latency_ms"],
        "measured_ms": after,
        "speedup": before / after,
        "images_per_s_before": batch * 1e3 / before,
        "images_per_s_after": batch * 1e3 / after,
        "macs_kept": report["result"]["macs"] / report["baseline"]["macs"],
        "rounds": report["rounds"],
        "stage_seconds": report["stage_seconds"],
        "regime": report["profiler"],
        "notes": report["notes"],
    }


def cuda_graph(plan: Course) -> Facts:
    """What launching costs at batch 1: ResNet-50 with onnxruntime's CUDA graph, and without."""
    if plan.provider != "cuda":
        return {"error": "only on CUDA"}
    model = plan.resnet(1, "fp32").SerializeToString()
    return {name: _wall_ms(model, {"enable_cuda_graph": flag}) for name, flag in (("without", "0"), ("with", "1"))}


def _wall_ms(model: bytes, options: Facts, runs: int = 200) -> float:
    """Median wall time of a run with all tensors on the device at fixed addresses."""
    import onnxruntime as ort

    session = ort.InferenceSession(model, providers=[("CUDAExecutionProvider", {"use_tf32": "0"} | options)])
    binding = session.io_binding()
    for value in session.get_inputs():
        array = np.random.default_rng(0).standard_normal(value.shape).astype(np.float32)
        binding.bind_ortvalue_input(value.name, ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
    for value in session.get_outputs():
        empty = ort.OrtValue.ortvalue_from_shape_and_type(value.shape, np.float32, "cuda", 0)
        binding.bind_ortvalue_output(value.name, empty)
    times_ms = []
    for _ in range(runs):
        started = time.perf_counter()
        session.run_with_iobinding(binding)
        times_ms.append((time.perf_counter() - started) * 1e3)
    return float(np.median(times_ms[runs // 4 :]))


SECTIONS: dict[str, Callable[[Course], Facts]] = {
    "environment": environment,
    "onnxruntime": onnxruntime_runs,
    "tensorrt": tensorrt_runs,
    "rtx": rtx_runs,
    "cuda_graph": cuda_graph,
    "baselines": baselines,
    "staircases": staircases,
    "compiled": compiled,
}
SMOKE = ("environment", "onnxruntime", "tensorrt", "rtx", "cuda_graph", "baselines")
BY_CASE = ("baselines", "staircases", "compiled")  # one step per batch and precision


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the sections asked for, one after the other, and writes the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--cpu", action="store_true", help="the same course on the CPU, with small sizes")
    parser.add_argument("--smoke", action="store_true", help="only what tells in a minute what works here")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), help="these sections")
    parser.add_argument("--batches", nargs="+", type=int, help="only these batch sizes")
    parser.add_argument("--precisions", nargs="+", help="only these precisions")
    parsed = parser.parse_args(arguments)
    parsed.out.mkdir(parents=True, exist_ok=True)
    plan = course(parsed)
    batches, precisions = parsed.batches or plan.batches, parsed.precisions or plan.precisions
    plan = dataclasses.replace(plan, batches=tuple(batches), precisions=tuple(precisions))
    if parsed.smoke:
        plan = dataclasses.replace(plan, batches=plan.batches[:1], seconds=min(plan.seconds, 1.0))
    stored = parsed.out / "gpu.json"
    results: Facts = json.loads(stored.read_text()) if stored.is_file() else {}
    for name, step in _steps(plan, parsed.only or (SMOKE if parsed.smoke else SECTIONS)):
        results[name] = _merged(results.get(name, {}), _section(name, step))
        stored.write_text(json.dumps(results, indent=1, default=str) + "\n")
        (parsed.out / "gpu.md").write_text(gpu_report.markdown(results))
    print((parsed.out / "gpu.md").read_text())
    return 0


def _steps(plan: Course, names: Iterable[str]) -> Iterator[tuple[str, Course]]:
    """(section, course) one after the other; a long section is cut into one step per batch and precision."""
    for name in names:
        if name not in BY_CASE:
            yield name, plan
            continue
        for batch, precision in itertools.product(plan.batches, plan.precisions):
            yield name, dataclasses.replace(plan, batches=(batch,), precisions=(precision,))


def _merged(old: Facts, new: Facts) -> Facts:
    """`new`, with those rows of `old` that it does not measure again."""
    if "rows" not in new:
        return new
    cases = {(row["batch"], row["precision"]) for row in new["rows"]}
    kept = [row for row in old.get("rows", []) if (row["batch"], row["precision"]) not in cases]
    figures = list(dict.fromkeys([*old.get("figures", []), *new.get("figures", [])]))
    return {"rows": [*kept, *new["rows"]], **({"figures": figures} if figures else {})}


def _section(name: str, plan: Course) -> Facts:
    print(f"{name} …", file=sys.stderr, flush=True)
    started = time.perf_counter()
    try:
        facts = SECTIONS[name](plan)
    except Exception as error:  # a benchmark without a hand goes on: the error is the section's result
        facts = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()[-2000:]}
        if name in BY_CASE:
            cases = itertools.product(plan.batches, plan.precisions)
            facts = {"rows": [{"batch": batch, "precision": precision, **facts} for batch, precision in cases]}
    seconds = round(time.perf_counter() - started, 2)
    if name in BY_CASE:
        facts["rows"] = [{**row, "step_seconds": seconds} for row in facts["rows"]]
    else:
        facts["section_seconds"] = seconds
    errors = [row["error"] for row in facts.get("rows", [facts]) if "error" in row]
    print(f"{name}: {'; '.join(errors) or 'done'} ({seconds} s)", file=sys.stderr, flush=True)
    return facts


if __name__ == "__main__":
    sys.exit(main())
