"""Which sizes a model that declares its axes open cannot take."""

from __future__ import annotations

import pytest

from passes.verification.sizing import impossible
from tests.passes.patterns import model_of

OWN, OTHER = {"x": (1, 3, 6, 6)}, {"x": (2, 3, 38, 38)}
WEIGHTS = {"a_w": (8, 3, 1, 1), "f_w": (288, 5)}
FLAT = """flat (float[N,3,H,W] x) => (float[N,5] y) {
        a = Conv(x, a_w)
        f = Flatten(a)
        y = MatMul(f, f_w)
    }"""
POOLED = """pooled (float[N,3,H,W] x) => (float[N,8,1,1] y) {
        a = Conv(x, a_w)
        y = GlobalAveragePool(a)
    }"""
NEVER = FLAT.replace("Flatten(a)", "Flatten<axis=2>(a)")


@pytest.mark.parametrize("text, expected", [(FLAT, True), (POOLED, False), (NEVER, False)])
def test_a_size_is_impossible_where_inference_refuses_it_and_takes_the_models_own(text: str, expected: bool) -> None:
    model = model_of(text, WEIGHTS)
    before = model.SerializeToString()
    assert impossible(model, OWN, OTHER) is expected
    assert not impossible(model, OWN, OWN)
    assert model.SerializeToString() == before


def test_a_size_that_the_graph_output_declares_for_its_own_does_not_count() -> None:
    """onnxruntime only warns of it."""
    model = model_of(POOLED.replace("float[N,8,1,1] y", "float[1,8,1,1] y"), WEIGHTS)
    assert not impossible(model, OWN, OTHER)
