"""Models that take turns: what counts, on clocks that are simulated."""

from __future__ import annotations

import pytest

from profilers.turns import burst, take_turns


@pytest.mark.parametrize("estimate_s", [1e-5, 2e-4, 1e-3, 2e-3, 8e-3, 0.05])
def test_a_burst_warms_the_caches_and_then_counts_ten_milliseconds(estimate_s: float) -> None:
    runs, dropped = burst(estimate_s)
    assert 1 <= dropped <= 3
    assert dropped == 3 or dropped * estimate_s >= 3e-3
    assert runs - dropped == 40 or (runs - dropped) * estimate_s >= 10e-3 - 1e-9
    assert (runs - dropped - 1) * estimate_s < 10e-3


def test_a_run_beyond_a_tenth_of_a_second_is_not_repeated() -> None:
    assert burst(0.2) == (1, 0)


class Cached:
    """A model whose first two runs behind another model's are slow."""

    last: Cached | None = None

    def __init__(self, seconds: float) -> None:
        self.seconds, self.cold = seconds, 0

    def __call__(self) -> tuple[float, float]:
        if Cached.last is not self:
            Cached.last, self.cold = self, 2
        self.cold -= 1
        took = self.seconds * (1.5 if self.cold >= 0 else 1.0)
        return took, took


@pytest.mark.parametrize("company", [1, 2, 5])
def test_what_counts_of_a_model_does_not_depend_on_its_company(company: int) -> None:
    models = [Cached(1e-3) for _ in range(company)]
    samples, rounds = take_turns(models, seconds=0.0)
    assert rounds >= 7
    assert all(run == (1e-3, 1e-3) for own in samples for run in own)
    assert all(len(own) == len(samples[0]) and len(own) % rounds == 0 for own in samples)
