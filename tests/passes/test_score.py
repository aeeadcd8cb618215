"""Importance files find their layers, and say what is wrong with them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs
import pytest
from onnx import numpy_helper
from safetensors.numpy import save_file

from halpc.errors import SaliencyError
from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from passes.couple import couple
from passes.coupling.members import layer_name
from passes.load import load
from passes.score import combined, score_from_file, score_from_weights
from tests.passes.patterns import model_of
from tests.small import model as small
from tests.small import saved


@pytest.fixture
def network(tmp_path: Path) -> tuple[Model, Coupling]:
    model = load(saved(tmp_path))
    return model, couple(model.twin)


def scored(network: tuple[Model, Coupling], path: Path, arrays: dict[str, np.ndarray]):  # type: ignore[no-untyped-def]
    np.savez(path, **arrays)
    return score_from_file(path, network[0].twin, network[1])


@pytest.mark.parametrize("key", ["w1", "net.c", "net.c.weight", "/net/c/Conv", "c"])
def test_a_key_may_be_weight_module_path_node_or_output(
    network: tuple[Model, Coupling], tmp_path: Path, key: str
) -> None:
    scores = scored(network, tmp_path / "s.npz", {key: np.arange(24.0)})
    assert scores.scores["net.c"].tolist() == list(range(24))


def test_json_and_safetensors_say_the_same_as_npz(network: tuple[Model, Coupling], tmp_path: Path) -> None:
    values = np.linspace(0, 1, 24).astype(np.float32)
    (tmp_path / "s.json").write_text(json.dumps({"net.c": values.tolist()}))
    save_file({"net.c": values}, tmp_path / "s.safetensors")
    for name in ("s.json", "s.safetensors"):
        found = score_from_file(tmp_path / name, network[0].twin, network[1])
        assert np.allclose(found.scores["net.c"], values)


def test_scores_in_bfloat16_are_read(network: tuple[Model, Coupling], tmp_path: Path) -> None:
    save_file({"net.c": np.arange(24).astype(ml_dtypes.bfloat16)}, tmp_path / "s.safetensors")
    found = score_from_file(tmp_path / "s.safetensors", network[0].twin, network[1])
    assert found.scores["net.c"].tolist() == list(range(24))


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"format": "x", "importance": 5}', "under 'importance', found 5"),
        ('{"format": "x", "importance": [1.5]}', "found a list"),
        ('{"layers": {"net.c": [0.123, 0.456]}}', r"an object among its entries\); expected one per channel$"),
    ],
)
def test_json_of_another_form_is_refused_without_its_numbers(
    network: tuple[Model, Coupling], tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(SaliencyError, match=message):
        score_from_file(tmp_path / "s.json", network[0].twin, network[1])


def test_a_pipe_is_no_importance_file(network: tuple[Model, Coupling], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.npz")
    with pytest.raises(SaliencyError, match="is no regular file"):
        score_from_file(tmp_path / "s.npz", network[0].twin, network[1])


def test_a_coupled_group_sums_over_the_members_that_have_a_score(
    network: tuple[Model, Coupling], tmp_path: Path
) -> None:
    found = scored(network, tmp_path / "s.npz", {"w0": np.ones(16), "w2": np.arange(16.0)})
    assert found.scores["net.a"].tolist() == (1 + np.arange(16.0)).tolist()


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"nte.c": np.ones(24)}, "the nearest name is"),
        ({"model.backbone.net.c.weight": np.ones(24)}, "the nearest name is 'net.c'"),
        ({"w1": np.ones(23)}, r"expected \[24\]"),
        ({"w1": np.ones((24, 1))}, r"expected \[24\]"),
        ({"w1": np.where(np.arange(24) == 5, np.nan, 1.0)}, "not finite at channel 5"),
        ({"w1": np.where(np.arange(24) == 3, -0.5, 1.0)}, "negative at channel 3"),
        ({"w1": np.array(["a"] * 24)}, "expected numbers"),
        ({}, "holds no arrays"),
    ],
)
def test_a_bad_array_is_named(
    network: tuple[Model, Coupling], tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(SaliencyError, match=message):
        scored(network, tmp_path / "s.npz", arrays)


@pytest.mark.parametrize("name", ["s.npz", "s.json", "s.safetensors", "s.txt", "missing.npz"])
def test_a_file_that_is_not_what_its_name_says_is_refused(
    network: tuple[Model, Coupling], tmp_path: Path, name: str
) -> None:
    if name != "missing.npz":
        (tmp_path / name).write_bytes(b"\x00garbage")
    with pytest.raises(SaliencyError):
        score_from_file(tmp_path / name, network[0].twin, network[1])


def test_norms_of_one_layer_average_to_one(network: tuple[Model, Coupling]) -> None:
    for kind in ("l1", "l2"):
        assert score_from_weights(kind, network[0].twin, network[1]).scores["net.c"].mean() == pytest.approx(1)


def test_sp_lamp_keeps_the_largest_filter_at_one(network: tuple[Model, Coupling]) -> None:
    assert score_from_weights("sp-lamp", network[0].twin, network[1]).scores["net.c"].max() == 1


def test_bn_scales_need_a_batch_normalization(network: tuple[Model, Coupling]) -> None:
    with pytest.raises(SaliencyError, match="no BatchNormalization"):
        score_from_weights("bn", network[0].twin, network[1])


TABLE = """table (int64[N,L] x) => (float[N,L,5] y) {
        e = Gather(t, x)
        h = MatMul(e, w)
        y = MatMul(h, v)
    }"""
EINSUM = """einsum (float[N,L,4] x) => (float[N,L,5] y) {
        e = Einsum<equation = "nlc,cd->nld">(x, t)
        h = Relu(e)
        y = Einsum<equation = "nld,dk->nlk">(h, v)
    }"""


@pytest.mark.parametrize("kind", ["l1", "l2", "sp-lamp"])
@pytest.mark.parametrize("text, shapes", [(TABLE, {"t": (30, 8), "w": (8, 12), "v": (12, 5)}),
                                          (EINSUM, {"t": (4, 8), "v": (8, 5)})])  # fmt: skip
def test_groups_that_no_layer_gives_out_are_scored_by_their_weights(
    tmp_path: Path, kind: str, text: str, shapes: dict[str, tuple[int, ...]]
) -> None:
    proto = model_of(text, shapes)
    values = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    values[:, 5] *= 0.01
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "t"))
    model = load(saved(tmp_path, proto))
    coupling = couple(model.twin)
    found = score_from_weights(kind, model.twin, coupling)
    (name,) = (n for n, g in coupling.free().items() if any(m.tensor == "t" for m in g.members))
    assert not found.unscored
    assert found.scores[name].min() > 0
    assert np.argmin(found.scores[name]) == 5


def test_a_table_that_is_looked_up_can_be_named_in_a_file(tmp_path: Path) -> None:
    model = load(saved(tmp_path, model_of(TABLE, {"t": (30, 8), "w": (8, 12), "v": (12, 5)})))
    np.savez(tmp_path / "s.npz", t=np.arange(8.0))
    found = score_from_file(tmp_path / "s.npz", model.twin, couple(model.twin))
    assert any(scores.tolist() == list(range(8)) for scores in found.scores.values())


def test_two_sources_count_alike_whatever_their_scale(network: tuple[Model, Coupling], tmp_path: Path) -> None:
    one = scored(network, tmp_path / "a.npz", {"w1": np.arange(24.0)})
    other = scored(network, tmp_path / "b.npz", {"w1": 1e6 * np.arange(24.0)[::-1]})
    assert np.ptp(combined([one, other]).scores["net.c"]) == pytest.approx(0, abs=1e-12)


def test_a_mask_keeps_the_best_channels(network: tuple[Model, Coupling], tmp_path: Path) -> None:
    found = scored(network, tmp_path / "s.npz", {"w1": np.arange(24.0)})
    assert np.flatnonzero(found.mask("net.c", 3)).tolist() == [21, 22, 23]
    assert found.curve("net.c")[3] == 21 + 22 + 23


@pytest.mark.parametrize(
    "node, module",
    [
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/layer2/layer2.0/downsample/downsample.0/Conv", "layer2.0.downsample.0"),
        ("/features/features.1/conv/conv.0/conv.0.0/Conv", "features.1.conv.0.0"),
        ("/blocks/blocks.0/blocks.0.0/conv_dw/Conv", "blocks.0.0.conv_dw"),
        ("/model/model.0/conv/Conv", "model.0.conv"),
    ],
)
def test_a_node_name_gives_back_the_module_path(node: str, module: str) -> None:
    assert layer_name(gs.Node("Conv", node)) == module


@pytest.mark.parametrize(
    "name",
    [
        "functional_1/conv2d_1/convolution/merged_input:0",
        "functional_1/conv2d_1/convolution/ReadVariableOp:0",
        "functional_1.conv2d_1.weight",
    ],
)
def test_a_node_whose_name_tells_nothing_is_called_after_its_weight(name: str) -> None:
    weight = gs.Constant(name, np.zeros((2, 2, 1, 1), np.float32))
    assert layer_name(gs.Node("Conv", "Conv__40", inputs=[gs.Variable("x"), weight])) == "functional_1.conv2d_1"


@pytest.mark.parametrize("name", ["resnet18", "resnet18-bn", "mobilenetv2", "resnet56"])
def test_every_key_of_a_shipped_importance_file_finds_its_layer(name: str) -> None:
    folder = Path(__file__).parents[2] / "models"
    model = load(folder / f"{name}.onnx")
    found = score_from_file(folder / f"{name.split('-')[0]}.importance.npz", model.twin, couple(model.twin))
    assert not found.unscored


KERAS = """
<ir_version: 9, opset_import: ["" : 17]>
net (float[1, 6] x) => (float[1, 4] y)
{
    a = MatMul (x, w0)
    b = Relu (a)
    c = MatMul (b, w1)
    d = Relu (c)
    y = MatMul (d, w2)
}
"""


def keras(folder: Path, scopes: list[str], widths: tuple[int, int] = (8, 8)) -> tuple[Model, Coupling]:
    """Three dense layers in these scopes."""
    sizes = (6, *widths, 4)
    proto = small(KERAS, {f"w{i}": np.ones(sizes[i : i + 2], np.float32) for i in range(3)})
    products = [node for node in proto.graph.node if node.op_type == "MatMul"]
    for node, tensor, scope in zip(products, proto.graph.initializer, scopes, strict=True):
        node.name, tensor.name = f"functional_1/{scope}/MatMul", f"functional_1/{scope}/Cast/ReadVariableOp:0"
        node.input[1] = tensor.name
    model = load(saved(folder, proto))
    return model, couple(model.twin)


@pytest.mark.parametrize(
    ("scopes", "keys"),
    [
        (["dense_1", "dense_1_2", "dense_2_1"], ["dense/kernel", "dense_1/kernel"]),
        (["dense_1", "dense_1_2", "dense_2_1"], ["dense", "dense_1"]),
        (["dense", "dense_1", "dense_2"], ["dense", "dense_1"]),
        (["block_1/query_1", "block_1/key_1", "head_1"], ["block/query/kernel", "block/key/kernel:0"]),
    ],
)
def test_a_key_may_be_the_path_of_a_keras_layer(tmp_path: Path, scopes: list[str], keys: list[str]) -> None:
    found = scored(keras(tmp_path, scopes), tmp_path / "s.npz", {keys[0]: np.arange(8.0), keys[1]: np.ones(8)})
    assert sorted(scores.tolist() for scores in found.scores.values()) == [list(range(8)), [1.0] * 8]


def test_numbers_that_may_be_tensorflows_or_the_layers_are_refused_unless_lengths_tell(tmp_path: Path) -> None:
    scopes = ["dense_1", "dense_1_2", "dense_2_1"]
    with pytest.raises(SaliencyError, match=r"'dense_1' may be .*dense_1/Cast.* or .*dense_1_2/Cast"):
        scored(keras(tmp_path, scopes), tmp_path / "s.npz", {"dense_1": np.ones(8)})
    found = scored(keras(tmp_path, scopes, widths=(8, 5)), tmp_path / "s.npz", {"dense_1": np.arange(5.0)})
    assert [scores.tolist() for scores in found.scores.values()] == [[0.0] * 8, list(range(5))]


def test_the_path_of_a_keras_layer_with_several_weights_names_none(tmp_path: Path) -> None:
    scopes = ["block_1/query_1", "block_1/key_1", "head_1"]
    with pytest.raises(SaliencyError, match="'block' is no layer"):
        scored(keras(tmp_path, scopes), tmp_path / "s.npz", {"block": np.ones(8)})
