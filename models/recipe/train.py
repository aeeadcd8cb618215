"""Trains one network on images that are painted as it goes, so that none is seen twice.

    python -m recipe.train --network resnet18 --device cuda --steps 16000 --minutes 2 --out DIR

writes DIR/NAME.pt (state_dict, float32) and adds the run to DIR/training.json. SGD with Nesterov momentum,
linear warm-up, cosine decay, label smoothing; bfloat16 where the device has it. `--minutes` caps the time:
the learning rate follows whichever of steps and time is further, so that a slow machine ends its schedule
with fewer steps.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .images import HARDNESS, Glyphs, Painter
from .networks import NETWORKS

VALIDATION = 1000
TEST_SEED, VALIDATION_SEED = 4000, 5000


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of one training; `steps` and `minutes` as described above, `rate` at its peak."""

    network: str
    steps: int
    minutes: float
    batch: int = 512
    rate: float = 0.25
    decay: float = 1e-4
    smoothing: float = 0.05
    warmup: float = 0.04
    seed: int = 1
    hardness: float = HARDNESS


def default(network: str, steps: int, minutes: float, batch: int = 512, hardness: float = HARDNESS) -> Recipe:
    """The settings that the shipped networks were trained with; the rate goes with the batch."""
    decay = {"resnet18": 2e-4, "mobilenetv2": 4e-5, "resnet56": 1e-4}[network]
    return Recipe(network, steps, minutes, batch=batch, rate=0.25 * batch / 512, decay=decay, hardness=hardness)


def train(recipe: Recipe, device: torch.device) -> tuple[nn.Module, dict[str, object]]:
    """Trains a network; returns it with the record of its run."""
    torch.manual_seed(recipe.seed)
    torch.backends.cudnn.benchmark = True
    network = NETWORKS[recipe.network]().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(_parameter_groups(network, recipe.decay), recipe.rate, 0.9, nesterov=True)
    loss = nn.CrossEntropyLoss(label_smoothing=recipe.smoothing)
    painter = Painter(Glyphs.load(test=False, device=device), recipe.seed, recipe.hardness)
    batches = painter.stream(recipe.batch)
    held = evaluation_sets(device, recipe.hardness)
    points: list[dict[str, float]] = []
    start, step, progress = time.monotonic(), 0, 0.0
    while progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * schedule(progress, recipe.warmup)
        images, labels = next(batches)
        with precision(device):
            error = loss(network(images), labels)
        optimizer.zero_grad(set_to_none=True)
        error.backward()
        optimizer.step()
        step += 1
        minutes = (time.monotonic() - start) / 60
        progress = max(step / recipe.steps, minutes / recipe.minutes)
        if progress >= (len(points) + 1) / 5 or progress >= 1:
            points.append({"step": step, "minutes": round(minutes, 2), "loss": round(error.item(), 4)})
            points[-1] |= {name: round(accuracy(network, *data), 4) for name, data in held.items()}
            print(recipe.network, points[-1], flush=True)
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    record = asdict(recipe) | {"device": where, "torch": torch.__version__, "images": step * recipe.batch}
    return network, record | {"log": points}


def _parameter_groups(network: nn.Module, decay: float) -> list[dict[str, object]]:
    """Weight decay for weights, none for biases and BatchNorm."""
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim == 1]
    return [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def schedule(progress: float, warmup: float) -> float:
    """Learning rate as a share of its peak: a linear rise, then half a cosine."""
    if progress < warmup:
        return max(progress / warmup, 0.01)
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup)))


def precision(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where the device multiplies it natively, float32 elsewhere."""
    native = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16) if native else nullcontext()


def evaluation_sets(device: torch.device, hardness: float) -> dict[str, tuple[Tensor, Tensor]]:
    """Fixed images of the training families and of the unseen ones, made on the CPU: the same for all."""
    sets = {}
    for name, test, seed in (("train_families", False, VALIDATION_SEED), ("test_families", True, TEST_SEED)):
        images, labels = Painter(Glyphs.load(test=test), seed, hardness).batch(VALIDATION)
        sets[name] = (images.to(device), labels.to(device))
    return sets


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1 share in evaluation mode; leaves the network in training mode."""
    network.eval()
    hits = [(network(x).argmax(1) == y).sum() for x, y in zip(images.split(500), labels.split(500), strict=True)]
    network.train()
    return float(torch.stack(hits).sum()) / len(labels)


def save(network: nn.Module, record: dict[str, object], out: Path) -> None:
    """Writes the checkpoint and adds the record to training.json."""
    out.mkdir(parents=True, exist_ok=True)
    name = str(record["network"])
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    torch.save(state, out / f"{name}.pt")
    journal = out / "training.json"
    records = json.loads(journal.read_text()) if journal.exists() else {}
    journal.write_text(json.dumps(records | {name: record}, indent=1) + "\n")


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def main() -> None:
    """Reads the options, trains, saves."""
    parser = argparse.ArgumentParser(description="Trains one network of the recipe.")
    parser.add_argument("--network", choices=sorted(NETWORKS), required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=16000)
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--hardness", type=float, default=HARDNESS, help="of the images; for trials")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    recipe = default(options.network, options.steps, options.minutes, options.batch, options.hardness)
    network, record = train(recipe, pick_device(options.device))
    save(network, record, options.out)


if __name__ == "__main__":
    main()
