"""A float ONNX graph as a torch module, so that whatever pruned it, it can be trained by one recipe and written back.

Trainable are the weights and biases of layers (Conv, Gemm, MatMul, scale and bias of a BatchNormalization, whose
statistics stay as they are); other constants are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from halpc.errors import ModelError

Attributes: TypeAlias = dict[str, Any]
Tap: TypeAlias = Callable[[str, Tensor], Tensor]

TRAINED = {"Conv": (1, 2), "Gemm": (1, 2), "MatMul": (0, 1), "BatchNormalization": (1, 2)}
DTYPES = {onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.UINT8: torch.uint8}


class TorchGraph(nn.Module):
    """Runs the nodes of `model` in their order, which ONNX demands to be topological."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Reads weights.

        Raises:
            ModelError: an operator, or a setting of one, that this does not know.
        """
        super().__init__()
        self.model = model
        graph = model.graph
        for node in graph.node:
            if node.op_type != "Constant" and node.op_type not in OPERATORS:
                known = ", ".join(sorted(OPERATORS))
                raise ModelError(
                    f"node {node.name!r}: operator {node.op_type} cannot be run in torch here, only {known}"
                )
        trained = {n.input[i] for n in graph.node for i in TRAINED.get(n.op_type, ()) if i < len(n.input)}
        self.keys: dict[str, str] = {}
        self.weights = nn.ParameterDict()
        self.constants: dict[str, Tensor] = {}
        for name, array in _arrays(graph):
            tensor = torch.from_numpy(array.copy())
            if name in trained and tensor.is_floating_point():
                self.keys[name] = f"w{len(self.keys)}"
                self.weights[self.keys[name]] = nn.Parameter(tensor)
            else:
                self.constants[name] = tensor
        self.nodes = [(n, {a.name: helper.get_attribute_value(a) for a in n.attribute}) for n in graph.node]
        self.input = next(i.name for i in graph.input if i.name not in self.constants and i.name not in self.keys)
        self.output = graph.output[0].name

    def forward(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """The graph's first output; `tap` may replace the output of every Conv, whose name it is given."""
        values: dict[str, Tensor] = {self.input: x, **self.constants}
        values.update({name: self.weights[key] for name, key in self.keys.items()})
        for node, attributes in self.nodes:
            if node.op_type == "Constant":
                continue
            operands = [values[name] if name else None for name in node.input]
            result = OPERATORS[node.op_type](attributes, *operands)
            if tap is not None and node.op_type == "Conv":
                result = tap(node.output[0], result)
            values[node.output[0]] = result
        return values[self.output]

    def export(self) -> onnx.ModelProto:
        """The model with the weights as they are now."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for tensor in model.graph.initializer:
            if tensor.name in self.keys:
                array = self.weights[self.keys[tensor.name]].detach().cpu().contiguous().numpy()
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        return model


def _arrays(graph: onnx.GraphProto) -> Iterable[tuple[str, np.ndarray]]:
    """Initializers, and constants that are nodes."""
    for tensor in graph.initializer:
        yield tensor.name, numpy_helper.to_array(tensor)
    for node in graph.node:
        if node.op_type == "Constant":
            attribute = node.attribute[0]
            if attribute.name != "value":
                raise ModelError(f"node {node.name!r}: a Constant of {attribute.name} cannot be run in torch here")
            yield node.output[0], numpy_helper.to_array(attribute.t)


def _demand(op: str, a: Attributes, **wanted: Any) -> None:
    for name, value in wanted.items():
        if a.get(name, value) != value:
            raise ModelError(f"{op} with {name} = {a[name]} cannot be run in torch here, only {name} = {value}")


def _padded(op: str, a: Attributes, x: Tensor, value: float = 0.0) -> Tensor:
    _demand(op, a, auto_pad=b"NOTSET", ceil_mode=0, storage_order=0)
    pads = a.get("pads", [0, 0, 0, 0])
    return F.pad(x, [pads[1], pads[3], pads[0], pads[2]], value=value) if any(pads) else x


def _conv(a: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    pads = a.get("pads", [0, 0, 0, 0])
    padding = (pads[0], pads[1])
    if pads[:2] != pads[2:] or "auto_pad" in a:
        x, padding = _padded("Conv", a, x), (0, 0)
    return F.conv2d(
        x, w, b, a.get("strides", [1, 1]), padding, a.get("dilations", [1, 1]), int(a.get("group", 1))
    )  # fmt: skip


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    padded = _padded("MaxPool", a, x, -torch.inf)
    return F.max_pool2d(padded, a["kernel_shape"], a.get("strides", [1, 1]), 0, a.get("dilations", [1, 1]))


def _batch_norm(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    _demand("BatchNormalization", a, training_mode=0)
    return F.batch_norm(x, mean, var, scale, bias, training=False, eps=a.get("epsilon", 1e-5))


def _gemm(a: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    product = (x.T if a.get("transA") else x) @ (w.T if a.get("transB") else w) * a.get("alpha", 1.0)
    return product if b is None else product + a.get("beta", 1.0) * b


def _clip(a: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if low is not None and high is not None:
        return F.hardtanh(x, low.item(), high.item())  # as torch.clamp, several times faster backward
    return torch.clamp(x, None if low is None else low.item(), None if high is None else high.item())


def _mean(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    chosen = a.get("axes", range(x.ndim) if axes is None else axes.tolist())
    return x.mean(dim=list(chosen), keepdim=bool(a.get("keepdims", 1)))


def _reshape(a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    _demand("Reshape", a, allowzero=0)
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape.tolist())])


def _cast(a: Attributes, x: Tensor) -> Tensor:
    if a["to"] not in DTYPES:
        raise ModelError(f"Cast to {helper.tensor_dtype_to_string(a['to'])} cannot be run in torch here")
    return x.to(DTYPES[a["to"]])


OPERATORS: dict[str, Callable[..., Tensor]] = {
    "Conv": _conv,
    "Relu": lambda a, x: torch.relu(x),
    "Clip": _clip,
    "Add": lambda a, x, y: x + y,
    "Sub": lambda a, x, y: x - y,
    "Mul": lambda a, x, y: x * y,
    "Div": lambda a, x, y: x / y,
    "Cast": _cast,
    "Identity": lambda a, x: x,
    "GlobalAveragePool": lambda a, x: x.mean(dim=tuple(range(2, x.ndim)), keepdim=True),
    "ReduceMean": _mean,
    "Flatten": lambda a, x: x.flatten(0, a.get("axis", 1) - 1).flatten(1) if a.get("axis", 1) > 1 else x.flatten(1),
    "Reshape": _reshape,
    "Gemm": _gemm,
    "MatMul": lambda a, x, y: x @ y,
    "MaxPool": _max_pool,
    "BatchNormalization": _batch_norm,
}
