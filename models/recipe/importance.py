"""Taylor importance of every channel, as HALP computes it (arXiv 2110.10811, after Molchanov, CVPR 2019).

For channel n of a BatchNorm with scale gamma and shift beta, on one minibatch with gradients g of the loss,

    I_n = | g_gamma,n * gamma_n  +  g_beta,n * beta_n |

The gradients are those of the minibatch's mean loss: the signed sum is formed per minibatch, its absolute
value taken, and these are averaged over the minibatches. BatchNorm works on batch statistics, as in
training; the loss is cross entropy on training families, without label smoothing; nothing in the network
is changed. Keys name the convolution that feeds the BatchNorm (`layer1.0.conv1.weight`), values are
float32[C_out].
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .images import Glyphs, Painter
from .networks import NETWORKS, batchnorm_pairs
from .train import pick_device

SEED = 6000
MINIBATCHES = 200
BATCH = 256


def importance(network: nn.Module, painter: Painter, minibatches: int, batch: int) -> dict[str, np.ndarray]:
    """Mean over minibatches of |g_gamma * gamma + g_beta * beta|, by convolution weight."""
    network = copy.deepcopy(network).train()
    pairs = batchnorm_pairs(network)
    totals = {name: torch.zeros_like(norm.weight) for name, norm in pairs}
    loss = nn.CrossEntropyLoss()
    for images, labels in itertools.islice(painter.stream(batch), minibatches):
        network.zero_grad(set_to_none=True)
        loss(network(images), labels).backward()
        for name, norm in pairs:
            totals[name] += _taylor(norm)
    return {name: (total / minibatches).cpu().numpy() for name, total in totals.items()}


@torch.no_grad()
def _taylor(norm: nn.BatchNorm2d) -> torch.Tensor:
    if norm.weight.grad is None or norm.bias.grad is None:
        raise RuntimeError("a BatchNorm has no gradient: the network does not use it")
    return (norm.weight.grad * norm.weight + norm.bias.grad * norm.bias).abs()


def load(name: str, checkpoints: Path) -> nn.Module:
    """A trained network in evaluation mode."""
    network = NETWORKS[name]()
    network.load_state_dict(torch.load(checkpoints / f"{name}.pt", map_location="cpu", weights_only=True))
    return network.eval()


def write(name: str, checkpoints: Path, device: torch.device, minibatches: int = MINIBATCHES) -> None:
    """Computes and writes NAME.importance.npz beside NAME.pt."""
    painter = Painter(Glyphs.load(test=False, device=device), SEED)
    scores = importance(load(name, checkpoints).to(device), painter, minibatches, BATCH)
    np.savez(checkpoints / f"{name}.importance.npz", **scores)
    (checkpoints / f"{name}.importance.json").write_text(json.dumps({"minibatches": minibatches, "batch": BATCH}))


def main() -> None:
    """Scores one trained network."""
    parser = argparse.ArgumentParser(description="Writes NAME.importance.npz beside NAME.pt.")
    parser.add_argument("--network", choices=sorted(NETWORKS), required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minibatches", type=int, default=MINIBATCHES)
    parser.add_argument("--checkpoints", type=Path, required=True)
    options = parser.parse_args()
    write(options.network, options.checkpoints, pick_device(options.device), options.minibatches)


if __name__ == "__main__":
    main()
