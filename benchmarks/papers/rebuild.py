"""The pruned networks of points whose latency was measured before, made again from the widths in their rows.

    python -m benchmarks.papers.rebuild --networks resnet18 --match _2x

The widths decide the latency, so that stays as it was measured; which channels stay is decided by the present
importance. For the accuracies and fine-tuning to be taken anew after a change of score, recovery or recipe.
"""

from __future__ import annotations

import onnx

from benchmarks.papers import peer
from benchmarks.papers.accuracy import arguments, points
from benchmarks.papers.points import BASELINE, LATENCY, MODELS, Row, Store, name_of
from halpc.compile import PREPARE, run
from halpc.job import Job
from halpc.options import Options
from halpc.units import parse_budget
from passes.proto import proto_of, save_proto
from passes.slim import plan_for, slim
from passes.write import write_json


def main() -> None:
    """Make the networks that are missing."""
    args = arguments(__doc__)
    args.work.mkdir(parents=True, exist_ok=True)
    for network in args.networks:
        jobs: dict[str, Job] = {}
        rows = {name_of(row): row for row in Store(args.results / LATENCY).rows()}
        for point in points(args, network):
            path = args.work / f"{name_of(point)}.onnx"
            if point["method"] == BASELINE["method"] or path.exists():
                continue
            row = rows[name_of(point)]
            if "sparsity" in row:
                save_proto(peer.prune(onnx.load(MODELS / f"{network}.onnx"), row["sparsity"]), path)
                continue
            if row["score"] not in jobs:
                jobs[row["score"]] = prepared(network, row["score"])
            pruned, plan = at_widths(jobs[row["score"]], row)
            save_proto(pruned, path)
            write_json(args.work / f"{name_of(point)}.plan.json", plan)


def prepared(network: str, score: str) -> Job:
    """A network with its importance; nothing is measured."""
    taylor = score == "taylor"
    options = Options(
        MODELS / f"{network}.onnx", (parse_budget("macs", "2x"),), score="auto" if taylor else score,
        importance=(MODELS / f"{network}.importance.npz",) if taylor else (), calibration=MODELS / "calibration.npz",
    )  # fmt: skip
    job = Job(options)
    run(job, PREPARE)
    return job


def at_widths(job: Job, row: Row) -> tuple[onnx.ModelProto, dict[str, object]]:
    """The network at a row's widths, and its plan's content."""
    masks = {name: job.saliency.mask(name, width) for name, (width, _) in row["widths"].items()}
    plan = plan_for(job.model, job.coupling, masks)
    return proto_of(slim(job.model, job.coupling, plan), job.model.header), plan.as_json()


if __name__ == "__main__":
    main()
