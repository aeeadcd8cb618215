"""The ceiling: what ten epochs of training with labels still add to a recovered model.

Images are of training families only; an epoch is one pass over them, in a new order. The recipe is that of
`benchmarks/papers/finetune.py`.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch

from benchmarks.papers.finetune import fine_tuned, training_images

EPOCHS, RATE = 10, 0.01


def tuned(model: onnx.ModelProto, models: Path, count: int, *, seed: int) -> onnx.ModelProto:
    """`model` after `EPOCHS` passes over `count` images (a multiple of 512)."""
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(seed)
    images, labels = training_images(models, count)
    order = torch.cat([torch.randperm(count, generator=random) for _ in range(EPOCHS)])
    return fine_tuned(model, images[order], labels[order], RATE)
