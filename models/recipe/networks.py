"""The three networks: from uint8[batch, 1, 32, 32] as it lies in the npz files to logits float[batch, 62].

Modules are named as torchvision names them, so that `layer1.0.conv1.weight` means here what it means there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CLASSES = 62


class Pixels(nn.Module):
    """Brings grey values 0..255 to about zero mean and unit spread, inside the network."""

    def forward(self, input: Tensor) -> Tensor:
        """(input - 128) / 64 as float32."""
        return (input.to(torch.float32) - 128.0) * 0.015625


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, torchvision's names."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != width:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Residual sum, then ReLU."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet(nn.Module):
    """A residual network for 32x32 images: 3x3 stem, no pooling; stages after the first halve the side."""

    def __init__(self, widths: tuple[int, ...], depth: int) -> None:
        super().__init__()
        self.pixels = Pixels()
        self.conv1 = nn.Conv2d(1, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.stages = [f"layer{index + 1}" for index in range(len(widths))]
        inputs = widths[0]
        for index, (name, width) in enumerate(zip(self.stages, widths, strict=True)):
            first = BasicBlock(inputs, width, 1 if index == 0 else 2)
            self.add_module(name, nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(depth - 1))))
            inputs = width
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, CLASSES)
        _initialise(self)

    def forward(self, input: Tensor) -> Tensor:
        """Logits of uint8 images."""
        x = self.relu(self.bn1(self.conv1(self.pixels(input))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


class ConvNormActivation(nn.Sequential):
    """Convolution, BatchNorm, ReLU6 as members 0, 1, 2."""

    def __init__(self, inputs: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        conv = nn.Conv2d(inputs, width, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(width), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expand, depthwise 3x3, project; a shortcut where shapes allow one."""

    def __init__(self, inputs: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.use_shortcut = stride == 1 and inputs == width
        expand = [] if expansion == 1 else [ConvNormActivation(inputs, hidden, 1)]
        self.conv = nn.Sequential(
            *expand,
            ConvNormActivation(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, added to its input where it has a shortcut."""
        return x + self.conv(x) if self.use_shortcut else self.conv(x)


# expansion, width, blocks, stride of the first block: torchvision's table with the first two strides at 1
MOBILE_STAGES = [
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


class MobileNetV2(nn.Module):
    """MobileNet-V2 whose side goes 32, 16, 8, 4 instead of 112 … 7."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = Pixels()
        layers: list[nn.Module] = [ConvNormActivation(1, 32, 3)]
        inputs = 32
        for expansion, width, blocks, stride in MOBILE_STAGES:
            for index in range(blocks):
                layers.append(InvertedResidual(inputs, width, stride if index == 0 else 1, expansion))
                inputs = width
        layers.append(ConvNormActivation(inputs, 1280, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.1), nn.Linear(1280, CLASSES))
        _initialise(self)

    def forward(self, input: Tensor) -> Tensor:
        """Logits of uint8 images."""
        x = self.features(self.pixels(input))
        return self.classifier(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


def _initialise(network: nn.Module) -> None:
    """He initialisation of convolutions, small normal weights in the classifier."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: ResNet((32, 64, 128, 256), depth=2),
    "mobilenetv2": MobileNetV2,
    "resnet56": lambda: ResNet((16, 32, 64), depth=9),
}


def batchnorm_pairs(network: nn.Module) -> list[tuple[str, nn.BatchNorm2d]]:
    """Every BatchNorm with the name of the weight of the convolution that stands before it."""
    pairs, conv = [], ""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            conv = f"{name}.weight"
        elif isinstance(module, nn.BatchNorm2d):
            pairs.append((conv, module))
    return pairs
