"""The GPU benchmark's results as tables in Markdown and as figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Facts = dict[str, Any]


def markdown(results: Facts) -> str:
    """The tables of docs/gpu.md, from whichever sections have run."""
    parts = ["<!-- written by benchmarks/gpu.py -->"]
    for name, write in WRITERS.items():
        if name in results:
            failed = results[name].get("error")
            parts.append(f"## {TITLES[name]}\n\n{failed or write(results[name])}")
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _environment(facts: Facts) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    return f"{facts['date']}; GPU: {facts['gpu']}; Python {facts['python']}; {versions}."


def _onnxruntime(facts: Facts) -> str:
    device = facts["device"]
    layers = facts["layers"]
    told = layers if isinstance(layers, str) else f"{len(layers)} layers told by its profiler"
    return (
        f"{device['name']}, onnxruntime {device['version']}, provider {device['provider']}: runs, and "
        f"differs from the CPU by {facts['relative_error']:.2g} of the largest output. Layers: {told}."
    )


def _engines(facts: Facts) -> str:
    device = facts.get("device")
    lines = [f"{device['name']}, {device['backend']} {device['version']}."] if device else [facts["not_run"]]
    return "\n".join([*lines, "", *(_engine(found) for found in facts["engines"])])


def _engine(found: Facts) -> str:
    said = [f"built in {found['build']['seconds']:.1f} s" if "build" in found else "not built"]
    if "timing" in found:
        said.append(f"{found['timing']['median_ms']:.3f} ms ({found['timing']['regime']})")
    else:
        said.append("not run")
    if "layers_ms" in found:
        said.append(
            f"layers {found['layers_ms']:.3f} ms, {found['nodes_named']} of {found['nodes']} nodes named in them"
        )
    if "kernel_ms" in found:
        said.append(f"kernels of two in one engine {' and '.join(f'{ms:.4f}' for ms in found['kernel_ms'])} ms")
    said += found.get("build", {}).get("notes", ())
    if "error" in found:
        said.append(_one_line(found["error"]))
    return f"- {found['model']}, {found['precision']}: {'; '.join(said)}"


def _cuda_graph(facts: Facts) -> str:
    captured = f"{facts['with']:.3f} ms with" if "with" in facts else f"refused ({facts['refused']}) with"
    return f"ResNet-50, fp32, batch 1, onnxruntime: {facts['without']:.3f} ms without, {captured} a CUDA graph."


def _baselines(facts: Facts) -> str:
    head = ("runtime", "batch", "precision", "median ms", "p95 ms", "images/s", "repeats within", "runs")
    rows = [
        (
            *_where(row), f"{row['median_ms']:.3f}", f"{row['p95_ms']:.3f}",
            f"{row['images_per_s']:.0f}", f"{row['repeats_within']:.1%}", row["runs"],
        )
        for row in _measured(facts)
    ]  # fmt: skip
    regimes = dict.fromkeys(row["regime"].partition(";")[0] for row in _measured(facts))
    return "\n\n".join([table(head, [*rows, *_failed(facts, head)]), *(f"Regime: {regime}." for regime in regimes)])


def _staircases(facts: Facts) -> str:
    head = ("runtime", "batch", "precision", "kernel", "widths", "least ms", "largest ms", "plateau", "seconds")
    rows = [
        (
            *_where(curve), curve["kernel"], len(curve["widths"]),
            f"{min(curve['times_ms']):.4f}", f"{max(curve['times_ms']):.4f}",
            plateau(curve["widths"], curve["times_ms"]), f"{curve['seconds']:.1f}",
        )
        for curve in _measured(facts)
    ]  # fmt: skip
    figures = "\n".join(f"![Kernel time over width]({name})" for name in facts.get("figures", []))
    return f"{table(head, [*rows, *_failed(facts, head)])}\n\n{figures}"


def _where(row: Facts) -> list[object]:
    return [row.get("runtime", ""), row["batch"], row["precision"]]


def _measured(facts: Facts) -> list[Facts]:
    return [row for row in facts["rows"] if "error" not in row]


def _failed(facts: Facts, head: Sequence[str]) -> list[list[object]]:
    """Rows of the cases that could not be measured, and why."""
    failed = [[*_where(row), _one_line(row["error"])] for row in facts["rows"] if "error" in row]
    return [[*start, *[""] * (len(head) - len(start))] for start in failed]


def _one_line(error: str) -> str:
    return error.replace("|", "/").splitlines()[0]


def plateau(widths: Sequence[int], times_ms: Sequence[float], noise: float = 0.05) -> int:
    """The median length, in channels, of runs of widths whose time differs by less than `noise`."""
    starts = [widths[0]]
    level = times_ms[0]
    for width, time_ms in zip(widths, times_ms, strict=True):
        if abs(time_ms - level) > noise * level:
            starts.append(width)
            level = time_ms
    lengths = sorted(b - a for a, b in zip(starts, [*starts[1:], widths[-1] + widths[0]], strict=True))
    return lengths[len(lengths) // 2]


def _compiled(facts: Facts) -> str:
    head = (
        "runtime", "batch", "precision", "asked", "status", "before ms", "predicted ms", "measured ms", "speed-up",
        "images/s before", "images/s after", "MACs kept", "compile s",
    )  # fmt: skip
    notes = [
        f"- {row.get('runtime', '')}, batch {row['batch']}, {row['precision']}, {row['speedup_asked']}×: {note}"
        for row in facts["rows"]
        for note in row.get("notes", ())
    ]
    return "\n\n".join(
        [table(head, [_compiled_row(row) for row in facts["rows"]]), *(["\n".join(notes)] * bool(notes))]
    )


def _compiled_row(row: Facts) -> list[object]:
    start = [*_where(row), f"{row['speedup_asked']}×"]
    if "error" in row:
        return [*start, _one_line(row["error"]), *[""] * 8]
    numbers = [f"{row[name]:.3f}" for name in ("baseline_ms", "predicted_ms", "measured_ms")]
    rates = [f"{row[name]:.0f}" for name in ("images_per_s_before", "images_per_s_after")]
    kept, seconds = f"{row['macs_kept']:.0%}", f"{row['compile_seconds']:.0f}"
    return [*start, row["status"], *numbers, f"{row['speedup']:.2f}×", *rates, kept, seconds]


WRITERS = {
    "environment": _environment, "onnxruntime": _onnxruntime, "tensorrt": _engines, "rtx": _engines,
    "cuda_graph": _cuda_graph, "baselines": _baselines, "staircases": _staircases, "compiled": _compiled,
}  # fmt: skip
TITLES = {
    "environment": "Machine", "onnxruntime": "onnxruntime", "tensorrt": "TensorRT", "rtx": "TensorRT-RTX",
    "cuda_graph": "Launch cost", "baselines": "ResNet-50, unpruned",
    "staircases": "Staircases", "compiled": "Compiled to HALP's two points",
}  # fmt: skip


def draw(curves: Sequence[Facts], folder: Path) -> list[str]:
    """One PNG per runtime, batch and precision, a panel per kernel; the file names."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = []
    for where in dict.fromkeys(tuple(_where(curve)) for curve in curves):
        mine = [curve for curve in curves if tuple(_where(curve)) == where]
        runtime, batch, precision = where
        figure, axes = pyplot.subplots(1, len(mine), figsize=(4 * len(mine), 3), squeeze=False)
        for axis, curve in zip(axes[0], mine, strict=True):
            axis.step(curve["widths"], curve["times_ms"], where="mid")
            axis.plot(curve["widths"], curve["times_ms"], ".", markersize=3)
            axis.set(title=curve["kernel"], xlabel="output channels", ylabel="ms", ylim=(0, None))
        figure.suptitle(f"{runtime}, batch {batch}, {precision}")
        figure.tight_layout()
        name = f"staircase-{runtime}-batch{batch}-{precision}.png"
        figure.savefig(folder / name, dpi=120)
        pyplot.close(figure)
        names.append(name)
    return names
