"""The papers' comparisons, second part: accuracy of every pruned network, as pruned and recovered without training.

    python -m benchmarks.papers.accuracy                       every point of latency.jsonl that has no accuracy yet
    python -m benchmarks.papers.accuracy --networks resnet18 --match _taylor_joint

Top-1 is counted on `models/test.npz`; recovery sees `SAMPLES` unlabelled inputs of `models/calibration.npz`. onnxsim's
networks are recovered too: which channels it kept is read off the numbers that are left.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import onnx

from benchmarks.papers import peer
from benchmarks.papers.points import ACCURACY, BASELINE, LATENCY, MODELS, NETWORKS, RESULTS, Row, Store, name_of
from halpc.ir.plan import read_plan
from passes.calibration import load_calibration
from passes.evaluate import evaluate, load_labelled
from passes.proto import save_proto
from passes.recover import Options, recover

SAMPLES = 200


def main() -> None:
    """Judge the points that were not yet."""
    args = arguments(__doc__)
    store = Store(args.results / ACCURACY)
    for network in args.networks:
        original = onnx.load(MODELS / f"{network}.onnx")
        labelled = load_labelled(MODELS / "test.npz", original)
        calibration = load_calibration(MODELS / "calibration.npz", original).take(slice(0, args.samples))
        for row in points(args, network):
            if store.has(row):
                continue
            if row["method"] == BASELINE["method"]:
                store.add(row | {"top1": evaluate(original, labelled, threads=1).top1})
                continue
            pruned, keep = pruned_network(original, row, args.work)
            fixed = recover(original, pruned, keep, calibration, options=Options(threads=1))
            save_proto(fixed.model, args.work / f"{name_of(row)}.recovered.onnx")
            before, after = (evaluate(model, labelled, threads=1).top1 for model in (pruned, fixed.model))
            store.add(row | {"top1": before, "top1_recovered": after, "recover_seconds": fixed.seconds,
                             "samples": len(calibration)})  # fmt: skip


def arguments(text: str | None) -> argparse.Namespace:
    """What both parts are asked."""
    parser = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--match", nargs="+", default=[""], help="only points whose name contains one of these")
    parser.add_argument("--start", choices=("pruned", "recovered"), default="pruned", help="of fine-tuning")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="unlabelled inputs that recovery sees")
    parser.add_argument("--work", type=Path, default=Path("out/papers"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


def points(args: argparse.Namespace, network: str) -> Iterator[Row]:
    """The unpruned network, and every point that met its budget and is asked for."""
    met = [r for r in Store(args.results / LATENCY).rows() if r["network"] == network and r["status"] == "met"]
    for row in [{"network": network, **BASELINE}, *met]:
        point = {k: row[k] for k in ("network", "score", "method", "budget")}
        if any(part in name_of(point) for part in args.match):
            yield point


def pruned_network(original: onnx.ModelProto, row: Row, work: Path) -> tuple[onnx.ModelProto, peer.Keep]:
    """A point's network as pruned, and what of every initializer is left."""
    path = work / f"{name_of(row)}.onnx"
    pruned, plan = onnx.load(path), work / f"{name_of(row)}.plan.json"
    if plan.exists():
        return pruned, {name: dict(axes) for name, axes in read_plan(plan).keep.items()}
    return pruned, peer.kept(original, pruned)


if __name__ == "__main__":
    main()
