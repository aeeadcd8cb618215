"""Small networks written out here: the patterns that no library above has in its simplest form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RecurrentClassifier(nn.Module):
    """Embedding, LSTM or GRU or RNN, last step into a linear head."""

    def __init__(self, kind: str, bidirectional: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 24)
        self.recurrent = getattr(nn, kind)(24, 32, num_layers=2, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(64 if bidirectional else 32, 10)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.recurrent(self.embedding(x))
        return self.head(steps[:, -1])  # type: ignore[no-any-return]


class ConvolutionalRecurrent(nn.Module):
    """CRNN for text lines: convolutions, columns as time steps, bidirectional LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *_conv(1, 32), nn.MaxPool2d(2), *_conv(32, 64), nn.MaxPool2d(2), *_conv(64, 64), nn.MaxPool2d((8, 1))
        )
        self.recurrent = nn.LSTM(64, 32, bidirectional=True)
        self.head = nn.Linear(64, 37)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.convolutions(x).squeeze(2).permute(2, 0, 1)
        return self.head(self.recurrent(columns)[0])  # type: ignore[no-any-return]


class SubPixel(nn.Module):
    """ESPCN: convolutions, then pixel shuffle to three times the size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 64, 5, padding=2), nn.Tanh(), nn.Conv2d(64, 32, 3, padding=1), nn.Tanh(),
            nn.Conv2d(32, 9, 3, padding=1), nn.PixelShuffle(3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


class SuperResolution(nn.Module):
    """SRResNet: residual blocks with PReLU, a global skip, pixel shuffles in the middle of the network."""

    def __init__(self, width: int = 32, blocks: int = 3) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, width, 9, padding=4), nn.PReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(*_conv(width, width, nn.PReLU), nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))
            for _ in range(blocks)
        )
        self.middle = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))
        self.up = nn.Sequential(
            *(
                layer
                for _ in range(2)
                for layer in (nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.PReLU())
            ),
            nn.Conv2d(width, 3, 9, padding=4),
        )

    def forward(self, x: Tensor) -> Tensor:
        first = y = self.first(x)
        for block in self.blocks:
            y = y + block(y)
        return self.up(first + self.middle(y))  # type: ignore[no-any-return]


class TransposedUNet(nn.Module):
    """U-Net of three levels whose way up is transposed convolution."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        self.down = nn.ModuleList(
            nn.Sequential(*_conv(i, o), *_conv(o, o)) for i, o in zip([3, *widths], widths, strict=False)
        )
        self.bottom = nn.Sequential(*_conv(widths[-1], 8 * width))
        self.rise = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths))
        self.up = nn.ModuleList(nn.Sequential(*_conv(2 * w, w), *_conv(w, w)) for w in reversed(widths))
        self.head = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for rise, up, skip in zip(self.rise, self.up, reversed(skips), strict=True):
            x = up(torch.cat([skip, rise(x)], 1))
        return self.head(x)  # type: ignore[no-any-return]


