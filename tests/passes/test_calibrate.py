"""Calibration: kernels and their sum are fitted to networks, robustly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from halpc.ir.problem import CostFunction
from halpc.ir.table import NetworkSample
from passes.latency.calibrate import calibrate, mixes
from passes.latency.clusters import Cluster
from passes.latency.kernels import Kernel, kernel_of
from tests.passes.kernel_models import CHAIN, prepared

NAMES = ("first", "second", "third", "depthwise", "last", "head")


@pytest.fixture
def kernels(tmp_path: Path) -> list[Kernel]:
    model, coupling = prepared(CHAIN, tmp_path)
    found = [kernel_of(Cluster(name, (name,)), model, coupling) for name in NAMES]
    return [kernel for kernel in found if kernel is not None]


def alone(*widths: object) -> np.ndarray:
    return 0.01 + 0.001 * np.prod(np.broadcast_arrays(*(np.asarray(w, dtype=float) for w in widths)), axis=0)


def truth(kernel: Kernel, widths: dict[str, int], factor: float) -> float:
    return float(factor * alone(*(widths[axis.name] for axis in kernel.axes)))  # type: ignore[union-attr]


def networks(
    kernels: list[Kernel], tmp_path: Path, *, layered: bool = True, noise: float = 0.0, spoilt: int = 0
) -> list[NetworkSample]:
    """Networks whose kernels take 1.5 times as long as alone, and 0.3 ms that no width changes."""
    coupling = prepared(CHAIN, tmp_path)[1]
    rng = np.random.default_rng(0)
    found = []
    for i, widths in enumerate(mixes(coupling, 16, 8, seed=0)):
        times = {k.name: truth(k, widths, 1.5) * float(np.exp(noise * rng.standard_normal())) for k in kernels}
        total = (0.3 + sum(times.values())) * (2.0 if i < spoilt else 1.0)
        found.append(NetworkSample("n", widths, total, {**times, "still": 0.2} if layered else {}))
    return found


@pytest.mark.parametrize(("layered", "noise", "spoilt"), [(True, 0, 0), (False, 0, 0), (True, 0.05, 0), (True, 0, 3)])
def test_networks_are_predicted(
    kernels: list[Kernel], tmp_path: Path, layered: bool, noise: float, spoilt: int
) -> None:
    surfaces: dict[str, CostFunction] = {k.signature.key: alone for k in kernels}
    fitted = calibrate(
        kernels, surfaces, networks(kernels, tmp_path, layered=layered, noise=noise, spoilt=spoilt)
    ).cost({})
    clean = networks(kernels, tmp_path)[spoilt:]
    errors = [abs(fitted.at(n.widths) / n.ms - 1) for n in clean]
    assert np.median(errors) < 0.02
    assert max(errors) < (0.02 if not (noise or spoilt) else 0.08)


def test_a_kernel_that_was_never_measured_alone_is_fitted_to_the_size_of_its_result(
    kernels: list[Kernel], tmp_path: Path
) -> None:
    samples = networks(kernels, tmp_path)
    depthwise = next(k for k in kernels if k.name == "depthwise")
    surfaces: dict[str, CostFunction] = {k.signature.key: alone for k in kernels if k is not depthwise}
    fitted = calibrate(kernels, surfaces, samples).cost({})
    charge = next(c for c in fitted.charges if c.name == "depthwise")
    assert charge.axes == depthwise.axes
    shares = [float(charge.at(n.widths)) for n in samples]
    sizes = [n.widths[depthwise.axes[0].name] for n in samples]  # type: ignore[union-attr]
    assert np.corrcoef(shares, sizes)[0, 1] > 0.999
    assert max(abs(fitted.at(n.widths) / n.ms - 1) for n in samples) < 0.05


def test_charges_take_arrays_of_widths(kernels: list[Kernel], tmp_path: Path) -> None:
    surfaces: dict[str, CostFunction] = {k.signature.key: alone for k in kernels}
    fitted = calibrate(kernels, surfaces, networks(kernels, tmp_path)).cost({})
    second = next(c for c in fitted.charges if c.name == "second")
    grid = second.cost(np.arange(8, 33, 8)[:, None], np.arange(8, 65, 8)[None, :])
    assert grid.shape == (4, 8)
    assert (np.diff(grid, axis=0) > 0).all()
    assert (np.diff(grid, axis=1) > 0).all()


def test_networks_that_hinder_themselves_are_predicted(kernels: list[Kernel], tmp_path: Path) -> None:
    surfaces: dict[str, CostFunction] = {k.signature.key: alone for k in kernels}
    whole = networks(kernels, tmp_path)
    knee = float(np.median([n.ms for n in whole]))
    samples = [replace(n, ms=n.ms + 0.4 * max(0.0, n.ms - knee), layers={}) for n in whole]
    fitted = calibrate(kernels, surfaces, samples).cost({})
    assert 0.2 < fitted.more < 0.6
    assert max(abs(fitted.at(n.widths) / n.ms - 1) for n in samples) < 0.04


def test_a_machine_that_is_slow_while_one_network_is_taken_apart_does_not_matter(
    kernels: list[Kernel], tmp_path: Path
) -> None:
    surfaces: dict[str, CostFunction] = {k.signature.key: alone for k in kernels}
    samples = networks(kernels, tmp_path)
    spoilt = [
        replace(n, layers={k: 2.0 * ms for k, ms in n.layers.items()}) if i < 3 else n for i, n in enumerate(samples)
    ]
    fitted = calibrate(kernels, surfaces, spoilt).cost({})
    assert max(abs(fitted.at(n.widths) / n.ms - 1) for n in samples) < 0.04


def test_networks_whose_times_fall_with_their_sum_are_no_error(kernels: list[Kernel], tmp_path: Path) -> None:
    surfaces: dict[str, CostFunction] = {k.signature.key: alone for k in kernels}
    samples = networks(kernels, tmp_path)
    largest = max(n.ms for n in samples)
    fitted = calibrate(kernels, surfaces, [replace(n, ms=2 * largest - n.ms) for n in samples]).cost({})
    assert all(0 < fitted.at(n.widths) < 4 * largest for n in samples)
