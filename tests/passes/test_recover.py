"""Recovery: exact where theory says so, never worse than not recovering, and independent of how inputs are fed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from halpc.errors import CalibrationError
from passes.calibration import Calibration, calibrate_from
from passes.recover import Options, Recovery, recover
from passes.recovery.segments import open_session
from tests.passes.slimming import cut

RANDOM = np.random.default_rng(0)
Weights = dict[str, NDArray[np.float64]]


def _model(body: str, shape: str, **weights: NDArray[np.float64]) -> onnx.ModelProto:
    text = f"""<ir_version: 9, opset_import: ["" : 17]>
    g (float[N,{shape}] x) => (float[] y) {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype=np.float32), name))
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    return model


def _calibration(model: onnx.ModelProto, *shape: int) -> Calibration:
    return calibrate_from({"x": np.random.default_rng(7).normal(size=shape).astype(np.float32)}, model)


def _compute(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(open_session(model, 1).run(["y"], {"x": x})[0])


def _relative(model: onnx.ModelProto, other: onnx.ModelProto, *shape: int) -> float:
    x = np.random.default_rng(99).normal(size=shape).astype(np.float32)
    one, two = _compute(model, x), _compute(other, x)
    return float(np.abs(one - two).max() / np.abs(one).max())


def _values(model: onnx.ModelProto) -> Weights:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def _rank_four(outputs: int, inputs: int, taps: int = 1) -> NDArray[np.float64]:
    """Filters of which any four determine the others."""
    basis = np.random.default_rng(2).normal(size=(4, inputs, taps, taps))
    return np.einsum("ob,bixy->oixy", np.random.default_rng(3).normal(size=(outputs, 4)), basis)


DENSE = RANDOM.normal(size=(5, 8, 3, 3))
LINEAR = "u = Conv<pads=[1,1,1,1]>(x, a)\n y = Conv<pads=[1,1,1,1]>(u, b, c)"
KEPT = np.array([0, 2, 3, 5, 7])


def _linear() -> onnx.ModelProto:
    return _model(LINEAR, "3,8,8", a=_rank_four(8, 3, 3), b=DENSE, c=RANDOM.normal(size=5))


def _recovered(
    model: onnx.ModelProto, keep: dict[str, dict[int, NDArray[np.int64]]], *shape: int, **kw: object
) -> Recovery:
    return recover(model, cut(model, keep), keep, _calibration(model, *shape), options=Options(**kw))  # type: ignore[arg-type]


def test_redundant_channels_of_a_linear_network_are_recovered_exactly() -> None:
    model = _linear()
    keep = {"a": {0: KEPT}, "b": {1: KEPT}}
    result = _recovered(model, keep, 64, 3, 8, 8, strengths=(1e-9,))
    assert _relative(model, cut(model, keep), 4, 3, 8, 8) > 0.1
    assert _relative(model, result.model, 4, 3, 8, 8) < 1e-3
    assert [(layer.name, layer.action) for layer in result.layers] == [("n1", "refit")]
    assert result.error_after < 1e-6 < result.error_before


def test_outputs_that_were_pruned_too_are_matched_at_the_kept_channels() -> None:
    body = "u = Conv<pads=[1,1,1,1]>(x, a)\n v = Conv(u, b)\n y = Conv(v, d)"
    last = np.zeros((4, 5, 1, 1))
    last[:, [0, 3, 4]] = RANDOM.normal(size=(4, 3, 1, 1))
    model = _model(body, "3,8,8", a=_rank_four(8, 3, 3), b=DENSE, d=last)
    inner = np.array([0, 3, 4])
    keep = {"a": {0: KEPT}, "b": {0: inner, 1: KEPT}, "d": {1: inner}}
    result = _recovered(model, keep, 64, 3, 8, 8, strengths=(1e-9,))
    assert _relative(model, result.model, 4, 3, 8, 8) < 1e-3


def test_grouped_consumers_are_refitted_group_by_group() -> None:
    body = "u = Conv(x, a)\n y = Conv<group=2, pads=[1,1,1,1]>(u, b)"
    model = _model(body, "3,8,8", a=_rank_four(8, 3).repeat(2, axis=0), b=RANDOM.normal(size=(6, 8, 3, 3)))
    inside = np.array([0, 1, 4, 5, 6, 7])
    keep = {"a": {0: np.concatenate([inside, inside + 8])}, "b": {1: inside}}
    result = _recovered(model, keep, 64, 3, 8, 8, strengths=(1e-9,))
    assert _relative(model, result.model, 4, 3, 8, 8) < 1e-3


def test_transposed_convolution_is_recovered_exactly() -> None:
    body = "u = Conv(x, a)\n y = ConvTranspose<strides=[2,2]>(u, b)"
    model = _model(body, "3,6,6", a=_rank_four(8, 3), b=RANDOM.normal(size=(8, 5, 3, 3)))
    keep = {"a": {0: KEPT}, "b": {0: KEPT}}
    result = _recovered(model, keep, 64, 3, 6, 6, strengths=(1e-9,))
    assert _relative(model, result.model, 4, 3, 6, 6) < 1e-3


def test_constant_channels_are_recovered_by_the_bias_alone() -> None:
    first = RANDOM.normal(size=(8, 3, 1, 1))
    first[[1, 4, 6]] = 0
    model = _model("u = Conv(x, a, d)\n y = Conv(u, b)", "3,8,8", a=first, d=RANDOM.normal(size=8), b=DENSE)
    keep = {"a": {0: KEPT}, "d": {0: KEPT}, "b": {1: KEPT}}
    result = recover(model, cut(model, keep), keep, _calibration(model, 32, 3, 8, 8), mode="bias")
    assert _relative(model, result.model, 4, 3, 8, 8) < 1e-3
    assert result.layers[0].action == "bias"
    assert result.model.graph.node[1].input[2] == "b.bias"


def test_a_product_without_bias_stays_without() -> None:
    model = _model(
        "u = MatMul(x, a)\n y = MatMul(u, b)", "5,3", a=_rank_four(8, 3)[:, :, 0, 0].T, b=RANDOM.normal(size=(8, 4))
    )
    keep = {"a": {1: KEPT}, "b": {0: KEPT}}
    result = _recovered(model, keep, 64, 5, 3, strengths=(1e-9,))
    assert set(_values(result.model)) == {"a", "b"}
    assert _relative(model, result.model, 4, 5, 3) < 1e-3


def test_the_constant_added_after_a_product_is_its_bias() -> None:
    body = "t = MatMul(x, a)\n u = Relu(t)\n v = MatMul(u, b)\n y = Add(v, c)"
    model = _model(body, "5,3", a=RANDOM.normal(size=(3, 8)), b=RANDOM.normal(size=(8, 4)), c=RANDOM.normal(size=4))
    keep = {"a": {1: KEPT}, "b": {0: KEPT}}
    result = _recovered(model, keep, 64, 5, 3)
    assert not np.allclose(_values(result.model)["c"], _values(model)["c"])
    assert result.error_after < 0.5 * result.error_before


NORMALISED = """u = Conv<pads=[1,1,1,1]>(x, a)
    v = BatchNormalization(u, s, t, m, k)
    r = Relu(v)
    w = Conv<pads=[1,1,1,1]>(r, b)
    y = BatchNormalization(w, s2, t2, m2, k2)"""


def test_a_bias_before_batch_normalisation_goes_into_its_mean() -> None:
    names = {"s": 8, "t": 8, "m": 8, "k": 8, "s2": 5, "t2": 5, "m2": 5, "k2": 5}
    statistics = {name: RANDOM.uniform(0.5, 2, size) for name, size in names.items()}
    model = _model(NORMALISED, "3,8,8", a=RANDOM.normal(size=(8, 3, 3, 3)), b=DENSE, **statistics)
    keep = {"a": {0: KEPT}, "b": {1: KEPT}, **{name: {0: KEPT} for name in "stmk"}}
    result = _recovered(model, keep, 64, 3, 8, 8)
    assert set(_values(result.model)) == set(_values(model))
    assert not np.allclose(_values(result.model)["m2"], _values(model)["m2"])
    assert result.error_after < 0.7 * result.error_before
    assert [layer.op for layer in result.layers] == ["Conv"]


RESIDUAL = """u = Conv<pads=[1,1,1,1]>(x, a)
    r = Relu(u)
    s = Conv(r, p)
    q = Conv<pads=[1,1,1,1]>(r, b)
    h = Relu(q)
    v = Conv<pads=[1,1,1,1]>(h, d)
    z = Add(v, s)
    y = Relu(z)"""


def _residual() -> onnx.ModelProto:
    shapes = {"a": (8, 3, 3, 3), "p": (6, 8, 1, 1), "b": (8, 8, 3, 3), "d": (6, 8, 3, 3)}
    random = np.random.default_rng(21)
    return _model(RESIDUAL, "3,8,8", **{name: random.normal(size=shape) for name, shape in shapes.items()})


RESIDUAL_KEEP = {"a": {0: KEPT}, "p": {1: KEPT}, "b": {0: KEPT, 1: KEPT}, "d": {1: KEPT}}


@pytest.mark.parametrize("sum_of_two", ["Add", "Sum"])
def test_the_last_layer_of_a_branch_repairs_the_sum(sum_of_two: str) -> None:
    """Two channels cannot carry the shortcut of three inputs; the branch still sees all three."""
    body = f"u = Conv(x, a)\n s = Conv(u, p)\n h = Conv(x, b)\n v = Conv(h, d)\n y = {sum_of_two}(v, s)"
    shapes = {"a": (8, 3, 1, 1), "p": (6, 8, 1, 1), "b": (8, 3, 1, 1), "d": (6, 8, 1, 1)}
    random = np.random.default_rng(21)
    model = _model(body, "3,8,8", **{name: random.normal(size=shape) for name, shape in shapes.items()})
    keep = {"a": {0: KEPT[:2]}, "p": {1: KEPT[:2]}, "b": {0: KEPT}, "d": {1: KEPT}}
    alone = _recovered(model, keep, 64, 3, 8, 8, residual=False, strengths=(1e-9,))
    together = _recovered(model, keep, 64, 3, 8, 8, residual=True, strengths=(1e-9,))
    assert _relative(model, alone.model, 4, 3, 8, 8) > 0.1
    assert _relative(model, together.model, 4, 3, 8, 8) < 1e-3


def test_the_longer_branch_is_finished_last() -> None:
    layers = _recovered(_residual(), RESIDUAL_KEEP, 64, 3, 8, 8).layers
    assert [layer.name for layer in layers] == ["n2", "n3", "n5"]


def test_a_branch_that_vanished_is_no_obstacle() -> None:
    model = _residual()
    slim = cut(model, {"a": {0: KEPT}, "p": {1: KEPT}})
    del slim.graph.node[3:7]
    slim.graph.node[3].input[0] = "s"
    result = recover(model, slim, {"a": {0: KEPT}, "p": {1: KEPT}}, _calibration(model, 64, 3, 8, 8))
    assert result.error_after < result.error_before


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_the_batch_size_does_not_matter(batch: int) -> None:
    model = _residual()
    options = {"positions": 900, "strengths": (1e-3,)}
    expected = _values(_recovered(model, RESIDUAL_KEEP, 50, 3, 8, 8, **options).model)
    for name, value in _values(_recovered(model, RESIDUAL_KEEP, 50, 3, 8, 8, batch=batch, **options).model).items():
        np.testing.assert_allclose(value, expected[name], atol=2e-3)


def test_the_order_of_the_inputs_does_not_matter() -> None:
    model = _residual()
    x = np.random.default_rng(7).normal(size=(50, 3, 8, 8)).astype(np.float32)
    slim, found = cut(model, RESIDUAL_KEEP), []
    for order in (np.arange(50), np.random.default_rng(1).permutation(50)):
        found.append(_values(recover(model, slim, RESIDUAL_KEEP, calibrate_from({"x": x[order]}, model)).model))
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name])


