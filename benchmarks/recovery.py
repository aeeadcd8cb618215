"""How far each importance and each kind of recovery brings a pruned network back, at equal multiply-accumulates.

    python -m benchmarks.recovery models/resnet18.onnx --calibration models/calibration.npz --evaluate models/test.npz

`unrecoverable@1` counts a loss at the last layer e times what it counts at the first (`ScoreOptions.depth`).
Prints one JSON object per line: what was tried, top-1, error of the outputs on held-back inputs, seconds, memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from benchmarks.network import Network, add_arguments
from halpc.ir.problem import Choice, Problem
from halpc.ir.saliency import Saliency
from passes import count
from passes.data_score import Kind, ScoreOptions, score_from_data
from passes.evaluate import evaluate
from passes.recover import Mode, Options, recover
from passes.recovery.uses import uses_of
from passes.score import score_from_weights
from passes.select import select
from passes.slim import plan_for, slim

WEIGHT_SCORES = ("l2", "sp-lamp")
DATA_SCORES: dict[str, tuple[Kind, float]] = {
    "energy": ("energy", ScoreOptions().depth),
    **{f"unrecoverable@{depth}": ("unrecoverable", depth) for depth in (0, 1, 2, 3)},
}
SCORES = (*WEIGHT_SCORES, *DATA_SCORES)
WIDTHS = ("uniform", "selected")
RECOVERIES: dict[str, tuple[Mode, Options]] = {
    "none": ("off", Options()),
    "bias": ("bias", Options()),
    "refit, own outputs": ("refit", Options(residual=False, rounds=0)),
    "refit, residual sums": ("refit", Options(rounds=0)),
    "refit, sums and activations": ("refit", Options()),
}


@dataclass(frozen=True, slots=True)
class Bench:
    """What is tried of one network."""

    network: Network

    def saliencies(self, wanted: Collection[str]) -> Iterator[tuple[str, Saliency, float]]:
        """Every importance that is wanted, with the seconds it took."""
        for kind in (kind for kind in WEIGHT_SCORES if kind in wanted):
            started = time.perf_counter()
            found = score_from_weights(kind, self.network.model.twin, self.network.coupling)
            yield kind, found, time.perf_counter() - started
        sizes = {name: group.size for name, group in self.network.coupling.free().items()}
        uses = uses_of(self.network.proto, self.network.coupling.axes, sizes)
        for name, (kind, depth) in DATA_SCORES.items():
            if name not in wanted:
                continue
            started = time.perf_counter()
            scored = score_from_data(
                self.network.proto, uses, self.network.calibration, kind, options=ScoreOptions(depth=depth)
            )
            scores = {group: scored[group].scores if group in scored else np.zeros(n) for group, n in sizes.items()}
            curves = {group: score.curve for group, score in scored.items()}
            yield name, Saliency(scores, name, curves=curves), time.perf_counter() - started

    def widths(self, saliency: Saliency, share: float, *, uniform: bool) -> dict[str, int]:
        """Widths that keep `share` of the MACs: the same share of every group, or the solver's choice."""
        costs, free = count.macs(self.network.model.twin, self.network.coupling), self.network.coupling.free()
        full = costs.at({name: group.size for name, group in free.items()})
        if uniform:
            shares = np.linspace(0.05, 1, 400)
            tried = [{n: max(1, round(g.size * s)) for n, g in free.items()} for s in shares]
            return [widths for widths in tried if costs.at(widths) <= share * full][-1]
        choices = []
        for name, group in free.items():
            widths = np.arange(1, group.size + 1)
            choices.append(Choice(name, widths, saliency.curve(name)[widths]))
        return dict(select(Problem(tuple(choices), (costs.resource(share * full),))).widths)

    def judge(self, saliency: Saliency, widths: dict[str, int], recoveries: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Every recovery that is wanted of one choice of widths."""
        masks = {name: saliency.mask(name, width) for name, width in widths.items()}
        plan = plan_for(self.network.model, self.network.coupling, masks)
        small = gs.export_onnx(slim(self.network.model, self.network.coupling, plan))
        for name in recoveries:
            mode, options = RECOVERIES[name]
            cpu = time.process_time()
            result = recover(self.network.proto, small, plan.keep, self.network.calibration, mode=mode, options=options)
            yield {
                "recovery": name,
                "top1": evaluate(result.model, self.network.labelled).top1,
                "output_error": result.error_after,
                "seconds": round(result.seconds, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
            }


def main() -> None:
    """Runs every combination."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--macs", type=float, nargs="+", default=[0.5, 0.25, 0.125])
    parser.add_argument("--scores", nargs="+", choices=SCORES, default=SCORES)
    parser.add_argument("--recoveries", nargs="+", choices=list(RECOVERIES), default=list(RECOVERIES))
    parser.add_argument("--widths", nargs="+", choices=WIDTHS, default=WIDTHS)
    options = parser.parse_args()
    bench = Bench(Network.of(options))
    print(json.dumps({"baseline_top1": evaluate(bench.network.proto, bench.network.labelled).top1}), flush=True)
    for name, saliency, seconds in bench.saliencies(options.scores):
        print(json.dumps({"importance": name, "score_seconds": round(seconds, 1)}), flush=True)
        for share in options.macs:
            for kind in options.widths:
                widths = bench.widths(saliency, share, uniform=kind == "uniform")
                for row in bench.judge(saliency, widths, options.recoveries):
                    how = {"importance": name, "macs": share, "widths": kind}
                    print(json.dumps(how | row), flush=True)
    print(json.dumps({"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    main()
