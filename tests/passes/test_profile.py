"""The latency model against a device whose costs are known: found again, kept, resumed, refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import passes.latency.networks
import passes.memory
import passes.profile
from halpc.errors import TableError
from halpc.ir.groups import Coupling
from halpc.ir.latency import LayerTime, Timing
from halpc.ir.model import Model
from halpc.ir.profiler import Feeds
from halpc.ir.profiler import Model as Measured
from halpc.ir.table import LatencyTable, Signature
from passes.couple import couple
from passes.latency.calibrate import mixes, network_key, ramps
from passes.load import load
from passes.profile import held_back, profile
from passes.vanish import vanishable
from tests.passes.kernel_models import BRANCHES, CHAIN, prepared
from tests.passes.made_up_device import DEVICE, MadeUp, device_ms, residual
from tests.small import model as made
from tests.small import saved, weights


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Model, Coupling]:
    return prepared(CHAIN, tmp_path)


@dataclass
class Slowing(MadeUp):
    """The same device, each time a tenth slower than the time before."""

    turns: int = 0

    def kernels(self, models: Sequence[onnx.ModelProto], *, repetitions: int = 5) -> NDArray[np.float64]:
        self.turns += 1
        return MadeUp.kernels(self, models) * 1.1 ** (self.turns - 1)

    def compare(self, models: Sequence[Measured], *, seconds: float = 2.0, feeds: Feeds | None = None) -> list[Timing]:
        slower = 1.1 ** len(self.asked)
        timings = MadeUp.compare(self, models, seconds=seconds, feeds=feeds)
        return [Timing(timing.samples_ms * slower, "made up") for timing in timings]


@dataclass
class Lucky(MadeUp):
    """The same device, with a cache: one run in eight finds everything there, and then widths hardly matter."""

    def compare(self, models: Sequence[Measured], *, seconds: float = 2.0, feeds: Feeds | None = None) -> list[Timing]:
        timings = MadeUp.compare(self, models, seconds=seconds, feeds=feeds)
        return [Timing(np.append(np.sqrt(t.samples_ms[0]) / 10, np.full(7, t.samples_ms[0])), "", 8) for t in timings]


def test_held_back_plans_of_large_networks_are_measured_a_few_at_a_time(
    chain: tuple[Model, Coupling], monkeypatch: pytest.MonkeyPatch
) -> None:
    profiled = profile(*chain, LatencyTable(DEVICE), MadeUp(), networks=10)
    together = held_back(*chain, profiled, MadeUp())
    monkeypatch.setattr(passes.latency.networks, "_ARRAYS_BYTES", 4 * passes.memory.widest_bytes(chain[0].twin))
    device = MadeUp()
    apart = held_back(*chain, profiled, device)
    assert device.asked == [4] * 6
    assert apart.measured_ms == pytest.approx(together.measured_ms)
    assert apart.speed == pytest.approx(together.speed, rel=0.005)


@dataclass
class Nameless(MadeUp):
    """The same device; its layers do not say which nodes they are made of."""

    def layers(self, model: Measured, *, repetitions: int = 20) -> tuple[LayerTime, ...]:
        return tuple(replace(layer, nodes=()) for layer in MadeUp.layers(self, model))


def test_a_runtime_that_names_no_nodes_is_measured_by_rule_of_thumb(chain: tuple[Model, Coupling]) -> None:
    told, untold = LatencyTable(DEVICE), LatencyTable(DEVICE)
    expected = profile(*chain, told, MadeUp(layered=False), networks=10)
    found = profile(*chain, untold, Nameless(), networks=10)
    assert len(found.cost.charges) == len(expected.cost.charges) > 0
    assert found.cost.at({}) == pytest.approx(expected.cost.at({}))


def test_a_budget_on_the_median_is_predicted_from_medians(chain: tuple[Model, Coupling]) -> None:
    cost = profile(*chain, LatencyTable(DEVICE), Lucky(), networks=10).cost
    half = {name: group.size // 2 for name, group in chain[1].free().items()}
    whole, slim = (device_ms(chain, widths) for widths in ({}, half))
    assert cost.at(half) / cost.at({}) == pytest.approx(slim / whole, rel=0.03)


@pytest.mark.parametrize("what", ["_TOGETHER_BYTES", "_ARRAYS_BYTES"])
def test_large_networks_are_measured_a_few_at_a_time_and_at_one_speed(
    chain: tuple[Model, Coupling], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    together, apart = LatencyTable(DEVICE), LatencyTable(DEVICE)
    profile(*chain, together, MadeUp(), networks=7)
    one = {"_TOGETHER_BYTES": chain[0].size_bytes, "_ARRAYS_BYTES": passes.memory.widest_bytes(chain[0].twin)}
    monkeypatch.setattr(passes.latency.networks, what, 3 * one[what])
    device = Slowing()
    assert profile(*chain, apart, device, networks=7).measured > 0
    assert device.asked == [3, 4, 2, 3, 3]  # then once more, but for the last, which is left over by itself
    key = network_key(*chain)
    expected = {tuple(n.widths.items()): n.ms for n in together.networks(key)}
    assert {tuple(n.widths.items()): n.ms for n in apart.networks(key)} == pytest.approx(expected)


@dataclass
class Crowded(MadeUp):
    """The same device; at first a neighbour fills the caches, which makes a network the slower the longer it takes."""

    def compare(self, models: Sequence[Measured], *, seconds: float = 2.0, feeds: Feeds | None = None) -> list[Timing]:
        timings = MadeUp.compare(self, models, seconds=seconds, feeds=feeds)
        more = 0.1 if len(self.asked) == 1 else 0.0
        return [Timing(t.samples_ms * (1 + more * t.samples_ms[0]), "made up") for t in timings]


def test_a_crowded_moment_is_halved_by_measuring_networks_once_more(chain: tuple[Model, Coupling]) -> None:
    table = LatencyTable(DEVICE)
    profile(*chain, table, Crowded(), networks=9)
    known = table.networks(network_key(*chain))
    truth = np.array([device_ms(chain, n.widths) for n in known])
    off = np.log([n.ms for n in known]) - np.log(truth)
    crowded = np.log(1 + 0.1 * truth)
    assert np.ptp(off) == pytest.approx(np.ptp(crowded) / 2, rel=0.1)
    assert {n.runs for n in known} == {6}


@pytest.mark.parametrize("text", [CHAIN, BRANCHES])
@pytest.mark.parametrize("layered", [True, False])
def test_the_cost_of_a_device_is_found_again(tmp_path: Path, text: str, layered: bool) -> None:
    model, coupling = prepared(text, tmp_path)
    device = MadeUp(layered)
    profiled = profile(model, coupling, LatencyTable(DEVICE), device, networks=10)
    seen = held_back(model, coupling, profiled, device)
    assert seen.median_error < 0.01
    assert seen.p90_error < 0.03
    assert seen.r2 > 0.95
    assert profiled.fit.median_error < 0.03


def test_what_a_network_takes_without_branches_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(saved(tmp_path, residual(6)))
    coupling = couple(model.twin)
    gone = vanishable(model, coupling)
    assert len(gone) == 6
    widths = [{g: 0 if i < count else 48 for i, g in enumerate(gone)} for count in (3, 6)]
    taken = np.array([device_ms((model, coupling), w) for w in widths])
    table = LatencyTable(DEVICE)
    cost = profile(model, coupling, table, MadeUp(), vanishing=gone).cost
    lacking = [n for n in table.networks(network_key(model, coupling)) if 0 in n.widths.values()]
    assert [list(n.widths.values()).count(0) for n in lacking] == [2, 4, 6]
    kept = profile(model, coupling, table, vanishing=())  # as --no-vanish has it
    assert [n for n in kept.context if 0 in n.widths.values()] == []
    assert (kept.measured, kept.lacking) == (0, 0)
    off = np.abs([cost.at(w) for w in widths] / taken - 1)
    assert off[0] < 0.15
    assert off[1] < 0.02
    monkeypatch.setattr(passes.profile, "LACKING", 100)
    guess = profile(model, coupling, LatencyTable(DEVICE), MadeUp(), vanishing=gone).cost
    assert (np.abs([guess.at(w) for w in widths] / taken - 1) > off).all()


def test_mixes_of_a_network_of_no_samples_are_made(tmp_path: Path) -> None:
    text = """