def test_little_memory_gives_the_same_result() -> None:
    model = _residual()
    ample = _values(_recovered(model, RESIDUAL_KEEP, 40, 3, 8, 8).model)
    scarce = _values(_recovered(model, RESIDUAL_KEEP, 40, 3, 8, 8, memory_bytes=1).model)
    for name in ample:
        np.testing.assert_allclose(scarce[name], ample[name], atol=1e-5)


def test_a_layer_that_lost_nothing_is_left_alone() -> None:
    second = DENSE.copy()
    second[:, [1, 4, 6]] = 0
    model = _model(LINEAR, "3,8,8", a=RANDOM.normal(size=(8, 3, 3, 3)), b=second, c=RANDOM.normal(size=5))
    keep = {"a": {0: KEPT}, "b": {1: KEPT}}
    slim = cut(model, keep)
    result = recover(model, slim, keep, _calibration(model, 64, 3, 8, 8), options=Options(strengths=(1e-2, 1.0)))
    assert (result.layers[0].action, result.layers[0].reason) == ("kept", "nothing was lost")
    for name, value in _values(result.model).items():
        np.testing.assert_array_equal(value, _values(slim)[name])


def test_a_refit_that_would_hurt_is_not_kept() -> None:
    """Eight samples for 512 unknowns: without a ridge the fit is perfect on them and useless elsewhere."""
    random = np.random.default_rng(5)
    first, second = random.normal(size=(1024, 600)), random.normal(size=(600, 30))
    model = _model("t = MatMul(x, a)\n u = Relu(t)\n y = MatMul(u, b)", "1024", a=first, b=second)
    kept = np.arange(512)
    keep = {"a": {1: kept}, "b": {0: kept}}
    slim = cut(model, keep)
    result = recover(model, slim, keep, _calibration(model, 8, 1024), options=Options(strengths=(1e-12,)))
    assert result.layers[0].after <= result.layers[0].before
    assert result.error_after <= result.error_before
    if result.layers[0].action == "kept":
        np.testing.assert_array_equal(_values(result.model)["b"], _values(slim)["b"])


