"""The papers' comparisons, first part: prune by every method to every budget and measure the latency.

    python -m benchmarks.papers.compare resnet18                          experiment 1, HALP's comparison (figure 7)
    python -m benchmarks.papers.compare resnet18 --experiment steps       experiment 3, pruning steps (figure 10)
    python -m benchmarks.papers.compare resnet18 --experiment grouping    experiment 2, group sizes (figures 4 and 6)
    python -m benchmarks.papers.compare resnet50                          latency only, 224x224, random weights

Every method is brought to the budget by halpc's own closed loop: it meets the same share of the baseline's latency,
measured interleaved with the baseline. Methods: `joint`, `sp-lamp`, `halp` (`halp-30`: in 30 steps), `uniform`,
`global` and `eagleeye` (see `rules` and `eagleeye`); `/16` behind a solver fixes its group size. `onnxsim` is a peer:
of 31 sparsities the smallest whose network was measured within the budget.

One row per point is appended to `latency.jsonl`; points that are there are not made again. The pruned networks go
into the folder `--work`.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from benchmarks.gpu_models import resnet50
from benchmarks.papers import peer
from benchmarks.papers.points import LATENCY, MODELS, NETWORKS, RESULTS, Row, Store, name_of
from benchmarks.papers.rules import RULES, Rule
from halpc import choosing, closed_loop, trials
from halpc.compile import PREPARE, run
from halpc.errors import HalpcError, InfeasibleError
from halpc.job import Job
from halpc.options import Options
from halpc.units import parse_budget
from passes.proto import proto_of, save_proto, static_proto
from passes.verify import verify
from passes.write import write_json

BUDGETS = {"methods": ("1.3x", "1.6x", "2x", "2.5x", "4x"), "synthetic": ("1.3x", "1.6x", "2x", "2.5x", "4x"),
           "steps": ("1.6x", "2.5x", "4x"), "grouping": ("1.6x", "2.5x")}  # fmt: skip
METHODS = ("joint", "halp", "halp-30", "sp-lamp", "uniform", "global", "eagleeye", "onnxsim")
EXPERIMENTS: dict[str, dict[str, tuple[str, ...]]] = {
    "methods": {"taylor": METHODS, "unrecoverable": ("joint", "halp-30", "uniform")},
    "steps": {"taylor": ("halp", "halp-2", "halp-5", "halp-10", "halp-30", "joint")},
    "grouping": {"taylor": ("halp-30", *(f"halp-30/{size}" for size in (1, 8, 16, 32, 64)))},
    "synthetic": {"taylor": ("joint", "halp", "halp-30", "sp-lamp", "uniform")},
}
SOLVERS = ("joint", "halp", "sp-lamp")
ROUNDS = 5  # of selecting and measuring per point
SECONDS = 4.0  # of interleaved measuring of the peer's network
PATIENCE_S = 3.0  # of one measurement of a pair of models
SPREAD = 1.0  # of the logarithm of the synthetic importance


def main() -> None:
    """Make the points that are missing, budget by budget."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", choices=[*NETWORKS, "resnet50"])
    parser.add_argument("--experiment", choices=list(EXPERIMENTS), default="methods")
    parser.add_argument("--budgets", nargs="+")
    parser.add_argument("--methods", nargs="+", help="only these")
    parser.add_argument("--scores", nargs="+", help="only these")
    parser.add_argument("--work", type=Path, default=Path("out/papers"), help="pruned networks and latency tables")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    trials.PATIENCE_S = PATIENCE_S
    args.work.mkdir(parents=True, exist_ok=True)
    if args.network == "resnet50":
        args.experiment = "synthetic"
        make_resnet50(args.work)
    store, bench = Store(args.results / LATENCY), Bench(args.network, args.work)
    for row in wanted(args):
        if not store.has(row):
            store.add(row | bench.point(row))


def wanted(args: argparse.Namespace) -> Iterator[Row]:
    """The points of an experiment."""
    budgets = args.budgets or BUDGETS[args.experiment]
    for budget, (score, methods) in itertools.product(budgets, EXPERIMENTS[args.experiment].items()):
        for method in methods:
            if method in (args.methods or [method]) and score in (args.scores or [score]):
                yield {"network": args.network, "score": score, "method": method, "budget": budget}


def make_resnet50(work: Path) -> None:
    """A ResNet-50 with random weights and log-normal importance, from fixed seeds: for latency only."""
    if (work / "resnet50.onnx").exists():
        return
    model = resnet50(1)
    rng = np.random.default_rng(0)
    sizes = {t.name: t.dims[0] for t in model.graph.initializer if t.name.endswith(".weight")}
    scores = {
        name: rng.lognormal(0.0, SPREAD, size).astype(np.float32) for name, size in sizes.items() if name != "fc.weight"
    }
    np.savez(work / "resnet50.importance.npz", **scores)
    save_proto(model, work / "resnet50.onnx")


