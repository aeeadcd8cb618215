"""Writes one network through one of PyTorch's two exporters."""

from __future__ import annotations

import contextlib
import inspect
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.corpus.randomise import example
from tests.corpus.row import Input, Variant

SIZES = "HWDLT"


def write(model: nn.Module, inputs: tuple[Input, ...], variant: Variant, path: Path) -> None:
    """Export `model` to `path` as `variant` says."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        if variant.exporter == "torchscript":
            _torchscript(model, inputs, variant, path)
        else:
            _dynamo(model, inputs, variant, path)


def dynamic_axes(each: Input, variant: Variant) -> dict[int, str]:
    """Axis number to name, for the axes that `variant` leaves open."""
    letters = {"": "", "batch": "N", "size": "N" + SIZES}[variant.dynamic]
    return {
        axis: "batch" if letter == "N" else f"{each.name}_{letter}"
        for axis, letter in enumerate(each.axes)
        if letter in letters and letter not in each.fixed
    }


def _torchscript(model: nn.Module, inputs: tuple[Input, ...], variant: Variant, path: Path) -> None:
    """BatchNorms and shape arithmetic stay in the graph where the variant is not folded."""
    mode = torch.onnx.TrainingMode
    torch.onnx.export(
        model,
        example(inputs),
        str(path),
        dynamo=False,
        opset_version=variant.opset,
        input_names=[each.name for each in inputs],
        dynamic_axes={each.name: dynamic_axes(each, variant) for each in inputs} if variant.dynamic else None,
        training=mode.EVAL if variant.folded else mode.PRESERVE,
        do_constant_folding=variant.folded,
    )


def _dynamo(model: nn.Module, inputs: tuple[Input, ...], variant: Variant, path: Path) -> None:
    """A dynamic batch is traced with two samples: torch.export takes a size of one for a constant."""
    torch.compiler.reset()
    torch.onnx.export(
        model,
        example(inputs, batch=2 if variant.dynamic else 1),
        str(path),
        dynamo=True,
        opset_version=variant.opset,
        input_names=[each.name for each in inputs],
        dynamic_shapes=_dynamic_shapes(model, inputs, variant) if variant.dynamic else None,
        optimize=variant.folded,
        external_data=False,
    )


def _dynamic_shapes(model: nn.Module, inputs: tuple[Input, ...], variant: Variant) -> tuple[Any, ...]:
    """One entry per argument; what a `*values` takes together is one argument."""
    each = tuple(dict.fromkeys(dynamic_axes(one, variant), torch.export.Dim.DYNAMIC) for one in inputs)
    kinds = [parameter.kind for parameter in inspect.signature(model.forward).parameters.values()]
    return (each,) if kinds == [inspect.Parameter.VAR_POSITIONAL] else each


def flat(output: Any) -> list[Tensor]:
    """The tensors in whatever a model returned, in the exporters' order."""
    leaves = torch.utils._pytree.tree_leaves(output)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]
