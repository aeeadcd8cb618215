"""Other tools, each with its documented defaults, and their one knob turned until the measured latency fits.

onnxsim prunes the ONNX file itself. Torch-Pruning prunes a PyTorch module: the shipped network is built again
from `models/recipe/networks.py`, gets the ONNX file's weights (BatchNorm folded, as they were shipped), is pruned and
exported again. Neither refits anything.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.frontier.own import GRID, Pruned
from halpc.errors import BackendError
from passes.calibration import Calibration

SAMPLES, BATCH = 256, 64  # calibration inputs that onnxsim is given


def version(package: str) -> str:
    """Of an installed distribution.

    Raises:
        BackendError: it is not installed.
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise BackendError(f"{package} is not installed: pip install {package}") from None


def onnxsim_wanda(model: onnx.ModelProto, calibration: Calibration) -> Callable[[float], Pruned | None]:
    """`apply_structured_wanda_pruning`, whose `sparsity` is the strength."""
    version("onnxsim")
    from onnxsim import apply_structured_wanda_pruning

    batches = list(calibration.take(slice(0, SAMPLES)).batches(BATCH))

    def make(strength: float) -> Pruned | None:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return Pruned(apply_structured_wanda_pruning(copy, calibration_data=batches, sparsity=min(strength, 0.97)))

    return make


def torch_pruning(name: str, model: onnx.ModelProto) -> Callable[[float], Pruned | None]:
    """Torch-Pruning's group magnitude importance (L2), `pruning_ratio` the strength, widths multiples of the grid."""
    version("torch-pruning")
    import torch
    import torch_pruning as tp

    from models.recipe.export import export

    def make(strength: float) -> Pruned | None:
        network = rebuilt(name, model)
        last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
        pruner = tp.pruner.BasePruner(
            network,
            torch.zeros(1, 1, 32, 32, dtype=torch.uint8),
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=min(strength, 0.97),
            ignored_layers=last,
            round_to=GRID,
        )
        pruner.step()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pruned.onnx"
            export(network, path, folded=True)
            return Pruned(onnx.load(path))

    return make


def rebuilt(name: str, model: onnx.ModelProto) -> Any:
    """The recipe's torch network with the ONNX file's folded weights in it.

    Raises:
        BackendError: a node has no module of its name, or of its shape.
    """
    import torch

    from models.recipe.networks import NETWORKS

    network = NETWORKS[name]().eval()
    for path, module in list(network.named_modules()):
        if isinstance(module, torch.nn.BatchNorm2d):
            parent, _, child = path.rpartition(".")
            setattr(network.get_submodule(parent), child, torch.nn.Identity())
    arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            module = network.get_submodule(module_path(node.name))
            weight, bias = (torch.from_numpy(arrays[key].copy()) for key in node.input[1:3])
            if module.weight.shape != weight.shape:
                raise BackendError(f"{node.name}: {tuple(weight.shape)} is not {tuple(module.weight.shape)} as rebuilt")
            module.weight, module.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
    return network


def module_path(node: str) -> str:
    """`/layer1/layer1.0/conv1/Conv` → `layer1.0.conv1`."""
    parts: list[str] = []
    for part in node.strip("/").split("/")[:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return ".".join(parts)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the rebuilt network is from the file."""

    largest: float


def agreement(name: str, model: onnx.ModelProto, calibration: Calibration) -> Agreement:
    """Largest difference of logits on eight inputs."""
    import torch

    from passes.recovery.segments import open_session, run_session

    feeds = next(calibration.batches(8))
    theirs = next(iter(run_session(open_session(model), feeds).values()))
    with torch.no_grad():
        ours = rebuilt(name, model)(torch.from_numpy(np.array(next(iter(feeds.values()))))).numpy()
    return Agreement(float(np.abs(ours - theirs).max()))
