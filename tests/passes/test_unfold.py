"""Folded constants that take far more room than what computes them are computed again in the written model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from halpc.cli import main
from halpc.ir.model import Model
from passes.count import params
from passes.couple import couple
from passes.load import load
from passes.proto import proto_of
from passes.runtime import session_of
from passes.unfold import unfolded
from tests.passes.patterns import model_of

RELATIVE = """relative (float[1,3,160,160] x) => (float[1,2,160,160] y)
    <float first = {0}, float last = {160}, float step = {1}, int64[1] outer = {0}, int64[1] inner = {1},
     float scale = {0.001}> {
        a = Conv(x, w)
        places = Range(first, last, step)
        columns = Unsqueeze(places, inner)
        rows = Unsqueeze(places, outer)
        apart = Sub(columns, rows)
        table = Mul(apart, scale)
        b = Add(a, table)
        c = Relu(b)
        y = Conv(c, v)
    }"""
TABLE = 160 * 160 * 4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(model_of(RELATIVE, {"w": (8, 3, 1, 1), "v": (2, 8, 1, 1)}), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def folded(path: Path) -> tuple[Model, onnx.ModelProto]:
    model = load(path)
    return model, proto_of(model.graph, model.header)


def results(model: onnx.ModelProto) -> list[np.ndarray]:
    x = np.random.default_rng(0).standard_normal((1, 3, 160, 160)).astype(np.float32)
    return list(session_of(model, optimise=False).run(None, {"x": x}))


def test_a_table_made_of_scalars_is_computed_again(path: Path) -> None:
    model, whole = folded(path)
    small = unfolded(whole, model.recipes)
    onnx.checker.check_model(small, full_check=True)
    assert whole.ByteSize() > TABLE > 10 * small.ByteSize()
    assert "table" not in {tensor.name for tensor in small.graph.initializer}
    assert all(np.array_equal(a, b) for a, b in zip(results(whole), results(small), strict=True))


def test_it_is_so_in_the_file_that_compile_writes(path: Path) -> None:
    out = path.parent / "out"
    assert main(["compile", str(path), "-q", "-o", str(out), "--macs", "60%"]) == 0
    pruned = onnx.load(out / "pruned.onnx")
    assert (out / "pruned.onnx").stat().st_size < 1.5 * path.stat().st_size < TABLE
    assert next(t.dims[0] for t in pruned.graph.initializer if t.name == "w") < 8
    assert results(pruned)[0].shape == (1, 2, 160, 160)


def changed_value(model: onnx.ModelProto) -> None:
    table = next(t for t in model.graph.initializer if t.name == "table")
    values = numpy_helper.to_array(table).copy()
    values[3, 5] += 1e-6
    table.CopyFrom(numpy_helper.from_array(values, "table"))


def cut(model: onnx.ModelProto) -> None:
    table = next(t for t in model.graph.initializer if t.name == "table")
    table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table)[:1], "table"))


def name_taken(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Identity", ["x"], ["apart"]))


def other_source(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.002), "scale"))


@pytest.mark.parametrize("change", [changed_value, cut, name_taken, other_source])
def test_what_is_not_bit_by_bit_the_same_stays_a_constant(
    path: Path, change: Callable[[onnx.ModelProto], None]
) -> None:
    model, whole = folded(path)
    change(whole)
    assert unfolded(whole, model.recipes) is whole


def test_weights_and_small_tables_have_no_recipe(path: Path) -> None:
    assert set(load(path).recipes) == {"table"}


def test_a_table_that_is_computed_again_is_no_parameter(path: Path) -> None:
    model = load(path)
    coupling = couple(model.twin)
    assert params(model.twin, coupling).at({}) > TABLE / 4
    assert params(model.twin, coupling, model.recipes).at({}) == model.stored
