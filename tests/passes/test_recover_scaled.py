"""Recovery of matrix products of integers whose scales are found at run time."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from passes.calibration import calibrate_from
from passes.recover import recover
from passes.recovery.integers import opened, with_opened
from tests.passes.slimming import cut
from tests.passes.test_recover_integers import outputs

KEPT = np.array([0, 1, 3, 4, 6, 8, 9])
SEVERAL_NODES = """
    xq, x_s, x_z = DynamicQuantizeLinear (x)
    i = MatMulInteger (xq, a, x_z, a_z)
    j = Cast <to = 1> (i)
    s = Mul (x_s, a_s)
    k = Mul (j, s)
    h = Add (k, a_b)
    t = Tanh (h)
    hq, h_s, h_z = DynamicQuantizeLinear (t)
    m = MatMulInteger (hq, b, h_z, b_z)
    n = Cast <to = 1> (m)
    r = Mul (h_s, b_s)
    o = Mul (r, n)
    y = Add (b_b, o)
"""
ONE_NODE = """
    h = com.microsoft.DynamicQuantizeMatMul (x, a, a_s, a_z, a_b)
    t = Tanh (h)
    hq, h_s, h_z = DynamicQuantizeLinear (t)
    y = com.microsoft.MatMulIntegerToFloat (hq, b, h_s, b_s, h_z, b_z, b_b)
"""


def network(body: str, rank: int = 4) -> onnx.ModelProto:
    """Twelve hidden channels of which `rank` would do, per-channel scales."""
    head = '<ir_version: 9, opset_import: ["" : 17, "com.microsoft" : 1]>\ng (float[N,7] x) => (float[N,5] y) {'
    model = onnx.parser.parse_model(f"{head}{body}}}")
    rng = np.random.default_rng(3)
    weights = {"a": rng.normal(size=(7, rank)) @ rng.normal(size=(rank, 12)) / 6, "b": rng.normal(size=(12, 5))}
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, value in weights.items():
        step = np.abs(value).max(axis=0) / 127
        arrays[name] = np.rint(value / step).astype(np.int8)
        arrays[f"{name}_s"] = step.astype(np.float32)
        arrays[f"{name}_z"] = np.zeros(step.shape, np.int8)
        arrays[f"{name}_b"] = rng.normal(size=step.shape).astype(np.float32) / 10
    arrays["c"] = arrays["a"][::-1].copy()
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in arrays.items() if name in used
    )
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    onnx.checker.check_model(model)
    return model


def sample(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(7).normal(size=(count, 7)).astype(np.float32)


@pytest.mark.parametrize("body", [SEVERAL_NODES, ONE_NODE])
def test_an_opened_model_computes_the_same(body: str) -> None:
    model = network(body)
    real = opened(model)
    onnx.checker.check_model(real)
    kinds = {node.op_type for node in real.graph.node}
    assert not {name for name in kinds if "Integer" in name or "QuantizeMatMul" in name}
    assert "MatMul" in kinds
    x = sample(32)
    wanted = outputs(model, x)
    assert np.abs(wanted - outputs(real, x)).max() < 1e-5 * np.ptp(wanted)


@pytest.mark.parametrize("body", [SEVERAL_NODES, ONE_NODE])
@pytest.mark.parametrize("mode", ["refit", "bias"])
def test_they_are_refitted_and_stay_what_they_are(body: str, mode: str) -> None:
    model = network(body)
    keep = {name: {axis: KEPT} for name, axis in (("a", 1), ("a_s", 0), ("a_z", 0), ("a_b", 0), ("b", 0))}
    slim = cut(model, keep)
    result = recover(model, slim, keep, calibrate_from({"x": sample(200)}, model), mode=mode)  # type: ignore[arg-type]
    assert [layer.action for layer in result.layers] == [mode]
    x = sample(64)
    wanted = outputs(model, x)
    before, after = (float(np.square(outputs(m, x) - wanted).sum()) for m in (slim, result.model))
    assert after < (0.1 if mode == "refit" else 1) * before
    assert [node.SerializeToString() for node in result.model.graph.node] == [
        node.SerializeToString() for node in slim.graph.node
    ]
    kinds = [{t.name: (t.data_type, tuple(t.dims)) for t in m.graph.initializer} for m in (slim, result.model)]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize(
    "old, new",
    [
        ("j = Cast <to = 1> (i)", "j = Cast <to = 10> (i)\nx_h = Cast <to = 10> (x_s)\na_h = Cast <to = 10> (a_s)"),
        ("(j, s)", "(j, a_s)"),
        ("t = Tanh (h)", "u = Cast <to = 1> (i)\n t = Add (h, u)"),
        ("(xq, a, x_z, a_z)", "(xq, a, x_z, other)"),
        ("(xq, a, x_z, a_z)", "(xq, computed, x_z, a_z)"),
    ],
)
def test_what_is_anything_else_stays_closed(old: str, new: str) -> None:
    body = SEVERAL_NODES.replace(old, new)
    if "to = 10" in new:
        body = body.replace("s = Mul (x_s, a_s)", "s = Mul (x_h, a_h)").replace(
            "k = Mul (j, s)", "v = Mul (j, s)\nk = Cast <to = 1> (v)"
        )
    body = "other = Identity (a_z)\ncomputed = Identity (a)" + body
    real = opened(network(body))
    assert [node.op_type for node in real.graph.node].count("MatMulInteger") == 1
    x = sample(8)
    wanted = outputs(network(body), x)
    assert np.abs(wanted - outputs(real, x)).max() < 1e-5 * np.ptp(wanted)


def test_integers_that_several_products_read_are_decoded_once() -> None:
    body = SEVERAL_NODES.replace("t = Tanh (h)", "p = MatMulInteger (xq, c, x_z, a_z)\nq = Cast <to = 1> (p)\n"
                                 "d = Mul (q, s)\nt = Tanh (d)")  # fmt: skip
    real = opened(network(body))
    assert [node.input[0] for node in real.graph.node if node.op_type == "DequantizeLinear"].count("xq") == 1
    assert "MatMulInteger" not in {node.op_type for node in real.graph.node}
    x = sample(8)
    assert np.allclose(outputs(network(body), x), outputs(real, x), atol=1e-4)


def test_axes_are_known_through_quantisation_at_run_time() -> None:
    real = opened(network(ONE_NODE))
    first = next(node for node in real.graph.node if node.op_type == "MatMul")
    assert with_opened({("x", 1): "inner"}, real)[first.input[0], 1] == "inner"
