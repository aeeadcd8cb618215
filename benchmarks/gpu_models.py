"""Networks to measure, with random weights: ResNet-50, MobileNet-V2, and the convolutions that they are made of."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET, IR = 17, 9
DEPTHS = (3, 4, 6, 3)
MOBILE = (  # expansion, channels, blocks, stride of the first
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


@dataclass(slots=True)
class Builder:
    """Appends layers to a graph; every tensor is called after the layer that makes it."""

    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def conv(
        self, x: str, name: str, size: tuple[int, int, int], stride: int = 1, *, relu: bool = True, group: int = 1
    ) -> str:
        """A convolution with (in, out, kernel) `size`, He-initialised, with bias and perhaps a ReLU."""
        width_in, width_out, kernel = size
        scale = np.sqrt(2.0 / (width_in // group * kernel * kernel))
        weight = (self.rng.standard_normal((width_out, width_in // group, kernel, kernel)) * scale).astype(np.float32)
        self.weights.append(numpy_helper.from_array(weight, f"{name}.weight"))
        self.weights.append(numpy_helper.from_array(np.zeros(width_out, np.float32), f"{name}.bias"))
        inputs, pad = [x, f"{name}.weight", f"{name}.bias"], kernel // 2
        attributes = {"pads": [pad] * 4, "strides": [stride] * 2, "kernel_shape": [kernel] * 2}
        attributes |= {"group": group} if group > 1 else {}
        self.nodes.append(helper.make_node("Conv", inputs, [name], name, **attributes))
        return self.add("Relu", [name], f"{name}.relu") if relu else name

    def add(self, op: str, inputs: list[str], name: str, **attributes: object) -> str:
        """Any other node with one output."""
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def model(self, name: str, shape: tuple[int, ...], output: str, out_shape: tuple[int, ...]) -> onnx.ModelProto:
        """The finished model, checked."""
        tensor = onnx.TensorProto.FLOAT
        inputs = [helper.make_tensor_value_info("x", tensor, shape)]
        outputs = [helper.make_tensor_value_info(output, tensor, out_shape)]
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        onnx.checker.check_model(model, full_check=True)
        return model


def resnet50(batch: int, *, side: int = 224, width: int = 64, classes: int = 1000) -> onnx.ModelProto:
    """ResNet-50 (v1.5), BatchNorm folded, random weights; `width` 64 is the real one.

    Source: arXiv 1512.03385.
    """
    b = Builder()
    x = b.conv("x", "stem", (3, width, 7), 2)
    x = b.add("MaxPool", [x], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = width
    for stage, depth in enumerate(DEPTHS):
        inner, outer = width << stage, width << (stage + 2)
        for block in range(depth):
            name, stride = f"layer{stage + 1}.{block}", 2 if block == 0 and stage else 1
            y = b.conv(x, f"{name}.conv1", (channels, inner, 1))
            y = b.conv(y, f"{name}.conv2", (inner, inner, 3), stride)
            y = b.conv(y, f"{name}.conv3", (inner, outer, 1), relu=False)
            _damp(b)
            shortcut = x if block else b.conv(x, f"{name}.down", (channels, outer, 1), stride, relu=False)
            x = b.add("Relu", [b.add("Add", [y, shortcut], f"{name}.add")], f"{name}.relu")
            channels = outer
    _classifier(b, x, channels, classes)
    return b.model("resnet50", (batch, 3, side, side), "logits", (batch, classes))


def mobilenetv2(batch: int, *, side: int = 224, classes: int = 1000) -> onnx.ModelProto:
    """MobileNet-V2, BatchNorm folded, ReLU in the place of ReLU6, random weights.

    Source: arXiv 1801.04381, table 2.
    """
    b = Builder()
    x, channels = b.conv("x", "stem", (3, 32, 3), 2), 32
    for stage, (expand, width, depth, first) in enumerate(MOBILE):
        for block in range(depth):
            name, stride, inner = f"stage{stage}.{block}", first if block == 0 else 1, channels * expand
            y = b.conv(x, f"{name}.expand", (channels, inner, 1)) if expand > 1 else x
            y = b.conv(y, f"{name}.depthwise", (inner, inner, 3), stride, group=inner)
            y = b.conv(y, f"{name}.project", (inner, width, 1), relu=False)
            x = b.add("Add", [x, y], f"{name}.add") if stride == 1 and channels == width else y
            channels = width
    x = b.conv(x, "last", (channels, 1280, 1))
    _classifier(b, x, 1280, classes)
    return b.model("mobilenetv2", (batch, 3, side, side), "logits", (batch, classes))


def _classifier(b: Builder, x: str, channels: int, classes: int) -> None:
    """Mean over pixels and a linear layer, `logits`."""
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x], "mean")], "flat")
    weight = b.rng.standard_normal((classes, channels)).astype(np.float32) / np.float32(np.sqrt(channels))
    b.weights.append(numpy_helper.from_array(weight, "fc.weight"))
    b.weights.append(numpy_helper.from_array(np.zeros(classes, np.float32), "fc.bias"))
    b.add("Gemm", [x, "fc.weight", "fc.bias"], "logits", transB=1)


def _damp(b: Builder) -> None:
    """Scales a branch's last convolution down, so that activations stay within fp16 through 16 blocks."""
    weight = b.weights[-2]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(0.2), weight.name))


def convolution(batch: int, size: tuple[int, int, int], side: int) -> onnx.ModelProto:
    """One convolution with ReLU, (in, out, kernel) `size`, on `side` × `side` pixels."""
    b = Builder()
    y = b.conv("x", "conv", size)
    return b.model("convolution", (batch, size[0], side, side), y, (batch, size[1], side, side))