class Generator(nn.Module):
    """DCGAN: a linear layer into a map, then transposed convolutions, one of them grouped."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(32, 64 * 4 * 4)
        self.body = nn.Sequential(
            nn.BatchNorm2d(64), nn.ReLU(),
            nn.ConvTranspose2d(64, 48, 4, 2, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU(),
            nn.ConvTranspose2d(48, 32, 4, 2, 1, groups=4, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.project(x).view(-1, 64, 4, 4))  # type: ignore[no-any-return]


class PaddedResidual(nn.Module):
    """ResNet-20 for CIFAR as first published: where the width grows, the shortcut is padded with zeros."""

    def __init__(self, symmetric: bool = True) -> None:
        super().__init__()
        self.symmetric = symmetric
        self.first = nn.Sequential(*_conv(3, 16))
        plan = [(16, 1)] * 3 + [(32, 2)] + [(32, 1)] * 2 + [(64, 2)] + [(64, 1)] * 2
        before = [16, *(width for width, _ in plan)]
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(),
                nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o),
            )
            for i, (o, s) in zip(before, plan, strict=False)
        )  # fmt: skip
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            y = block(x)
            missing = y.shape[1] - x.shape[1]
            if missing:
                front = missing // 2 if self.symmetric else 0
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, front, missing - front))
            x = F.relu(x + y)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class PointNet(nn.Module):
    """Shared pointwise layers, an input transform predicted by a small net, max over the points."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = nn.Sequential(
            nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 64, 1), nn.ReLU()
        )
        self.matrix = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 9))
        self.local = nn.Sequential(nn.Conv1d(3, 64, 1), nn.BatchNorm1d(64), nn.ReLU())
        self.features = nn.Sequential(nn.Conv1d(64, 128, 1), nn.BatchNorm1d(128), nn.ReLU(), nn.Conv1d(128, 256, 1))
        self.segments = nn.Sequential(nn.Conv1d(320, 64, 1), nn.BatchNorm1d(64), nn.ReLU(), nn.Conv1d(64, 6, 1))

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.matrix(self.transform(x).amax(2)).view(-1, 3, 3)
        local = self.local((x.transpose(1, 2) @ matrix).transpose(1, 2))
        whole = self.features(local).amax(2, keepdim=True).expand(-1, -1, x.shape[2])
        return self.segments(torch.cat([local, whole], 1))  # type: ignore[no-any-return]


class Separation(nn.Module):
    """Conv-TasNet: encoder, dilated depthwise blocks with PReLU, masks per source, transposed decoder."""

    def __init__(self, width: int = 32, hidden: int = 64, sources: int = 2) -> None:
        super().__init__()
        self.sources = sources
        self.encoder = nn.Conv1d(1, width, 16, 8, bias=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, hidden, 1), nn.PReLU(), nn.BatchNorm1d(hidden),
                nn.Conv1d(hidden, hidden, 3, padding=2**i, dilation=2**i, groups=hidden),
                nn.PReLU(), nn.BatchNorm1d(hidden),
                nn.Conv1d(hidden, width, 1),
            )
            for i in range(4)
        )  # fmt: skip
        self.masks = nn.Conv1d(width, width * sources, 1)
        self.decoder = nn.ConvTranspose1d(width, 1, 16, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mixture = F.relu(self.encoder(x))
        y = mixture
        for block in self.blocks:
            y = y + block(y)
        batch, width, length = mixture.shape
        masks = torch.sigmoid(self.masks(y)).view(batch, self.sources, width, length)
        separated = (masks * mixture.unsqueeze(1)).view(batch * self.sources, width, length)
        return self.decoder(separated).view(batch, self.sources, -1)  # type: ignore[no-any-return]


class GatedResidual(nn.Module):
    """WaveNet: causal dilated convolutions, tanh times sigmoid of two halves, residual and skip."""

    def __init__(self, width: int = 24, skip: int = 48, layers: int = 5) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, width, 1)
        self.gates = nn.ModuleList(nn.Conv1d(width, 2 * width, 2, dilation=2**i) for i in range(layers))
        self.residuals = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(layers))
        self.skips = nn.ModuleList(nn.Conv1d(width, skip, 1) for _ in range(layers))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv1d(skip, skip, 1), nn.ReLU(), nn.Conv1d(skip, 16, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        total: Tensor | float = 0.0
        for i, (gate, residual, skip) in enumerate(zip(self.gates, self.residuals, self.skips, strict=True)):
            a, b = gate(F.pad(x, (2**i, 0))).chunk(2, 1)
            y = torch.tanh(a) * torch.sigmoid(b)
            total = total + skip(y)
            x = x + residual(y)
        return self.head(total)  # type: ignore[no-any-return]


def _conv(width_in: int, width_out: int, activation: type[nn.Module] = nn.ReLU) -> list[nn.Module]:
    """Convolution, BatchNorm, activation."""
    return [nn.Conv2d(width_in, width_out, 3, padding=1, bias=False), nn.BatchNorm2d(width_out), activation()]