<ir_version: 9, opset_import: ["" : 17]> n (float[0,16] x) => (float[0,8] y) <float[16,64] w, float[64,8] v>
{ a = MatMul (x, w) b = Relu (a) y = MatMul (b, v) }
"""
    path = saved(tmp_path, made(text, weights({"w": (16, 64), "v": (64, 8)})))
    assert len(ramps(couple(load(path).twin), 3, 8, seed=0)) == 3


def test_the_staircase_of_the_device_becomes_the_groups_step(chain: tuple[Model, Coupling]) -> None:
    steps = profile(*chain, LatencyTable(DEVICE), MadeUp(), networks=4).cost.steps
    assert set(steps) == set(chain[1].free())
    assert all(step == 16 for step in steps.values())


def test_a_second_run_measures_nothing_and_says_the_same(chain: tuple[Model, Coupling], tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    first = profile(*chain, LatencyTable.open(path, DEVICE), MadeUp(), networks=6)
    device = MadeUp()
    again = profile(*chain, LatencyTable.open(path, DEVICE), device, networks=6)
    assert (again.measured, device.measured, device.asked) == (0, 0, [])
    assert first.measured == first.samples + len(first.context)
    widths = mixes(chain[1], 3, 8, seed=5)[2]
    assert again.cost.at(widths) == first.cost.at(widths)
    assert again.cost.steps == first.cost.steps


def test_a_table_is_enough_without_a_device(chain: tuple[Model, Coupling], tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    first = profile(*chain, LatencyTable.open(path, DEVICE), MadeUp(), networks=6)
    assert profile(*chain, LatencyTable.load(path)).cost.at({}) == first.cost.at({})


def test_a_table_of_another_model_is_refused_without_a_device(chain: tuple[Model, Coupling], tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    profile(*chain, LatencyTable.open(path, DEVICE), MadeUp(), networks=4)
    other = prepared(BRANCHES, tmp_path)
    with pytest.raises(TableError, match="does not fit the model"):
        profile(*other, LatencyTable.load(path))


@pytest.mark.parametrize("when", [0.3, 0.8])
def test_an_interrupted_run_keeps_what_it_measured(
    chain: tuple[Model, Coupling], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: float
) -> None:
    monkeypatch.setattr("passes.profile._BATCH", 8)
    path = tmp_path / "t.jsonl"
    whole = MadeUp()
    at_once = profile(*chain, LatencyTable(DEVICE), whole, networks=4)
    stopped = MadeUp(stop_after=round(whole.measured * when))
    with pytest.raises(KeyboardInterrupt):
        profile(*chain, LatencyTable.open(path, DEVICE), stopped, networks=4)
    kept = len(LatencyTable.open(path, DEVICE))
    done = profile(*chain, LatencyTable.open(path, DEVICE), MadeUp(), networks=4)
    assert kept > 0
    assert done.measured == at_once.measured - kept
    assert done.samples == at_once.samples
    assert done.cost.at({}) == pytest.approx(at_once.cost.at({}))


def test_kernels_are_kept_at_the_speed_of_the_first_whatever_the_machine_does_later(
    chain: tuple[Model, Coupling], monkeypatch: pytest.MonkeyPatch
) -> None:
    steady, slower = LatencyTable(DEVICE), LatencyTable(DEVICE)
    profile(*chain, steady, MadeUp(), networks=4)
    monkeypatch.setattr("passes.profile._BATCH", 8)
    device = Slowing()
    profile(*chain, slower, device, networks=4)
    assert device.turns > 5
    for key, about in steady.kernels().items():
        mine, theirs = steady.lookup(Signature(about)), slower.lookup(Signature(about))
        assert [theirs[w].ms for w in mine] == pytest.approx([s.ms for s in mine.values()], rel=1e-5), key


def test_models_share_what_their_kernels_have_in_common(chain: tuple[Model, Coupling], tmp_path: Path) -> None:
    table = LatencyTable(DEVICE)
    profile(*chain, table, MadeUp(), networks=4)
    device = MadeUp()
    longer = prepared(CHAIN.replace("float[1,10] y", "float[1,12] y").replace("float[10,64]", "float[12,64]"), tmp_path)
    profile(*longer, table, device, networks=4)
    assert 0 < device.measured < 0.3 * len(table)


def test_progress_ends_with_everything_done(chain: tuple[Model, Coupling]) -> None:
    seen: dict[str, tuple[int, int]] = {}
    profile(
        *chain,
        LatencyTable(DEVICE),
        MadeUp(),
        networks=4,
        progress=lambda stage, done, total: seen.__setitem__(stage, (done, total)),
    )
    assert {"profile: kernels", "profile: networks"} <= seen.keys()
    assert seen["profile: kernels"][0] == seen["profile: kernels"][1]
    assert seen["profile: networks"][0] == seen["profile: networks"][1]


def test_mixes_cover_every_group_and_every_size_of_network(chain: tuple[Model, Coupling]) -> None:
    coupling = chain[1]
    found = mixes(coupling, 20, 8, seed=0)
    assert len(found) == 20
    assert found[0] == {name: group.size for name, group in coupling.free().items()}
    assert found == mixes(coupling, 20, 8, seed=0)
    for name, group in coupling.free().items():
        shares = [mix[name] / group.size for mix in found]
        assert min(shares) < 0.45
        assert max(shares[1:]) > 0.8
        assert all(mix[name] % 8 == 0 or mix[name] == group.size for mix in found)
    levels = [np.mean([mix[n] / g.size for n, g in coupling.free().items()]) for mix in found[1:]]
    assert min(levels) < 0.45
    assert max(levels) > 0.75


HALVING = """
<ir_version: 9, opset_import: ["": 17]>
halving (float[1,3,32,32] x) => (float[1,8,2,2] y)
<float[64,3,3,3] w1, float[64,64,3,3] w2, float[64,64,3,3] w3, float[64,64,3,3] w4, float[8,64,1,1] w5>
{
  [c1] a1 = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w1)
  [r1] b1 = Relu (a1)
  [c2] a2 = Conv <pads = [1,1,1,1], strides = [2,2]> (b1, w2)
  [r2] b2 = Relu (a2)
  [c3] a3 = Conv <pads = [1,1,1,1], strides = [2,2]> (b2, w3)
  [r3] b3 = Relu (a3)
  [c4] a4 = Conv <pads = [1,1,1,1], strides = [2,2]> (b3, w4)
  [r4] b4 = Relu (a4)
  [c5] y = Conv (b4, w5)
}
"""


def test_some_networks_are_narrow_where_positions_are_many_and_full_where_they_are_few(tmp_path: Path) -> None:
    model, coupling = prepared(HALVING, tmp_path)
    found = ramps(coupling, 3, 8, seed=0)
    assert found == ramps(coupling, 3, 8, seed=0)
    assert all(width % 8 == 0 for mix in found for width in mix.values())
    assert all(mix["c1"] < mix["c3"] <= mix["c4"] and mix["c1"] <= mix["c2"] for mix in found)
    assert all(mix["c1"] <= 40 for mix in found)
    assert found[0]["c2"] == found[0]["c3"] == found[0]["c4"] == 64
    assert found[2]["c2"] < 48
    context = [n.widths for n in profile(model, coupling, LatencyTable(DEVICE), MadeUp(), networks=12).context]
    assert len(context) == 12
    assert all(mix in context for mix in ramps(coupling, 2, 8, seed=0))


def test_a_network_is_known_by_its_shape_not_by_its_weights(chain: tuple[Model, Coupling], tmp_path: Path) -> None:
    model, coupling = chain
    wider = prepared(CHAIN.replace("16,16] x", "24,24] x"), tmp_path)
    assert network_key(model, coupling) != network_key(*wider)
    for tensor in model.twin.tensors().values():
        if tensor.name == "w2":
            tensor.values = tensor.values * 2
    assert network_key(model, coupling) == network_key(*prepared(CHAIN, tmp_path))


@pytest.mark.slow
def test_onnxruntime_on_this_machine_is_predicted(chain: tuple[Model, Coupling]) -> None:
    from profilers.onnxrt import OnnxRuntimeProfiler

    device = OnnxRuntimeProfiler()
    profiled = profile(*chain, LatencyTable(device.device), device, networks=8)
    small = dict.fromkeys(chain[1].free(), 8)
    assert profiled.cost.at(small) < profiled.cost.at({})
    assert len(profiled.cost.charges) >= 5
