"""Small graphs as ONNX text with random weights, taken through load, couple, slim and verify."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper

from halpc.ir.dims import spell
from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from passes.couple import couple
from passes.load import load
from passes.slim import plan_for, slim
from passes.verify import Verification, verify

OPSET = 17


def model_of(
    text: str, weights: dict[str, tuple[int, ...]], *, opset: int = OPSET, as_inputs: bool = False
) -> onnx.ModelProto:
    """`name (inputs) => (outputs) { nodes }` with random weights of the given shapes."""
    rng = np.random.default_rng(0)
    graph = onnx.parser.parse_graph(text)
    for name, shape in weights.items():
        values = rng.standard_normal(shape).astype(np.float32) / np.sqrt(max(np.prod(shape[1:]), 1))
        graph.initializer.append(numpy_helper.from_array((values + 0.1).astype(np.float32), name))
        if as_inputs:
            graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3 if as_inputs else 8)


@dataclass(frozen=True)
class Solved:
    """A loaded model with its coupling."""

    model: Model
    coupling: Coupling

    def axis(self, tensor: str, axis: int) -> str:
        """What an axis is made of, by the leaves' sizes: `8` `4+4` `3·4`, with `!` for what is pinned."""
        dim = self.coupling.axes[tensor, axis]
        named = {group.name: f"{group.size}{'!' if group.pin else ''}" for group in self.coupling.groups.values()}
        words = spell(dim)
        for name in sorted(named, key=len, reverse=True):
            words = words.replace(f"{name}[{self.coupling.groups[name].size}]", named[name])
        return words

    def tied(self, *axes: tuple[str, int]) -> bool:
        """Whether all these axes are the same dim."""
        return len({self.coupling.axes[key] for key in axes}) == 1

    def pin(self, tensor: str, axis: int) -> str:
        """The pin reasons of an axis, joined."""
        from halpc.ir.dims import leaves

        pins = [self.coupling.groups[leaf.name].pin for leaf in leaves(self.coupling.axes[tensor, axis])]
        return "; ".join(pin for pin in pins if pin)

    def prune(
        self, *, seed: int = 0, sizes: dict[str, tuple[int, ...]] | None = None
    ) -> tuple[onnx.ModelProto, Verification]:
        """Keep about half of every free group; verified at the analysed shapes and at `sizes`."""
        rng = np.random.default_rng(seed)
        masks = {}
        for name, group in self.coupling.free().items():
            masks[name] = rng.random(group.size) < 0.5
            masks[name][rng.integers(group.size)] = True
        plan = plan_for(self.model, self.coupling, masks)
        pruned = gs.export_onnx(slim(self.model, self.coupling, plan), do_type_check=False)
        result = verify(self.model, self.coupling, plan, pruned)
        if sizes is not None:
            result = verify(replace(self.model, shapes=sizes), self.coupling, plan, pruned)
        return pruned, result


def solve(
    folder: Path, text: str, weights: dict[str, tuple[int, ...]], *, opset: int = OPSET, as_inputs: bool = False
) -> Solved:
    """Load and couple a small graph."""
    path = folder / "pattern.onnx"
    onnx.save(model_of(text, weights, opset=opset, as_inputs=as_inputs), path)
    model = load(path)
    return Solved(model, couple(model.twin))
