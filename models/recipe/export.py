"""Checkpoint to ONNX: dynamic batch, opset 17, module paths in node names (`/layer1/layer1.0/conv1/Conv`).

Input `input`: uint8[batch, 1, 32, 32]. Output `logits`: float[batch, 62].
"""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from .importance import load

OPSET = 17
FILES = {  # file: network, whether BatchNorm is folded into the convolutions
    "resnet18.onnx": ("resnet18", True),
    "resnet18-bn.onnx": ("resnet18", False),
    "mobilenetv2.onnx": ("mobilenetv2", True),
    "resnet56.onnx": ("resnet56", True),
}


def export(network: nn.Module, path: Path, *, folded: bool) -> None:
    """Writes the network in evaluation mode; unfolded, BatchNormalization nodes stay in inference form."""
    mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that keeps module paths is deprecated
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, 1, 32, 32, dtype=torch.uint8),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            training=mode,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
        )
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    norms = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    if folded == bool(norms):
        raise RuntimeError(f"{path}: {norms} BatchNormalization nodes")


def export_all(checkpoints: Path, out: Path) -> None:
    """Writes every file of FILES."""
    for file, (name, folded) in FILES.items():
        export(load(name, checkpoints), out / file, folded=folded)
