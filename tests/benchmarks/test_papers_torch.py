"""Networks in torch compute what onnxruntime computes, before training and after BatchNorms were folded again."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

torch = pytest.importorskip("torch")

from benchmarks.papers.finetune import fine_tuned, same_as_onnxruntime  # noqa: E402
from benchmarks.papers.normalise import Normalised, moments_of  # noqa: E402
from benchmarks.papers.torch_graph import TorchGraph  # noqa: E402
from halpc.errors import ModelError  # noqa: E402

pytestmark = pytest.mark.torch

NETWORK = """
<ir_version: 9, opset_import: ["" : 17]>
net (uint8[N, 2, 9, 9] x) => (float[N, 5] y)
<float half = {0.5}, float low = {0.0}, float high = {6.0}, int64[2] flat = {0, -1}>
{
    f = Cast <to = 1> (x)
    s = Mul (f, half)
    a = Conv <kernel_shape = [3, 3], pads = [1, 1, 0, 0], strides = [2, 2]> (s, w0, b0)
    n = BatchNormalization (a, scale, shift, mean, variance)
    r = Clip (n, low, high)
    d = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 4> (r, w1, b1)
    p = MaxPool <kernel_shape = [2, 2], strides = [1, 1], pads = [0, 0, 1, 1]> (d)
    t = Add (p, r)
    g = ReduceMean <axes = [2, 3], keepdims = 1> (t)
    h = Reshape (g, flat)
    y = Gemm <transB = 1> (h, w2, b2)
}
"""
SHAPES = {"w0": (4, 2, 3, 3), "b0": (4,), "scale": (4,), "shift": (4,), "mean": (4,), "variance": (4,),
          "w1": (4, 1, 3, 3), "b1": (4,), "w2": (5, 4), "b2": (5,)}  # fmt: skip


def network(text=NETWORK):
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(text)
    for name, shape in SHAPES.items():
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(abs(array) if name == "variance" else array, name))
    return model


def images(count):
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (count, 2, 9, 9), dtype=np.uint8))


def test_torch_equals_onnxruntime():
    assert same_as_onnxruntime(TorchGraph(network()), images(16)) < 1e-5


def test_an_unknown_operator_is_named():
    with pytest.raises(ModelError, match="operator Softplus"):
        TorchGraph(network(NETWORK.replace("Clip (n, low, high)", "Softplus (n)")))


def test_normalising_and_folding_changes_nothing_by_itself():
    data = images(32)
    graph = TorchGraph(network())
    with torch.no_grad():
        before = graph(data)
    folded = Normalised(graph, moments_of(graph, data)).folded(data)
    with torch.no_grad():
        np.testing.assert_allclose(TorchGraph(folded)(data), before, rtol=0, atol=2e-3 * float(before.abs().max()))


def test_fine_tuning_lowers_the_loss_and_keeps_the_shapes():
    data = images(256)
    labels = (data.float().mean((1, 2, 3)) > data.float().mean()).long()
    model = network()
    tuned = model
    for _ in range(4):
        tuned = fine_tuned(tuned, data, labels, 0.05)
    losses = [torch.nn.functional.cross_entropy(TorchGraph(m)(data), labels).item() for m in (model, tuned)]
    assert losses[1] < losses[0]
    assert [list(t.dims) for t in tuned.graph.initializer] == [list(t.dims) for t in model.graph.initializer]
