"""Every operator's row: the equations, slicing against zeroing in onnxruntime, and the checker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from halpc.ir.dims import Mask
from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from passes.couple import couple
from passes.load import load
from passes.proto import check_model
from passes.rules import rule_for, rules
from passes.rules.language import Axis, Count, Input, Op, Operand, Pin
from passes.rules.opaque import REASONS
from passes.slim import plan_for, slim
from passes.verify import verify
from tests.passes.rules.row import COMPUTED, Bench, Row
from tests.passes.rules.say import say
from tests.passes.rules.table import ROWS

OPAQUE = [type_ for types in REASONS.values() for type_ in types]
NEWEST = 26  # the newest opset that halpc takes


def name_of(row: Row) -> str:
    return f"{row.op}-{row.operands}-{row.opset}".replace(" ", "_")


def couple_bench(
    row: Row, folder: Path, *, zero: bool, weighed: bool, moved: int = -1, bare: int = -1
) -> tuple[Model, Coupling]:
    path = folder / "row.onnx"
    onnx.save(Bench(row, moved=moved).model(zero=zero, weighed=weighed, bare=bare), path)
    model = load(path)
    return model, couple(model.twin)


def random_masks(coupling: Coupling, rng: np.random.Generator) -> dict[str, Mask]:
    masks = {}
    for name, group in coupling.free().items():
        mask = rng.random(group.size) < 0.5
        stays = int(rng.integers(group.size))
        mask[stays] = True
        mask[(stays + 1) % group.size] = group.size == 1  # something always goes
        masks[name] = mask
    return masks


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_equations_are_as_the_row_says(row: Row, tmp_path: Path) -> None:
    model, coupling = couple_bench(row, tmp_path, zero=True, weighed=True)
    node = next(n for n in model.twin.nodes if n.name == "it")
    kinds = [word for word in row.operands.split() if word != "_"]
    present = [t for t in node.inputs if not t.is_empty()]
    inputs = [(t.name, len(t.shape)) for t, kind in zip(present, kinds, strict=False) if kind != "#"]
    assert say(coupling, inputs, [(t.name, len(t.shape)) for t in node.outputs if t.name]) == row.says


@pytest.mark.parametrize("zero, weighed", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("row", [row for row in ROWS if row.runs], ids=name_of)
def test_slicing_equals_zeroing(row: Row, zero: bool, weighed: bool, tmp_path: Path) -> None:
    compare(*couple_bench(row, tmp_path, zero=zero, weighed=weighed))


def data_of(row: Row) -> list[int]:
    """Places of the operands that are computed."""
    return [place for place, word in enumerate(row.operands.split()) if word[0] in f"fqu{COMPUTED}"]


SEVERAL = [(row, place) for row in ROWS if row.runs and len(data_of(row)) > 1 for place in data_of(row)]


@pytest.mark.parametrize("row, moved", SEVERAL, ids=[f"{name_of(row)}-{place}" for row, place in SEVERAL])
def test_slicing_equals_zeroing_where_one_operand_is_not_zero(row: Row, moved: int, tmp_path: Path) -> None:
    compare(*couple_bench(row, tmp_path, zero=True, weighed=False, moved=moved))


BARE = [(row, place) for row in ROWS if row.runs and row.outputs > 1 for place in range(row.outputs)]


@pytest.mark.parametrize("row, bare", BARE, ids=[f"{name_of(row)}-{place}" for row, place in BARE])
def test_slicing_equals_zeroing_where_one_output_meets_no_weights(row: Row, bare: int, tmp_path: Path) -> None:
    compare(*couple_bench(row, tmp_path, zero=True, weighed=True, bare=bare))


def compare(model: Model, coupling: Coupling) -> None:
    """Slim against masked, at random widths: twice, since one choice may be right by accident."""
    for seed in range(2):
        plan = plan_for(model, coupling, random_masks(coupling, np.random.default_rng(seed)))
        pruned = gs.export_onnx(slim(model, coupling, plan), do_type_check=False)
        check_model(pruned, full_check=True)
        verify(model, coupling, plan, pruned, seeds=1)


@pytest.mark.parametrize("type_", OPAQUE)
def test_opaque_operators_pin_every_axis(type_: str) -> None:
    operands = [Operand(name, (4, 6)) for name in "xyz"]
    rule = rule_for("", type_)
    assert rule is not None
    facts = list(rule(Op("it", type_, "", 18, tuple(operands[:2]), tuple(operands[2:]))))
    assert {fact.a for fact in facts if isinstance(fact, Pin)} == {axis for x in operands for axis in x.axes}
    assert all(isinstance(fact.a, Axis) for fact in facts if isinstance(fact, Pin))


def test_constant_of_shape_counts_every_axis() -> None:
    shape, y = Operand("shape", (2,), "int64"), Operand("y", (4, 6))
    rule = rule_for("", "ConstantOfShape")
    assert rule is not None
    assert Count(Input(0), y.axes) in list(rule(Op("it", "ConstantOfShape", "", 18, (shape,), (y,))))


def test_constant_of_shape_keeps_axes_whose_size_is_computed() -> None:
    shape, y = Operand("shape", (2,), "int64", computed=True, varying=frozenset({0})), Operand("y", (4, 6))
    rule = rule_for("", "ConstantOfShape")
    assert rule is not None
    facts = list(rule(Op("it", "ConstantOfShape", "", 18, (shape,), (y,))))
    assert [fact.a for fact in facts if isinstance(fact, Pin)] == [y.axis(0)]


def test_every_rule_has_a_row() -> None:
    rowed = {row.key for row in ROWS} | {("", type_) for type_ in (*OPAQUE, "ConstantOfShape")}
    assert set(rules()) - rowed == set()


def test_every_operator_of_onnx_has_a_rule() -> None:
    operators = {
        s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == "" and s.since_version <= NEWEST
    }
    assert {name for name in operators if rule_for("", name) is None} == set()
