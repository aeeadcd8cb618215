"""BatchNorm for networks in which it was folded away: training needs it, the shipped files do not have it.

Behind every convolution comes a normalisation over the batch, whose scale and shift are the deviation and mean that
the convolution's output has: in the network itself, or, for a network as pruned, at the channels that stay in the
original, which is what pruning the network before folding gives. It is folded again once training is done.
"""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.papers.torch_graph import TorchGraph
from passes.recovery.layers import Keep

EPSILON = 1e-5
Moments = dict[str, tuple[Tensor, Tensor]]


class Normalised(nn.Module):
    """A network with a BatchNorm behind every convolution."""

    def __init__(self, network: TorchGraph, moments: Moments) -> None:
        super().__init__()
        self.network = network
        self.scales = nn.ParameterDict({key: nn.Parameter(moments[key][1].clone()) for key in moments})
        self.shifts = nn.ParameterDict({key: nn.Parameter(moments[key][0].clone()) for key in moments})

    def forward(self, x: Tensor) -> Tensor:
        """Logits, with the statistics of this batch."""

        def tap(name: str, y: Tensor) -> Tensor:
            return F.batch_norm(
                y, None, None, self.scales[key_of(name)], self.shifts[key_of(name)], training=True, eps=EPSILON
            )

        return self.network(x, tap)

    @torch.no_grad()
    def folded(self, images: Tensor) -> onnx.ModelProto:
        """The network with the statistics of `images` (as one batch) folded into its convolutions."""
        factors: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

        def tap(name: str, y: Tensor) -> Tensor:
            scale, shift = self.scales[key_of(name)], self.shifts[key_of(name)]
            result, mean, inverse = torch.native_batch_norm(y, scale, shift, None, None, True, 0.0, EPSILON)
            factors[name] = scale * inverse, mean, shift
            return result

        self.network(images, tap)
        for node, _ in self.network.nodes:
            if node.op_type == "Conv":
                factor, mean, shift = factors[node.output[0]]
                weight, bias = (self.network.weights[self.network.keys[name]] for name in node.input[1:3])
                weight.mul_(factor.view(-1, 1, 1, 1))
                bias.copy_((bias - mean) * factor + shift)
        return self.network.export()


def key_of(name: str) -> str:
    """A tensor's name as torch's dictionaries of parameters allow it."""
    return name.replace(".", "~")


@torch.no_grad()
def moments_of(network: TorchGraph, images: Tensor) -> Moments:
    """Mean and deviation of every convolution's output, per channel."""
    found: Moments = {}

    def tap(name: str, y: Tensor) -> Tensor:
        found[key_of(name)] = y.mean((0, 2, 3)), y.std((0, 2, 3))
        return y

    network(images, tap)
    return found


def at_kept(moments: Moments, network: TorchGraph, keep: Keep) -> Moments:
    """The original's moments at the channels that `network` still has."""
    found: Moments = {}
    for node, _ in network.nodes:
        if node.op_type != "Conv":
            continue
        mean, deviation = moments[key_of(node.output[0])]
        kept = keep.get(node.input[1], {}).get(0)
        rows = slice(None) if kept is None else torch.from_numpy(kept)
        found[key_of(node.output[0])] = mean[rows], deviation[rows]
    return found
