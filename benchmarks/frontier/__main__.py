"""Accuracy at equal measured speedup, for every way of pruning; one command, resumable.

    pip install onnxsim torch torchvision && pip install --no-deps torch-pruning
    python -m benchmarks.frontier --out docs/figures/recovery.json

Ways:

    halpc                 the joint solver's widths, channels by `unrecoverable`, refitted
    halpc, no recovery    the same slim model as it was cut
    uniform               the same share of every group, channels by `unrecoverable`, refitted
    uniform, no recovery  the same slim model as it was cut: the floor
    onnxsim               apply_structured_wanda_pruning
    torch-pruning         group magnitude importance, no recovery
    fine-tuned            halpc's recovered model after 10 epochs of training: the ceiling

Each is brought to the speedup by one search (`search.py`) over measurements interleaved with the baseline. Rows that
the output already has are not made again; `--redo WAY` makes a way's rows anew. `--page docs/recovery.md` writes the
table and the plots.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime import __version__ as runtime

from benchmarks.frontier import others, page, tuning
from benchmarks.frontier.own import Own, Pruned, parameters
from benchmarks.frontier.search import Ladder
from halpc.errors import HalpcError
from passes.evaluate import evaluate
from passes.recover import recover

NETWORKS = ("resnet18", "mobilenetv2")
SPEEDUPS = (1.6, 2.5, 4.0)
PAIRS = {"halpc": "halpc, no recovery", "uniform": "uniform, no recovery"}  # refitted, and as it was cut
TOOLS = {"onnxsim": "onnxsim", "torch-pruning": "torch-pruning"}  # way → package
WAYS = (*(way for pair in PAIRS.items() for way in pair), *TOOLS, "fine-tuned")
Row = dict[str, Any]


@dataclass(slots=True)
class Bench:
    """One network, prepared when the first row needs it, and one ladder per way of pruning."""

    name: str
    args: argparse.Namespace
    _own: Own | None = None
    _ladders: dict[str, Ladder[Pruned]] = field(default_factory=dict)

    @property
    def own(self) -> Own:
        """The prepared network."""
        if self._own is None:
            path, args = self.args.models / f"{self.name}.onnx", self.args
            table = args.tables / f"{self.name}.table" if args.tables else None
            self._own = Own.prepare(path, args.models / "calibration.npz", args.models / "test.npz", table)
        return self._own

    def ladder(self, way: str) -> Ladder[Pruned]:
        """Of a way of pruning; what it measured serves every speedup."""
        if way not in self._ladders:
            calibration = self.own.job.calibration
            makers: dict[str, Callable[[], Callable[[float], Pruned | None]]] = {
                "halpc": lambda: self.own.joint,
                "uniform": lambda: self.own.uniform,
                "onnxsim": lambda: others.onnxsim_wanda(self.own.original, calibration),
                "torch-pruning": lambda: others.torch_pruning(self.name, self.own.original),
            }
            self._ladders[way] = Ladder(makers[way](), self.speedup)
        return self._ladders[way]

    def speedup(self, pruned: Pruned) -> float:
        """Baseline's median latency over the pruned model's, interleaved, at batch 1.

        Of the runs' processor time where the profiler has it (one thread): what other processes took does not count.
        """
        models = [single(self.own.original), single(pruned.model)]
        both = self.own.job.profiler.compare(models, seconds=self.args.seconds)
        busy = [timing.uninterrupted_ms for timing in both]
        runs = [t.samples_ms if own is None else own for t, own in zip(both, busy, strict=True)]
        before, after = (float(np.median(each)) for each in runs)
        return before / after

    def saved(self, speedup: float) -> Path:
        """Where halpc's recovered model lies, for fine-tuning."""
        return Path(self.args.work) / f"{self.name}-{speedup:g}x.onnx"

    def rows(self, way: str, speedup: float) -> Iterator[Row]:
        """One way at one speedup: one row, or two where it is refitted too."""
        if way == "fine-tuned":
            yield self._tuned(speedup)
            return
        try:
            found = self.ladder(way).climb(speedup)
        except HalpcError as error:
            yield {"status": str(error)}
            return
        except Exception as error:  # another tool's failure is a result, too
            if way not in TOOLS:
                raise
            yield {"status": f"{type(error).__name__}: {error}"[:300]}
            return
        if found is None:
            rungs = self.ladder(way).rungs.values()
            yield {"status": f"not reached: {max((s for m, s in rungs if m is not None), default=1.0):.2f}x at most"}
            return
        pruned, strength, measured = found
        measured = self.speedup(pruned)  # once more, so that the search's luck does not count
        row = {"status": "ok", "measured": measured, "strength": strength, "parameters": parameters(pruned.model)}
        yield row | {"top1": self._top1(pruned.model), "way": PAIRS.get(way, way)}
        if way in PAIRS:
            assert pruned.plan is not None
            cpu, job = time.process_time(), self.own.job
            fixed = recover(self.own.original, pruned.model, pruned.plan.keep, job.calibration)
            seconds = {"recover_seconds": fixed.seconds, "recover_cpu_seconds": time.process_time() - cpu}
            if way == "halpc":
                self.saved(speedup).parent.mkdir(parents=True, exist_ok=True)
                onnx.save(fixed.model, self.saved(speedup))
            yield row | {"top1": self._top1(fixed.model), "way": way} | seconds

    def _tuned(self, speedup: float) -> Row:
        path = self.saved(speedup)
        if not path.exists():
            return {"status": f"needs halpc's model in {path}: --redo halpc"}
        started = time.perf_counter()
        model = tuning.tuned(onnx.load(path), self.args.models, self.args.epoch_images, seed=self.args.seed)
        row = {"status": "ok", "measured": self.speedup(Pruned(model)), "parameters": parameters(model)}
        return row | {"epoch_images": self.args.epoch_images, "top1": self._top1(model),
                      "tuning_seconds": time.perf_counter() - started}  # fmt: skip

    def _top1(self, model: onnx.ModelProto) -> float:
        return evaluate(model, self.own.job.labelled).top1

    def baseline(self) -> Row:
        """The unpruned network's row."""
        return {"network": self.name, "way": "unpruned", "speedup": 1.0, "status": "ok", "measured": 1.0,
                "top1": self._top1(self.own.original), "parameters": parameters(self.own.original)}  # fmt: skip