def test_the_slim_model_is_not_changed_and_progress_is_told() -> None:
    model = _linear()
    keep = {"a": {0: KEPT}, "b": {1: KEPT}}
    slim = cut(model, keep)
    before, told = slim.SerializeToString(), list[tuple[int, int, str]]()
    recover(model, slim, keep, _calibration(model, 32, 3, 8, 8), progress=lambda *args: told.append(args))
    assert slim.SerializeToString() == before
    assert told == [(0, 1, "n1"), (1, 1, "")]


def test_half_precision_weights_stay_half_precision() -> None:
    model = _linear()
    for item in model.graph.initializer:
        item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float16), item.name))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    x = {"x": np.random.default_rng(7).normal(size=(64, 3, 8, 8)).astype(np.float16)}
    keep = {"a": {0: KEPT}, "b": {1: KEPT}}
    result = recover(model, cut(model, keep), keep, calibrate_from(x, model))
    assert {value.dtype for value in _values(result.model).values()} == {np.dtype(np.float16)}
    assert result.error_after < 1e-3 < result.error_before


def test_off_only_measures() -> None:
    model = _linear()
    keep = {"a": {0: KEPT}, "b": {1: KEPT}}
    result = recover(model, cut(model, keep), keep, _calibration(model, 32, 3, 8, 8), mode="off")
    assert result.layers == ()
    assert result.error_after == result.error_before > 0


