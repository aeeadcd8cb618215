"""Comparing models: intervals cover the truth, noise is told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from halpc.ir.latency import Device, LayerTime, Timing
from halpc.ir.profiler import Feeds, Model
from profilers.bench import bench, judge

NAMES = ["base", "slim"]


def timings(ratio: float, noise: float, seed: int = 0, rounds: int = 40) -> list[Timing]:
    rng = np.random.default_rng(seed)
    moment = np.exp(noise * rng.standard_normal((rounds, 1)))  # shared by the models of a round
    own = np.exp(0.01 * rng.standard_normal((2, rounds, 5)))
    return [Timing((scale * moment * o).reshape(-1), "", rounds) for scale, o in zip((ratio, 1.0), own, strict=True)]


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_noise_that_a_round_shares_does_not_widen_the_speedup(noise: float) -> None:
    base, slim = judge(NAMES, timings(1.5, noise))
    low, high = slim.speedup_interval
    assert low <= slim.speedup <= high
    assert 1.45 < low < 1.5 < high < 1.55
    assert (base.speedup, base.speedup_interval) == (1.0, (1.0, 1.0))
    assert slim.verdict == "faster"


def test_equal_models_are_the_same() -> None:
    verdicts = [judge(NAMES, timings(1.0, 0.05, seed))[1].verdict for seed in range(20)]
    assert verdicts.count("same") >= 15


def test_a_slower_model_is_called_slower() -> None:
    assert judge(NAMES, timings(0.8, 0.01))[1].verdict == "slower"


def test_intervals_widen_with_confidence() -> None:
    data = timings(1.5, 0.1)
    narrow, wide = (judge(NAMES, data, confidence=c)[1].interval_ms for c in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_the_percentile_asked_for_is_the_latency() -> None:
    data = timings(1.5, 0.1)
    assert judge(NAMES, data, percent=95.0)[0].latency_ms == data[0].percentile_ms(95)


class Recorded:
    """A profiler that replays timings."""

    device = Device("cpu", "x", "y", "1", "cpu")

    def __init__(self, replay: list[Timing]) -> None:
        self.replay = replay

    def kernels(self, models: Sequence[onnx.ModelProto], *, repetitions: int = 5) -> NDArray[np.float64]:
        raise NotImplementedError

    def layers(self, model: Model, *, repetitions: int = 20) -> tuple[LayerTime, ...]:
        raise NotImplementedError

    def compare(self, models: Sequence[Model], *, seconds: float = 2.0, feeds: Feeds | None = None) -> list[Timing]:
        return self.replay[: len(models)]


@pytest.mark.parametrize(("noise", "quiet"), [(0.0, True), (0.5, False)])
def test_a_noisy_machine_is_told(noise: float, quiet: bool, caplog: pytest.LogCaptureFixture) -> None:
    model = onnx.ModelProto()
    comparison = bench(Recorded(timings(1.5, noise)), {"base": model, "slim": model})
    assert comparison.quiet == quiet
    assert ("not quiet" in caplog.text) == (not quiet)
    rows = comparison.as_json()["models"]
    assert isinstance(rows, list)
    assert [row["name"] for row in rows] == NAMES
