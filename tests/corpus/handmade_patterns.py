"""More networks written out here, each around one pattern that pruning finds hard."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KeywordSpotter(nn.Module):
    """Audio conv1d net: raw wave, strided convolutions with GroupNorm, statistics pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(1, 32, 10, 5, bias=False), nn.GroupNorm(32, 32), nn.GELU(),
            nn.Conv1d(32, 48, 3, 2), nn.GELU(), nn.Conv1d(48, 64, 3, 2), nn.GELU(),
        )  # fmt: skip
        self.head = nn.Linear(128, 12)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.head(torch.cat([y.mean(2), y.std(2)], 1))  # type: ignore[no-any-return]


class FlattenedClassifier(nn.Module):
    """LeNet-like: the flattened map has spatial size above one, so a channel is 16 columns of the Gemm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 24, 5, 2, 2), nn.ReLU(), nn.Conv2d(24, 40, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.head = nn.Sequential(nn.Linear(640, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))  # type: ignore[no-any-return]


class SharedHead(nn.Module):
    """One head for three scales (shared initializers), as in RetinaNet, FCOS, EfficientDet."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(i, 32, 3, 2, 1) for i in (3, 32, 32))
        self.lateral = nn.ModuleList(nn.Conv2d(32, 24, 1) for _ in range(3))
        self.head = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 9, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for stage in self.stages:
            x = F.relu(stage(x))
            levels.append(x)
        top = self.lateral[2](levels[2])
        pyramid = [top]
        for lateral, level in ((self.lateral[1], levels[1]), (self.lateral[0], levels[0])):
            top = lateral(level) + F.interpolate(top, scale_factor=2.0, mode="nearest")
            pyramid.append(top)
        return torch.cat([self.head(p).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 9) for p in pyramid], 1)


class Einsums(nn.Module):
    """Attention spelled with einsum over separate heads, and a bilinear gate."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(48, 3 * 48, bias=False)
        self.out = nn.Linear(48, 48)
        self.mix = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, 4, 12).unbind(2)
        scores = torch.einsum("bihd,bjhd->bhij", q, k).softmax(-1)
        mixed = torch.einsum("bhij,hg->bgij", scores, self.mix)
        y = torch.einsum("bhij,bjhd->bihd", mixed, v).reshape(batch, length, 48)
        return x + self.out(y)  # type: ignore[no-any-return]


class SeveralInputsAndOutputs(nn.Module):
    """Two images and a vector in; an intermediate map, its norm and a prediction out."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(3, 24, 3, padding=1)
        self.style = nn.Linear(8, 48)
        self.join = nn.Conv2d(48, 32, 3, padding=1)
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, left: Tensor, right: Tensor, style: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = torch.cat([F.relu(self.left(left)), F.relu(self.right(right))], 1)
        scale = self.style(style)[:, :, None, None]
        joined = F.relu(self.join(features * scale))
        return joined, F.normalize(features, dim=1), self.head(joined)


class SpaceToDepthStem(nn.Module):
    """Focus stem by slices, pixel unshuffle, and shuffle back in the middle of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(12, 32, 3, padding=1)
        self.second = nn.Conv2d(128, 64, 1)
        self.last = nn.Conv2d(16, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        y = F.relu(self.first(torch.cat(parts, 1)))
        y = F.relu(self.second(F.pixel_unshuffle(y, 2)))
        return self.last(F.pixel_shuffle(y, 2))  # type: ignore[no-any-return]


class GroupedShuffle(nn.Module):
    """Grouped convolution, channel shuffle, grouped convolution, depthwise with a multiplier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 48, 3, padding=1)
        self.grouped = nn.Conv2d(48, 96, 1, groups=4)
        self.multiplied = nn.Conv2d(96, 192, 3, padding=1, groups=96)
        self.last = nn.Conv2d(192, 48, 1, groups=4)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x))
        z = F.relu(self.grouped(y))
        batch, width, height, length = z.shape
        z = z.view(batch, 4, width // 4, height, length).transpose(1, 2).reshape(z.shape)
        y = y + self.last(F.relu(self.multiplied(z)))
        return self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))  # type: ignore[no-any-return]


class StandardisedWeights(nn.Module):
    """Convolutions whose weights are standardised at run time, with GroupNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(o, i, 3, 3) * 0.1 for i, o in ((3, 32), (32, 48)))
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in (32, 48))
        self.head = nn.Conv2d(48, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        for weight, norm in zip(self.weights, self.norms, strict=True):
            spread, mean = torch.var_mean(weight, (1, 2, 3), keepdim=True)
            x = F.relu(norm(F.conv2d(x, (weight - mean) / (spread + 1e-5).sqrt(), padding=1)))
        return self.head(x)  # type: ignore[no-any-return]


class WarpedFeatures(nn.Module):
    """Spatial transformer: a predicted affine grid samples the features."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 24, 3, 2, 1)
        self.locate = nn.Sequential(
            nn.Conv2d(24, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
        )
        self.last = nn.Conv2d(24, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x))
        lines = torch.linspace(-1, 1, y.shape[2])
        grid = torch.stack(torch.meshgrid(lines, lines, indexing="xy"), -1)[None]
        shift = 0.3 * torch.tanh(self.locate(y))[:, None, None, :]
        return self.last(F.grid_sample(y, grid + shift, align_corners=False))  # type: ignore[no-any-return]


class MixtureOfExperts(nn.Module):
    """A gate's top two of four experts, by TopK and Gather."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(32, 4)
        self.up, self.down = (nn.Parameter(torch.randn(4, 32, 48) * 0.2), nn.Parameter(torch.randn(4, 48, 32) * 0.2))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(2, -1)
        hidden = F.gelu(torch.einsum("bi,bkih->bkh", x, self.up[chosen]))
        mixed = torch.einsum("bkh,bkho->bko", hidden, self.down[chosen])
        return self.head(x + (weights[..., None] * mixed).sum(1))  # type: ignore[no-any-return]
