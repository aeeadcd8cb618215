"""What halpc does on this GPU: one command, no hand needed.

    python -m benchmarks.gpu --smoke --out results            # minutes: what loads and runs here at all
    python -m benchmarks.gpu --out results                    # the whole course
    python -m benchmarks.gpu --minutes 30 --out results       # as much of it as half an hour holds, what matters first
    python -m benchmarks.gpu --only staircases --out results  # some sections; merged into gpu.json
    python -m benchmarks.gpu --only compiled --runtimes tensorrt --batches 256 --precisions fp16 --out results
    python -m benchmarks.gpu --cpu --out results              # the whole course on the CPU, with small sizes

Writes `gpu.json`, `gpu.md` (the tables of docs/gpu.md), what engines say of their layers and one PNG per staircase
figure, after every step anew, so that a run that is cut short keeps what it had. Every step runs in a process of its
own: one that fails, crashes, hangs or leaves the GPU without memory is recorded with its error, and the next one runs.
Started again with the same folder it finds the latency tables there. Every number says how it was measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import importlib.util
import json
import os
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

from benchmarks import gpu_engines, gpu_models, gpu_report
from benchmarks.gpu_course import BY_CASE, RUNTIMES, Course, Facts, Kernel, cases_of, course, failed, merged
from halpc.errors import HalpcError
from passes.cast import cast_for_timing
from profilers import profiler_for

ROOT = Path(__file__).parents[1]
STEP_SECONDS = 3600.0  # after which a step is ended: something in it hangs
PACKAGES = (
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-cu13",
    "tensorrt-cu12",
    "tensorrt-cu13-bindings",
    "tensorrt-cu12-bindings",
    "tensorrt-rtx-cu13",
    "cuda-bindings",
    "pycuda",
    "nvidia-cudnn-cu13",
    "numpy",
)


def environment(plan: Course) -> Facts:
    """Versions, date, and the GPU as nvidia-smi shows it."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    gpu = _smi("name,driver_version,memory.total,clocks.max.sm,power.limit,mig.mode.current")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"date": today, "python": platform.python_version(), "gpu": gpu, "visible": visible, "versions": versions}


def _smi(fields: str) -> str:
    """What nvidia-smi says of every GPU, or why it says nothing."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return f"none ({error})"
    return "; ".join((answer.stdout.strip() or answer.stderr.strip()).splitlines())


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


def tensorrt_runs(plan: Course) -> Facts:
    """Does TensorRT build, load, run and tell its layers here?"""
    return gpu_engines.backend_runs("tensorrt", _few(plan), plan.precisions, plan.out)


def rtx_runs(plan: Course) -> Facts:
    """Does a TensorRT-RTX plan build, load and run here? (Not a TensorRT result, whatever it says.)"""
    return gpu_engines.backend_runs("tensorrt_rtx", _few(plan), plan.precisions[:1], plan.out)


def _few(plan: Course) -> dict[str, onnx.ModelProto]:
    return {
        "convolution": gpu_models.convolution(1, (16, 32, 3), 14),
        "resnet50": gpu_models.resnet50(1, side=plan.side, width=plan.width),
    }


def baselines(plan: Course) -> Facts:
    """ResNet-50 end to end, every batch and precision; the same model twice tells the noise."""
    rows = []
    for case in cases_of(plan):
        model = plan.resnet(case["batch"], case["precision"])
        profiler = plan.profiler(case["precision"], case["runtime"])
        first, again = profiler.compare([model, model], seconds=plan.seconds)
        repeat = abs(again.median_ms - first.median_ms) / first.median_ms
        throughput = case["batch"] * 1e3 / first.median_ms
        rows.append(case | {"images_per_s": throughput, "repeats_within": repeat} | gpu_engines.spell(first))
    return {"rows": rows}


def staircases(plan: Course) -> Facts:
    """Kernel time over out-width, for ResNet-50's own convolutions; one figure per runtime, batch and precision."""
    curves = []
    for case in cases_of(plan):
        profiler = plan.profiler(case["precision"], case["runtime"])
        for kernel in plan.kernels:
            curves.append(case | _staircase(profiler, plan, case["batch"], case["precision"], kernel))
    return {"rows": curves, "figures": gpu_report.draw(curves, plan.out)}