class Bench:
    """Prepared jobs of one network: by score, and by whether widths are multiples of anything."""

    def __init__(self, network: str, work: Path) -> None:
        self.network, self.work = network, work
        self.folder = work if network == "resnet50" else MODELS
        self.jobs: dict[tuple[str, int | None], Job] = {}
        self.peers: list[tuple[float, onnx.ModelProto]] = []

    def job(self, score: str, align: int | None) -> Job:
        """Everything that does not depend on method or budget."""
        if (score, align) not in self.jobs:
            taylor = score == "taylor"
            options = Options(
                self.folder / f"{self.network}.onnx", (parse_budget("latency", "2x"),), profiler="onnxruntime",
                importance=(self.folder / f"{self.network}.importance.npz",) if taylor else (),
                score="auto" if taylor else score, align=align, table=self.work / f"{self.network}.latency",
                calibration=None if self.network == "resnet50" else self.folder / "calibration.npz", rounds=ROUNDS,
            )  # fmt: skip
            self.jobs[score, align] = job = Job(options)
            run(job, PREPARE)
        return self.jobs[score, align]

    def point(self, row: Row) -> Row:
        """One method at one budget: measured latency, and the network in the work folder."""
        try:
            if row["method"] == "onnxsim":
                return self._peer(row)
            return self._selected(row)
        except HalpcError as error:
            return {"status": f"{type(error).__name__}: {error}"}

    def _selected(self, row: Row) -> Row:
        method, _, size = row["method"].partition("/")
        solver, _, steps = method.partition("-") if method.startswith("halp") else (method, "", "")
        job = self.job(row["score"], int(size) if size else None)
        budget = parse_budget("latency", row["budget"])
        options = replace(job.options, budgets=(budget,), solver=solver if solver in SOLVERS else "joint",
                          steps=int(steps or 1))  # fmt: skip
        own = job.at(options)
        if size:
            fixed = {name: int(size) for name in own.coupling.free()}
            own.costs["latency"] = replace(own.costs["latency"], steps=fixed)
        started = time.perf_counter()
        try:
            with using(rule_of(solver, own)):
                closed_loop.select_and_measure(own)
                trials.judge(own)
                if trials.status(own) == "over budget":
                    closed_loop.select_and_measure(own)
                    trials.judge(own)
        except InfeasibleError:
            if not own.trials:
                raise
            least = min((trial.evidence for trial in own.trials.values()), key=lambda found: found.share)
            return {"status": "not reached", "fastest": least.baseline_ms / least.measured_ms, "noise": least.noise}
        save_proto(own.slim, self.work / f"{name_of(row)}.onnx")
        write_json(self.work / f"{name_of(row)}.plan.json", own.plan.as_json())
        return described(own, time.perf_counter() - started)

    def _peer(self, row: Row) -> Row:
        job = self.job(row["score"], None)
        model = proto_of(job.model.graph, job.model.header)

        def static(proto: onnx.ModelProto) -> onnx.ModelProto:
            return static_proto(gs.import_onnx(proto), job.model.shapes, job.model.header)

        if not self.peers:
            pruned = [(s, peer.prune(model, s)) for s in peer.SPARSITIES]
            models = [job.baseline, *(static(proto) for _, proto in pruned)]
            before, *after = [t.median_ms for t in job.profiler.compare(models, seconds=6 * SECONDS)]
            self.peers = [(ms / before, proto) for ms, (_, proto) in zip(after, pruned, strict=True)]
        share = parse_budget("latency", row["budget"]).limit(1.0)
        fastest = min(ratio for ratio, _ in self.peers)
        for sparsity, (ratio, proto) in zip(peer.SPARSITIES, self.peers, strict=True):
            if ratio > share:
                continue
            before, after = job.profiler.compare([job.baseline, static(proto)], seconds=2 * SECONDS)
            if after.median_ms <= share * before.median_ms:
                save_proto(proto, self.work / f"{name_of(row)}.onnx")
                return {"status": "met", "speedup": before.median_ms / after.median_ms, "latency_ms": after.median_ms,
                        "baseline_ms": before.median_ms, "sparsity": sparsity,
                        "device": job.profiler.device.as_json()}  # fmt: skip
        return {"status": "not reached", "fastest": 1 / fastest}


def rule_of(method: str, job: Job) -> Rule | None:
    """What takes the solver's place, if `method` is no solver."""
    if method == "eagleeye":
        from benchmarks.papers.eagleeye import EagleEye  # needs torch

        return EagleEye(job)
    return RULES.get(method)


def described(job: Job, seconds: float) -> Row:
    """What came of a point."""
    assert job.evidence is not None
    before, after = job.evidence.baseline_ms, job.evidence.measured_ms
    whole = sum(float(job.saliency.curve(name)[group.size]) for name, group in job.coupling.free().items())
    return {
        "status": trials.status(job),
        "speedup": before / after,
        "latency_ms": after,
        "baseline_ms": before,
        "predicted_ms": job.rounds[-1]["predicted_ms"],
        "first_predicted_ms": job.rounds[0]["predicted_ms"],
        "first_measured_ms": job.rounds[0]["measured_ms"],
        "noise": job.evidence.noise,
        "importance": job.selection.value / whole,
        "gap": job.selection.gap if np.isfinite(job.selection.gap) else None,
        "macs": job.costs["macs"].at(job.selection.widths) / job.costs["macs"].at({}),
        "rounds": max(r["round"] for r in job.rounds),
        "seconds": seconds,
        "error": verify(job.model, job.coupling, job.plan, job.slim).max_relative_error,
        "widths": {name: [job.selection.widths[name], group.size] for name, group in job.coupling.free().items()},
        "device": job.profiler.device.as_json(),
    }


class using:  # noqa: N801  (a context manager, read as a word)
    """Put another rule in the place of the solver, for the closed loop to call."""

    def __init__(self, rule: Rule | None) -> None:
        self.rule = rule

    def __enter__(self) -> None:
        self.kept = choosing.select
        if self.rule is not None:
            rule = self.rule
            choosing.select = lambda problem, **_: rule(problem)

    def __exit__(self, *_: Any) -> None:
        choosing.select = self.kept


if __name__ == "__main__":
    main()
