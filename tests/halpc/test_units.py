"""Budgets and shapes as people write them."""

from __future__ import annotations

import pytest

from halpc.errors import UsageError
from halpc.units import parse_budget, parse_shape, parse_share, spell_count, spell_ms, spell_over


@pytest.mark.parametrize(
    "text, amount", [("5ms", 5.0), ("800us", 0.8), ("0.002s", 2.0), ("1,5ms", 1.5), (" 5 ms ", 5.0), ("1e3us", 1.0)]
)
def test_a_latency_is_read_in_milliseconds(text: str, amount: float) -> None:
    budget = parse_budget("latency", text)
    assert budget.share is None
    assert budget.amount == pytest.approx(amount)
    assert budget.limit(100.0) == pytest.approx(amount)


@pytest.mark.parametrize("text, share", [("60%", 0.6), ("1.6x", 0.625), ("100%", 1.0), ("1x", 1.0)])
def test_a_share_is_of_the_baseline(text: str, share: float) -> None:
    assert parse_budget("latency", text).limit(80.0) == pytest.approx(80 * share)


@pytest.mark.parametrize(
    "text", ["0ms", "-5%", "5 parsecs", "", "ms", "5", "120%", "0.5x", "nan", "inf ms", "5ms5", "%"]
)
def test_what_is_no_latency_budget_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="expected a budget such as 5ms"):
        parse_budget("latency", text)


def test_counts_take_metric_suffixes() -> None:
    assert parse_budget("macs", "120M").amount == 120e6
    assert parse_budget("params", "2.8M").amount == pytest.approx(2.8e6)


def test_a_shape_is_read_from_its_last_colon() -> None:
    assert parse_shape("a:b:1x3x224x224") == ("a:b", (1, 3, 224, 224))


@pytest.mark.parametrize("text", ["x", "x:", "x:1x0", "x:1,3", ":1x3", "x:1x-3"])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected NAME"):
        parse_shape(text)


def test_a_share_may_be_written_with_or_without_percent() -> None:
    assert parse_share("--max-drop", "1%") == parse_share("--max-drop", "0.01") == 0.01
    with pytest.raises(UsageError):
        parse_share("--max-drop", "2")


@pytest.mark.parametrize(
    "resource, text, said",
    [
        ("macs", "300,000", "comma"), ("latency", "1,500us", "comma"), ("macs", "0.5", "that is 50%"),
        ("latency", "0.6", "that is 60%"), ("flops", "50%", "expected one of latency, macs"),
        ("peak_memory", "50%", "peak-memory"), ("macs", 0.5, "text such as"),
    ],
)  # fmt: skip
def test_a_budget_that_would_be_something_else_is_refused(resource: str, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_budget(resource, text)


def test_both_letters_for_micro_are_one() -> None:
    assert parse_budget("latency", "20\u03bcs").amount == parse_budget("latency", "20\u00b5s").amount == 0.02
    assert parse_budget("macs", "1,5M").amount == 1.5e6


def test_figures_have_three_digits() -> None:
    assert spell_ms(0.8123) == "812 us"
    assert spell_ms(12.34) == "12.3 ms"
    assert spell_count(138_700_000) == "139 M"


@pytest.mark.parametrize(
    "ratio, said",
    [(1.032, "3.2%"), (1.0004, "0.04%"), (1.0, "less than 0.01%"), (1.000049, "less than 0.01%"), (1.001, "0.1%"),
     (2.5, "150.0%")],
)  # fmt: skip
def test_what_is_over_is_never_nothing_over(ratio: float, said: str) -> None:
    assert spell_over(ratio) == said