def test_an_output_that_does_not_vary_is_judged_by_its_size() -> None:
    """Inputs that reach nothing: the network gives one number, 10^19 % off for want of a variance."""
    body = "n = MatMul(x, z)\n r = Relu(n)\n t = Add(r, o)\n u = MatMul(t, a)\n y = MatMul(u, b)"
    random = {"a": RANDOM.normal(size=(6, 8)), "b": RANDOM.normal(size=(8, 3))}
    model = _model(body, "4", z=np.zeros((4, 6)), o=np.ones(6), **random)
    keep = {"a": {1: KEPT}, "b": {0: KEPT}}
    result = recover(model, cut(model, keep), keep, _calibration(model, 32, 4), mode="off")
    assert result.alike
    assert 0.001 < result.error_before < 1000
    assert not _recovered(_linear(), {"a": {0: KEPT}, "b": {1: KEPT}}, 16, 3, 8, 8).alike


def test_samples_that_repeat_count_once() -> None:
    model = _linear()
    inputs = np.random.default_rng(7).normal(size=(5, 3, 8, 8)).astype(np.float32).repeat(4, axis=0)
    with pytest.raises(CalibrationError, match=r"5 different samples \(20 in all\) are too few"):
        recover(model, model, {}, calibrate_from({"x": inputs}, model))


def test_too_few_samples_say_how_many_are_needed() -> None:
    model = _linear()
    keep = {"a": {0: KEPT}, "b": {1: KEPT}}
    with pytest.raises(CalibrationError, match=r"5 samples are too few .* at least 8 are needed"):
        _recovered(model, keep, 5, 3, 8, 8)