def _staircase(profiler: Any, plan: Course, batch: int, precision: str, kernel: Kernel) -> Facts:
    name, width_in, largest, size, side = kernel
    widths = list(range(plan.step, largest + 1, plan.step))
    shapes = [(width_in, width, size) for width in widths]
    models = [cast_for_timing(gpu_models.convolution(batch, shape, side), precision) for shape in shapes]
    started = time.perf_counter()
    times_ms = profiler.kernels(models, repetitions=7)
    seconds = time.perf_counter() - started
    return {"kernel": name, "widths": widths, "times_ms": [float(ms) for ms in times_ms], "seconds": seconds}


def compiled(plan: Course) -> Facts:
    """Compile to HALP's two points and measure: latency, throughput, predicted against measured."""
    return {"rows": [_compile(plan, case, speedup) for case in cases_of(plan) for speedup in plan.speedups]}


def _compile(plan: Course, case: Facts, speedup: float) -> Facts:
    from halpc.compile import compile_model
    from halpc.options import Options
    from halpc.units import parse_budget

    facts: Facts = {**case, "speedup_asked": speedup}
    batch, runtime = case["batch"], case["runtime"]
    try:
        budget = (parse_budget("latency", f"{speedup}x"),)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "resnet50.onnx"
            onnx.save(gpu_models.resnet50(batch, side=plan.side, width=plan.width), source)
            started = time.perf_counter()
            options = Options(source, budget, Path(folder) / "out", profiler=runtime, provider=plan.provider,
                              precision=case["precision"])  # fmt: skip
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
        "engine": report["engine"],
        "notes": report["notes"],
    }


def cuda_graph(plan: Course) -> Facts:
    """What launching costs at batch 1: ResNet-50 with onnxruntime's CUDA graph, and without."""
    if plan.provider != "cuda":
        return {"error": "only on CUDA"}
    model = plan.resnet(1, "fp32").SerializeToString()
    facts: Facts = {"without": _wall_ms(model, {"enable_cuda_graph": "0"})}
    try:
        facts["with"] = _wall_ms(model, {"enable_cuda_graph": "1"})
    except Exception as error:  # the other time is still worth having
        facts["refused"] = f"{type(error).__name__}: {error}"
    return facts


