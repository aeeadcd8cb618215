"""Profiling where every network is an engine to build, as with TensorRT: few builds, kept at once, none for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from halpc.ir.groups import Coupling
from halpc.ir.latency import Device, LayerTime, Timing
from halpc.ir.model import Model
from halpc.ir.profiler import Feeds
from halpc.ir.profiler import Model as Measured
from halpc.ir.table import LatencyTable, Signature
from passes.couple import couple
from passes.latency.calibrate import network_key
from passes.latency.networks import slimmed
from passes.load import load
from passes.profile import for_now, held_back, profile
from passes.vanish import vanishable
from tests.passes.kernel_models import CHAIN, prepared
from tests.passes.made_up_device import DEVICE, MadeUp, residual
from tests.small import saved

GPU = Device("cuda", "Made up", "fake", "1", "builder")


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Model, Coupling]:
    return prepared(CHAIN, tmp_path)


@dataclass
class Building(MadeUp):
    """The same device, for which every network is an engine to build; somebody gives up after some of these."""

    device: Device = GPU
    patience: int = 1_000
    built: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def compare(self, models: Sequence[Measured], *, seconds: float = 2.0, feeds: Feeds | None = None) -> list[Timing]:
        assert not {str(model) for model in models} & set(self.gone)
        return MadeUp.compare(self, models, seconds=seconds, feeds=feeds)

    def forget(self, models: Sequence[Measured]) -> None:
        self.gone += map(str, models)

    def layers(self, model: Measured, *, repetitions: int = 20) -> tuple[LayerTime, ...]:
        if len(self.built) == self.patience:
            raise KeyboardInterrupt
        self.built.append(str(model))
        return MadeUp.layers(self, model)


def test_engines_that_were_measured_are_kept_a_few_at_a_time(chain: tuple[Model, Coupling], tmp_path: Path) -> None:
    table, key = tmp_path / "t.jsonl", network_key(*chain)
    wanted = len(profile(*chain, LatencyTable(DEVICE), MadeUp(), networks=12).context)
    with pytest.raises(KeyboardInterrupt):
        profile(*chain, LatencyTable.open(table, GPU), Building(patience=1 + 10), networks=12)
    assert len(LatencyTable.open(table, GPU).networks(key)) == 8 < wanted
    rest = Building()
    profile(*chain, LatencyTable.open(table, GPU), rest, networks=12)
    assert len(LatencyTable.open(table, GPU).networks(key)) == wanted
    assert len(rest.built) == wanted - 8


def test_engines_are_kept_until_they_will_not_be_asked_for_again(chain: tuple[Model, Coupling]) -> None:
    device = Building()
    profiled = profile(*chain, LatencyTable(GPU), device, networks=10)
    assert sorted(device.gone) == sorted(str(slimmed(*chain, n.widths)) for n in profiled.context[1:])
    device.asked.clear()
    for_now(*chain, profiled, device, 50)
    held_back(*chain, profiled, device, grid=1, plans=6)
    assert device.asked == [1, 1 + 6]


@pytest.mark.parametrize(("device", "runs"), [(DEVICE, 2), (GPU, 1)])
def test_kernels_are_measured_again_on_processors_only(
    chain: tuple[Model, Coupling], device: Device, runs: int
) -> None:
    table = LatencyTable(device)
    profile(*chain, table, MadeUp(device=device), networks=4)
    found = {sample.runs for about in table.kernels().values() for sample in table.lookup(Signature(about)).values()}
    assert found == {runs}


def test_networks_of_another_grid_do_where_each_is_an_engine_to_build(chain: tuple[Model, Coupling]) -> None:
    for device, anew in ((Building(device=DEVICE), True), (Building(), False)):
        table = LatencyTable(device.device)
        known = len(profile(*chain, table, device, networks=8).context)
        device.built.clear()
        found = profile(*chain, table, device, networks=known, grid=4)
        assert bool(device.built) == (len(found.context) > known) == anew
    profile(*chain, table, device, networks=known + 2, grid=4)
    assert len(device.built) == 2


def test_networks_of_a_coarser_grid_do_where_that_was_profiled_just_now(chain: tuple[Model, Coupling]) -> None:
    device, table = Building(device=DEVICE), LatencyTable(DEVICE)
    known = len(profile(*chain, table, device, networks=8).context)
    device.built.clear()
    found = profile(*chain, table, device, networks=known, grid=4, finer=True)
    assert len(found.context) == known
    assert found.measured > 0
    assert not device.built


def test_networks_with_all_branches_do_not_for_those_that_lack_some(tmp_path: Path) -> None:
    model = load(saved(tmp_path, residual(6)))
    coupling, table, device = couple(model.twin), LatencyTable(GPU), Building()
    profile(model, coupling, table, device, networks=12, grid=4)
    device.built.clear()
    found = profile(model, coupling, table, device, networks=6, vanishing=vanishable(model, coupling))
    assert len(device.built) == len([n for n in found.context if 0 in n.widths.values()]) == 1
