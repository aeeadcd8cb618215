"""Weights such that a wrong channel shows: nothing that a layer multiplies or adds is constant.

Fresh networks have unit gammas, zero biases, zero means, and layer scales near zero: a compiler that
drops or shifts one of those would still look right. Here each is drawn at random, and BatchNorm
statistics are those of the activations (times noise), so that deep networks neither explode nor die.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tests.corpus.row import Input, Row


def seed(row: Row) -> None:
    """Make everything that follows repeatable for this row."""
    torch.manual_seed(zlib.crc32(f"{row.library}-{row.name}".encode()))


def example(inputs: tuple[Input, ...], batch: int = 1) -> tuple[Tensor, ...]:
    """Random values of the inputs' shapes, batch axis set to `batch` times what the row says."""
    return tuple(_value(each, batch) for each in inputs)


def _value(each: Input, batch: int) -> Tensor:
    shape = tuple(
        size * batch if axis == "N" and axis not in each.fixed else size
        for size, axis in zip(each.shape, each.axes, strict=True)
    )
    return torch.randint(each.least, each.below, shape) if each.below else torch.randn(shape)


@torch.no_grad()
def randomise(model: nn.Module, inputs: tuple[Input, ...]) -> None:
    """Draw every constant parameter at random, then settle the BatchNorms. Leaves `model` in eval mode."""
    model.eval()
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.numel() and bool((parameter == parameter.flatten()[0]).all()):
            parameter.copy_(_spread(parameter))
    with _settling(model):
        model(*example(inputs, batch=4))


def _spread(constant: Tensor) -> Tensor:
    """Random values in place of one constant: around it, or of a useful size where it is near zero."""
    value = float(constant.flatten()[0])
    if abs(value) >= 0.05:  # a gamma of one, a slope of a quarter
        return value * torch.empty_like(constant).uniform_(0.6, 1.4)
    if constant.numel() == 1 or value != 0:  # a skip gain of zero, a layer scale of 1e-6
        return torch.empty_like(constant).uniform_(0.2, 0.6)
    if constant.numel() == max(constant.shape):  # a bias
        return torch.empty_like(constant).normal_(0, 0.1)
    return torch.empty_like(constant).normal_(0, constant[0].numel() ** -0.5)


@contextmanager
def _settling(model: nn.Module) -> Iterator[None]:
    """While active, each BatchNorm takes its statistics from what passes through, times noise."""
    hooks = [
        module.register_forward_pre_hook(_settle)
        for module in model.modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _settle(module: nn.Module, arguments: tuple[Any, ...]) -> None:
    x: Tensor = arguments[0]
    axes = [axis for axis in range(x.ndim) if axis != 1]
    mean, variance = x.mean(axes), x.var(axes, correction=0)
    running_mean, running_var = module.running_mean, module.running_var
    assert isinstance(running_mean, Tensor)
    assert isinstance(running_var, Tensor)
    # Few samples underestimate a channel's variance at random: lean on the layer's.
    deviation = ((variance + variance.mean()) / 2).clamp(min=1e-3).sqrt()
    running_mean.copy_(mean + 0.3 * deviation * torch.randn_like(mean))
    running_var.copy_(deviation.square() * torch.empty_like(mean).uniform_(0.6, 1.6))