def _wall_ms(model: bytes, options: Facts, runs: int = 200) -> float:
    """Median wall time of a run with all tensors on the device at fixed addresses."""
    from profilers.ort_device import import_onnxruntime

    ort = import_onnxruntime("CUDAExecutionProvider")
    session = ort.InferenceSession(model, providers=[("CUDAExecutionProvider", {"use_tf32": "0"} | options)],
                                   enable_fallback=0)  # fmt: skip
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
    "tensorrt": tensorrt_runs,
    "onnxruntime": onnxruntime_runs,
    "rtx": rtx_runs,
    "cuda_graph": cuda_graph,
    "baselines": baselines,
    "compiled": compiled,
    "staircases": staircases,
}
SMOKE = ("environment", "tensorrt", "onnxruntime", "rtx", "cuda_graph", "baselines")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the sections asked for, one after the other, and writes the results after each."""
    parsed = _parsed(arguments)
    parsed.out = parsed.out.resolve()
    parsed.out.mkdir(parents=True, exist_ok=True)
    steps = list(_steps(_narrowed(course(parsed), parsed), parsed.only or (SMOKE if parsed.smoke else SECTIONS)))
    if parsed.here:
        for name, step in steps:
            _record(step.out, name, _section(name, step))
        return 0
    os.environ.setdefault("HALPC_CACHE", str(parsed.out / "cache"))
    until = time.monotonic() + 60 * parsed.minutes
    for name, step in steps:
        left = until - time.monotonic()
        problem = _apart(name, step, parsed, min(left, STEP_SECONDS)) if left > 0 else "not run: the time was over"
        if problem:
            print(f"{name}: {problem}", file=sys.stderr, flush=True)
            _record(step.out, name, failed(name, step, {"error": problem}), keep=left <= 0)
    print((parsed.out / "gpu.md").read_text())
    return 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--cpu", action="store_true", help="the same course on the CPU, with small sizes")
    parser.add_argument("--smoke", action="store_true", help="only what tells in minutes what works here")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no step later than this")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), help="these sections")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, help="only these runtimes")
    parser.add_argument("--batches", nargs="+", type=int, help="only these batch sizes")
    parser.add_argument("--precisions", nargs="+", help="only these precisions")
    parser.add_argument("--speedups", nargs="+", type=float, help="compile to these")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in this process
    return parser.parse_args(arguments)


def _narrowed(plan: Course, parsed: argparse.Namespace) -> Course:
    """The course with what was asked for in place of what is usual."""
    asked = {name: getattr(parsed, name) for name in ("runtimes", "batches", "precisions", "speedups")}
    plan = dataclasses.replace(plan, **{name: tuple(values) for name, values in asked.items() if values})
    if parsed.smoke:
        plan = dataclasses.replace(plan, batches=plan.batches[:1], seconds=min(plan.seconds, 1.0))
    return plan


def _steps(plan: Course, names: Iterable[str]) -> Iterator[tuple[str, Course]]:
    """(section, course) one after the other; a long section is cut into one step per case."""
    for name in names:
        if name not in BY_CASE:
            yield name, plan
            continue
        for case in cases_of(plan):
            runtimes, batches, precisions = ((case[key],) for key in ("runtime", "batch", "precision"))
            step = dataclasses.replace(plan, runtimes=runtimes, batches=batches, precisions=precisions)
            for speedup in plan.speedups if name == "compiled" else plan.speedups[:1]:
                yield name, dataclasses.replace(step, speedups=(speedup,))


def _apart(name: str, step: Course, parsed: argparse.Namespace, seconds: float) -> str:
    """Runs a step in a process of its own, which writes what it finds; what went wrong with it, or nothing."""
    cases = {"runtimes": step.runtimes, "batches": step.batches, "precisions": step.precisions,
             "speedups": step.speedups}  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.gpu", "--here", "--only", name, "--out", str(step.out)]
    command += [word for option, values in cases.items() for word in (f"--{option}", *map(str, values))]
    command += [f"--{flag}" for flag in ("cpu", "smoke") if getattr(parsed, flag)]
    try:
        code = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return f"ended after {seconds:.0f} s"
    return (
        "" if code == 0 else f"its process was killed by signal {-code}" if code < 0 else f"its process failed: {code}"
    )


def _record(out: Path, name: str, facts: Facts, *, keep: bool = False) -> None:
    """Writes a section's results among the others'; with `keep`, only where nothing stands."""
    stored = out / "gpu.json"
    results: Facts = json.loads(stored.read_text()) if stored.is_file() else {}
    old = results.get(name, {})
    results[name] = merged(facts, old) if keep and "rows" in old else old if keep and old else merged(old, facts)
    text = json.dumps(results, indent=1, default=str) + "\n"
    for path, content in ((stored, text), (out / "gpu.md", gpu_report.markdown(results))):
        fresh = path.with_name(f".{path.name}")
        fresh.write_text(content)
        fresh.replace(path)


def _section(name: str, plan: Course) -> Facts:
    print(f"{name} {_about(name, plan)}…", file=sys.stderr, flush=True)
    started = time.perf_counter()
    try:
        facts = SECTIONS[name](plan)
    except Exception as error:  # a benchmark without a hand goes on: the error is the section's result
        told = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()[-2000:]}
        facts = failed(name, plan, told)
    step = {"step_seconds": round(time.perf_counter() - started, 2)}
    if plan.provider != "cpu":
        step["clocks"] = _smi("clocks.sm,clocks.mem,temperature.gpu,power.draw")
    if name in BY_CASE:
        facts["rows"] = [{**row, **step} for row in facts["rows"]]
    else:
        facts |= step
    errors = [row["error"] for row in facts.get("rows", [facts]) if "error" in row]
    print(f"{name}: {'; '.join(errors) or 'done'} ({step['step_seconds']} s)", file=sys.stderr, flush=True)
    return facts


def _about(name: str, plan: Course) -> str:
    if name not in BY_CASE:
        return ""
    return "; ".join(" ".join(map(str, case.values())) for case in cases_of(plan)) + " "


if __name__ == "__main__":
    sys.exit(main())
