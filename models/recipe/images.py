"""Turns glyph masks into 32x32 grey images, whole batches at a time, on any torch device.

An image is ink over a textured background: a glyph, warped and thickened at random, beside fragments of two
neighbours, then blurred, noised and brought to uint8. Everything is drawn from one `torch.Generator`, so a
seed gives the same images again on the same device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .glyphs import GLYPHS

SIDE = 32
HARDNESS = 0.35  # scales warps, textures and noise of every set; the value of the shipped networks


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Glyph masks uint8[face, 62, 48, 48] of the faces of one split, on one device."""

    masks: Tensor
    families: int

    @classmethod
    def load(cls, *, test: bool, device: torch.device | str = "cpu", path: Path = GLYPHS) -> Glyphs:
        """Reads the faces of the training families or of the test families."""
        with np.load(path) as file:
            rows = file["is_test"] == test
            families = len(set(file["family"][rows].tolist()))
            return cls(torch.from_numpy(file["masks"][rows]).to(device), families)


class Painter:
    """Makes batches of labelled images from glyphs, deterministically from a seed."""

    def __init__(self, glyphs: Glyphs, seed: int, hardness: float = HARDNESS) -> None:
        self.masks = glyphs.masks
        self.device = glyphs.masks.device
        self.hardness = hardness
        self.random = torch.Generator(device=self.device).manual_seed(seed)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Images uint8[size, 1, 32, 32] and labels int64[size]; faces and classes are drawn evenly."""
        labels = self._integers(self.masks.shape[1], size)
        faces = self._integers(self.masks.shape[0], size)
        ink = self._ink(faces, labels)
        contrast = self._uniform(size, 0.25, 0.85)
        paper, pigment = self._tones(contrast)
        image = self._blur(paper + (pigment - paper) * ink)
        noise = 0.02 + 0.28 * self.hardness * contrast * self._uniform(size, 0.0, 1.0) ** 2
        image = image + noise * self._normal(size, SIDE)
        # 64 grey levels: noise in the last two bits would only make the files larger
        return ((image.clamp(0, 1) * 63).round() * 4).to(torch.uint8), labels

    def stream(self, size: int, ahead: int = 8) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches without end, painted several at a time to keep a GPU busy."""
        while True:
            images, labels = self.batch(size * ahead)
            yield from zip(images.split(size), labels.split(size), strict=True)

    def _ink(self, faces: Tensor, labels: Tensor) -> Tensor:
        """Coverage float[size, 1, 32, 32] of warped glyphs and what shows of their neighbours."""
        size = len(labels)
        strips = [self.masks[faces, labels]]
        for _ in range(2):
            strips.append(self.masks[faces, self._integers(self.masks.shape[1], size)])
        left, right = (self._crowd(strip, strips[0], sign) for strip, sign in ((strips[1], -1), (strips[2], 1)))
        mask = torch.maximum(strips[0].float(), torch.maximum(left, right)).unsqueeze(1) / 255
        ink = F.grid_sample(mask, self._warp(size), mode="bilinear", align_corners=False)
        return self._weight(ink)

    def _crowd(self, neighbour: Tensor, glyph: Tensor, sign: int) -> Tensor:
        """A neighbour shifted sideways until it stands clear of the glyph; half of the images have none.

        Shapes: uint8[size, 48, 48] to float[size, 48, 48].
        """
        size, _, width = glyph.shape
        gap = self._uniform(size, 1.0, 6.0).view(size)
        extent = (_ink_width(glyph) + _ink_width(neighbour)) / 2 + gap
        columns = torch.arange(width, device=self.device) - sign * extent.round().long().unsqueeze(1)
        inside = (columns >= 0) & (columns < width)
        index = columns.clamp(0, width - 1).unsqueeze(1).expand(-1, width, -1)
        shown = (self._uniform(size, 0, 1).view(size, 1) < 0.5) & inside
        return neighbour.float().gather(2, index) * shown.unsqueeze(1)

    def _warp(self, size: int) -> Tensor:
        """Sampling grid float[size, 32, 32, 2]: rotation, shear, scale, shift and a smooth bend."""
        angle, shear, zoom, aspect = (
            self.hardness * self._uniform(size, -reach, reach).view(size) for reach in (0.25, 0.25, 0.15, 0.2)
        )
        zoom, aspect = torch.exp(zoom), torch.exp(aspect)
        cos, sin = torch.cos(angle), torch.sin(angle)
        rows = [
            zoom * aspect * cos,
            zoom * (shear * cos - sin),
            zoom * aspect * sin,
            zoom * (shear * sin + cos),
        ]
        matrix = torch.stack(rows, dim=1).view(size, 2, 2)
        shift = self.hardness * self._uniform(size, -0.1, 0.1, 2).view(size, 2, 1)
        grid = F.affine_grid(torch.cat([matrix, shift], dim=2), [size, 1, SIDE, SIDE], align_corners=False)
        bend = F.interpolate(self._normal(size, 4, channels=2), SIDE, mode="bicubic", align_corners=False)
        return grid + self.hardness * self._uniform(size, 0.0, 0.07) * bend.permute(0, 2, 3, 1)

    def _weight(self, ink: Tensor) -> Tensor:
        """Thickens or thins strokes, and lets some ink fade in patches."""
        size = len(ink)
        weight = self._uniform(size, -0.5, 0.8)
        fat, thin = F.max_pool2d(ink, 3, 1, 1), -F.max_pool2d(-ink, 3, 1, 1)
        ink = ink + weight.clamp(min=0) * (fat - ink) + (-weight).clamp(min=0) * (thin - ink)
        fade = F.interpolate(self._normal(size, 5), SIDE, mode="bilinear", align_corners=False)
        return ink * (1 - self._uniform(size, 0.0, 0.45) * fade.abs().clamp(max=1.4))

    def _tones(self, contrast: Tensor) -> tuple[Tensor, Tensor]:
        """Grey of paper and of ink, float[size, 1, 32, 32] each: dark on light or light on dark, textured."""
        size = len(contrast)
        dark = self._uniform(size, 0.0, 1.0) * (1 - contrast)
        inverted = self._uniform(size, 0.0, 1.0) < 0.5
        light = dark + contrast
        paper, pigment = torch.where(inverted, dark, light), torch.where(inverted, light, dark)
        strength = 0.42 * self.hardness * contrast * self._uniform(size, 0.0, 1.0)
        return paper + strength * self._texture(size), pigment + 0.3 * strength * self._texture(size)

    def _texture(self, size: int) -> Tensor:
        """Clouds at three scales, a slope and a stripe pattern in random proportions; about unit spread."""
        parts = [
            F.interpolate(self._normal(size, cells), SIDE, mode="bilinear", align_corners=False) for cells in (3, 7, 16)
        ]
        axis = torch.linspace(-1, 1, SIDE, device=self.device)
        angle = self._uniform(size, 0.0, 2 * math.pi)
        along = torch.cos(angle) * axis.view(1, 1, 1, SIDE) + torch.sin(angle) * axis.view(1, 1, SIDE, 1)
        pitch, phase = self._uniform(size, 4.0, 24.0), self._uniform(size, 0.0, 2 * math.pi)
        parts += [along, torch.sin(pitch * along + phase)]
        shares = self._uniform(size, 0.0, 1.0, len(parts)) ** 2
        shares = shares / shares.norm(dim=1, keepdim=True)
        return (torch.cat(parts, dim=1) * shares).sum(dim=1, keepdim=True)

    def _blur(self, image: Tensor) -> Tensor:
        """Between no blur and three binomial passes (standard deviation 1.2 pixels)."""
        levels = [image]
        for passes in (1, 2):
            image = levels[-1]
            for _ in range(passes):
                image = _binomial(image)
            levels.append(image)
        level = self._uniform(len(image), 0.0, len(levels) - 1.0)
        shares = [(1 - (level - index).abs()).clamp(min=0) for index in range(len(levels))]
        return sum((share * step for share, step in zip(shares, levels, strict=True)), torch.zeros_like(image))

    def _uniform(self, size: int, low: float, high: float, channels: int = 1) -> Tensor:
        draw = torch.rand(size, channels, 1, 1, generator=self.random, device=self.device)
        return low + (high - low) * draw

    def _normal(self, size: int, side: int, channels: int = 1) -> Tensor:
        return torch.randn(size, channels, side, side, generator=self.random, device=self.device)

    def _integers(self, high: int, size: int) -> Tensor:
        return torch.randint(high, (size,), generator=self.random, device=self.device)


def _binomial(image: Tensor) -> Tensor:
    """One pass of the kernel (1 2 1)/4 in both directions, edges repeated."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    rows = (padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]) / 4
    return (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4


def _ink_width(masks: Tensor) -> Tensor:
    """Width float[size] in pixels of centred glyphs uint8[size, 48, 48]."""
    return (masks.amax(dim=1) > 64).sum(dim=1).float()


def fixed_set(count: int, *, test: bool, seed: int, path: Path = GLYPHS) -> tuple[np.ndarray, np.ndarray]:
    """The same images uint8[count, 1, 32, 32] and labels int64[count] every time, made on the CPU."""
    painter = Painter(Glyphs.load(test=test, path=path), seed)
    images, labels = painter.batch(count)
    return images.numpy(), labels.numpy()
