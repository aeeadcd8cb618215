"""How well latency is predicted: every network profiled from nothing, then random plans predicted and measured.

    python -m benchmarks.latency --out results --figure docs/figures/latency.png --table docs/latency.md

Per network: an empty table is filled; `--plans` random width mixes that the model has not seen are predicted, then
measured end to end, interleaved, twice over. How far the two measurements of one plan differ, at one speed of the
machine, is what no prediction can beat. Writes `latency.json` after every network, so that a run that is cut short
keeps what it had, and goes on where it was; a scatter plot; and the table between the markers of a Markdown file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.gpu_models import mobilenetv2, resnet50
from halpc.ir.prediction import Prediction
from halpc.ir.table import LatencyTable
from passes.couple import couple
from passes.load import load
from passes.profile import held_back, profile
from profilers import profiler_for

MODELS = Path(__file__).parents[1] / "models"
NETWORKS = {
    "ResNet-18, half width, 32x32": "resnet18",
    "MobileNet-V2, 32x32": "mobilenetv2",
    "ResNet-56, 32x32": "resnet56",
    "MobileNet-V2, 224x224": "mobilenetv2-224",
    "ResNet-50, 224x224": "resnet50-224",
}
RANDOM = {"mobilenetv2-224": mobilenetv2, "resnet50-224": resnet50}
HEAD = (
    "| network | baseline | samples | profiling | repeated measurement differs by: median, nine in ten "
    "| predicted: median, nine in ten, R² | at the machine's state of the moment: median, nine in ten, R² |\n"
    "|---|---|---|---|---|---|---|"
)
BEGIN, END = "<!-- written by benchmarks/latency.py -->", "<!-- end -->"
Facts = dict[str, Any]


def main() -> None:
    """Measure what is not in the results yet; draw and tabulate all of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(NETWORKS.values()))
    parser.add_argument("--plans", type=int, default=40)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--table", type=Path, help="Markdown file whose table is replaced")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "latency.json"
    results: Facts = json.loads(file.read_text()) if file.exists() else {}
    for title, name in NETWORKS.items():
        if name in args.only.split(",") and title not in results:
            results[title] = measured(name, args.out, args.plans)
            file.write_text(json.dumps(results, indent=1))
        if title in results:
            print(row(title, results[title]), flush=True)
    if args.figure:
        draw(results, args.figure)
    if args.table:
        text = args.table.read_text()
        before, _, rest = text.partition(BEGIN)
        lines = "\n".join(row(title, facts) for title, facts in results.items())
        args.table.write_text(f"{before}{BEGIN}\n\n{HEAD}\n{lines}\n\n{END}{rest.partition(END)[2]}")


def measured(name: str, out: Path, plans: int) -> Facts:
    """Profile one network from nothing, predict, measure twice."""
    with tempfile.TemporaryDirectory() as folder:
        path = MODELS / f"{name}.onnx"
        if name in RANDOM:
            path = Path(folder) / f"{name}.onnx"
            onnx.save(RANDOM[name](1), path)
        model = load(path, batch=1)
    coupling = couple(model.twin)
    profiler = profiler_for("onnxruntime").profiler
    table = out / f"{name}.table"
    table.unlink(missing_ok=True)
    found = profile(model, coupling, LatencyTable.open(table, profiler.device), profiler)
    first, again = (held_back(model, coupling, found, profiler, plans=plans) for _ in range(2))
    ratios = [np.divide(found.measured_ms, found.now_ms) for found in (first, again)]  # spared what changed between
    repeated = np.abs(ratios[1] / ratios[0] - 1)
    return {
        "date": datetime.date.today().isoformat(),
        "device": profiler.device.as_json(),
        "baseline_ms": found.cost.at({}),
        "samples": found.samples,
        "networks": len(found.context),
        "seconds": found.seconds,
        "held_back": asdict(first),
        "drift": again.speed / first.speed,
        "repeated": [float(np.median(repeated)), float(np.percentile(repeated, 90))],
    }


def row(title: str, facts: Facts) -> str:
    """One line of the table."""
    before, repeated = Prediction(**facts["held_back"]), "{:.1%}, {:.1%}".format(*facts["repeated"])
    cells = [title, f"{facts['baseline_ms']:.2f} ms", f"{facts['samples']} + {facts['networks']} networks",
             f"{facts['seconds']:.0f} s", repeated, spelt(before), spelt(before.now)]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def spelt(p: Prediction) -> str:
    """Median error, ninetieth percentile, R²."""
    return f"{p.median_error:.1%}, {p.p90_error:.1%}, {p.r2:.4f}"


def draw(results: Facts, path: Path) -> None:
    """Predicted against measured, one panel per network."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * len(results), 3.2), layout="constrained")
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for axes, (title, facts) in zip(panels, results.items(), strict=True):
        held = Prediction(**facts["held_back"]).now
        most = 1.05 * max(*held.measured_ms, *held.predicted_ms)
        axes.plot([0, most], [0, most], color="0.7", linewidth=0.8)
        axes.plot(held.predicted_ms, held.measured_ms, "o", markersize=3)
        axes.set(
            title=title,
            xlabel="predicted, ms",
            ylabel="measured, ms",
            xlim=(0, most),
            ylim=(0, most),
        )
        axes.title.set_fontsize(9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
