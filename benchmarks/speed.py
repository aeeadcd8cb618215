"""How long halpc's own stages take, on the `onnx` package's light_resnet50 and on the shipped networks.

    python -m benchmarks.speed

Prints one line per figure: the minimum of several runs, in seconds, and the target it is held against.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnx

from halpc.ir.problem import Problem
from passes.count import macs
from passes.couple import couple
from passes.load import load
from passes.proto import proto_of, save_proto
from passes.score import score_from_weights
from passes.select import select
from passes.slim import plan_for, slim
from passes.widths import choices

RESNET50 = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"
RUNS = 5


def least(function: Callable[[], object]) -> float:
    """Fastest of several runs, in seconds."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    """Measure and print."""
    model = load(RESNET50)
    coupling = couple(model.twin)
    saliency = score_from_weights("l2", model.twin, coupling)
    cost = macs(model.twin, coupling)
    problem = Problem(choices(coupling, saliency, align=8), (cost.resource(0.5 * cost.at({})),))
    found = select(problem)
    masks = {name: saliency.mask(name, width) for name, width in found.widths.items()}
    plan = plan_for(model, coupling, masks)
    weights = sum(t.nbytes for t in (c.values for c in model.graph.tensors().values() if hasattr(c, "values")))

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder:
            save_proto(proto_of(slim(model, coupling, plan), model.header), Path(folder) / "pruned.onnx")

    print(f"load and couple ResNet-50   {least(lambda: couple(load(RESNET50).twin)):.2f} s   (target 1 s)")
    print(f"couple alone                {least(lambda: couple(model.twin)):.3f} s")
    print(f"select, {sum(len(c.widths) for c in problem.choices)} widths         {least(lambda: select(problem)):.2f} s"
          f"   (target 0.3 s), gap {found.gap:.4%} (target 0.1%)")  # fmt: skip
    print(f"slim and write              {least(write):.2f} s   (target 2 s)")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"peak memory of all this     {peak / 1e6:.0f} MB, weights {weights / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