def single(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model at batch 1."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return copy


def main() -> None:
    """Makes the rows that are missing, writing the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--out", type=Path, default=Path("docs/figures/recovery.json"))
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--speedups", nargs="+", type=float, default=SPEEDUPS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--redo", nargs="+", choices=WAYS, default=())
    parser.add_argument("--seconds", type=float, default=3.0, help="per interleaved measurement (default 3)")
    parser.add_argument("--epoch-images", type=int, default=4096, help="images in an epoch of fine-tuning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tables", type=Path, help="folder of latency tables NETWORK.table (default: the cache)")
    parser.add_argument("--work", type=Path, default=Path("frontier-models"), help="folder for recovered models")
    parser.add_argument("--note", default="", help="about the machine, for the page: what else ran")
    parser.add_argument("--page", type=Path, help="write table and plots into this page, and measure nothing")
    args = parser.parse_args()
    rows: list[Row] = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    if args.page is not None:
        page.write(rows, args.page, args.out.parent)
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [row for row in rows if row["way"] not in args.redo]
    for name in args.networks:
        bench = Bench(name, args)
        for made in missing(bench, rows, args):
            rows.append(made | {"date": f"{datetime.now(UTC):%Y-%m-%d}", "onnxruntime": runtime, "note": args.note})
            print(json.dumps(rows[-1]), flush=True)
            args.out.write_text(json.dumps({"format": "halpc.frontier", "version": 1, "rows": rows}, indent=1) + "\n")


def missing(bench: Bench, rows: list[Row], args: argparse.Namespace) -> Iterator[Row]:
    """Every row that is asked for and not there yet."""
    have = {(row["network"], row["way"], row["speedup"]) for row in rows}
    if (bench.name, "unpruned", 1.0) not in have:
        yield bench.baseline()
    for speedup in sorted(args.speedups, reverse=True):
        for way in args.ways:
            both = {way, PAIRS.get(way, way)}
            if way in PAIRS.values() or all((bench.name, each, speedup) in have for each in both):
                continue
            for row in bench.rows(way, speedup):
                tool = {"tool": f"{TOOLS[way]} {others.version(TOOLS[way])}"} if way in TOOLS else {}
                device = bench.own.job.profiler.device.name
                yield {"network": bench.name, "way": way, "speedup": speedup, **tool, "device": device} | row


if __name__ == "__main__":
    main()
