"""The papers' comparisons, third part: accuracy after a short fine-tuning in PyTorch, by one recipe for all.

    python -m benchmarks.papers.finetune                       from the networks as pruned
    python -m benchmarks.papers.finetune --start recovered     from the recovered ones, with a smaller rate

Whatever made the network, it gets BatchNorms again (see `normalise`), sees the same `IMAGES` labelled images of
training families once, in the same order, and is folded and judged by onnxruntime on `models/test.npz`. The unpruned
network is fine-tuned as well: what training alone gives or costs is no merit of pruning. Faster with:

    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 python -m benchmarks.papers.finetune
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.papers.accuracy import arguments, points, pruned_network
from benchmarks.papers.normalise import Moments, Normalised, at_kept, moments_of
from benchmarks.papers.points import BASELINE, MODELS, TUNED, Store, name_of
from benchmarks.papers.torch_graph import TorchGraph
from halpc.errors import VerificationError
from passes.evaluate import evaluate, load_labelled
from passes.recovery.segments import open_session, run_session

IMAGES, BATCH, SEED = 4096, 64, 6000
RATES = {"pruned": 0.03, "recovered": 0.003}
CLIP, SMOOTHING = 5.0, 0.05
STATISTICS = 512  # images that BatchNorms' statistics are estimated on
SAME = 1e-3  # largest difference between torch's and onnxruntime's outputs, as a share of the largest output


def main() -> None:
    """Fine-tune the points that were not yet."""
    args = arguments(__doc__)
    torch.set_num_threads(1)
    images, labels = training_images(MODELS, IMAGES)
    store = Store(args.results / TUNED[args.start])
    for network in args.networks:
        original = onnx.load(MODELS / f"{network}.onnx")
        labelled = load_labelled(MODELS / "test.npz", original)
        moments = moments_of(TorchGraph(original), images[:STATISTICS])
        for row in points(args, network):
            if store.has(row):
                continue
            started, model, start = time.perf_counter(), original, None
            if row["method"] != BASELINE["method"]:
                model, keep = pruned_network(original, row, args.work)
                start = at_kept(moments, TorchGraph(model), keep)
                if args.start == "recovered":
                    model, start = onnx.load(args.work / f"{name_of(row)}.recovered.onnx"), None
            tuned = fine_tuned(model, images, labels, RATES[args.start], start)
            top1 = evaluate(tuned, labelled, threads=1).top1
            store.add(row | {"top1_tuned": top1, "images": IMAGES, "seconds": time.perf_counter() - started})


def training_images(folder: Path, count: int) -> tuple[Tensor, Tensor]:
    """Images of training families and their labels, the same every time."""
    sys.path.insert(0, str(folder))
    from recipe.images import Glyphs, Painter

    painter = Painter(Glyphs.load(test=False), SEED)
    batches = [painter.batch(512) for _ in range(count // 512)]
    return torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])


def fine_tuned(
    model: onnx.ModelProto, images: Tensor, labels: Tensor, rate: float, moments: Moments | None = None
) -> onnx.ModelProto:
    """`model` after one pass over the images: SGD with momentum, half a cosine, bfloat16 where that is native.

    Args:
        moments: what BatchNorms start from; None: mean and deviation that the network itself has.
    """
    network = TorchGraph(model)
    same_as_onnxruntime(network, images[:BATCH])
    net = Normalised(network, moments or moments_of(network, images[:STATISTICS]))
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), rate, momentum=0.9, nesterov=True)
    steps = len(images) // BATCH
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        rows = slice(step * BATCH, (step + 1) * BATCH)
        with torch.autocast("cpu", torch.bfloat16, enabled=native):
            logits = net(images[rows].contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels[rows], label_smoothing=SMOOTHING)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
    return net.folded(images[-STATISTICS:])


@torch.no_grad()
def same_as_onnxruntime(network: TorchGraph, inputs: Tensor) -> float:
    """The largest difference between the two, as a share of the largest output.

    Raises:
        VerificationError: it is more than rounding.
    """
    session = open_session(network.model, threads=1)
    theirs = np.asarray(run_session(session, {network.input: inputs.numpy()})[network.output])
    difference = float(np.abs(network(inputs).numpy() - theirs).max() / max(np.abs(theirs).max(), 1e-30))
    if not difference <= SAME:
        raise VerificationError(f"torch and onnxruntime differ by {difference:.2g} of the output; fix TorchGraph first")
    return difference


if __name__ == "__main__":
    main()
