"""The command line: what it writes, what it says, and its exit codes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from halpc.cli import main
from passes.recover import Recovery, recover
from tests.passes.patterns import model_of
from tests.small import SHAPES, model, saved, weights

FILES = {"pruned.onnx", "plan.json", "latency.json", "report.json", "report.html"}
KEYS = {"budget", "baseline", "result", "predicted_latency_ms", "importance_kept", "gap", "verification", "groups",
        "pinned", "stage_seconds", "profiler", "device", "versions"}  # fmt: skip


REFOLDED = """refolded (float[N,3,3,3] x) => (float[N,5] y)
    <int64[1] zero = {0}, int64[1] width = {8}> {
        a = Conv(x, w)
        s = Shape(x)
        batch = Gather(s, zero)
        target = Concat<axis=0>(batch, width)
        flat = Reshape(a, target)
        y = MatMul(flat, v)
    }"""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return saved(tmp_path)


def compiled(network: Path, *arguments: str) -> tuple[int, Path]:
    out = network.parent / "out"
    return main(["compile", str(network), "-o", str(out), "-q", *arguments]), out


def calibration(network: Path, count: int = 128) -> str:
    path = network.parent / "c.npz"
    np.savez(path, x=np.random.default_rng(0).standard_normal((count, 3, 8, 8)).astype(np.float32))
    return str(path)


def test_half_the_macs_are_met_and_everything_is_written(network: Path) -> None:
    code, out = compiled(network, "--macs", "50%")
    assert code == 0
    assert {f.name for f in out.iterdir()} == FILES
    report = json.loads((out / "report.json").read_text())
    assert set(report) >= KEYS
    assert report["result"]["macs"] <= 0.5 * report["baseline"]["macs"]
    assert report["verification"]["passed"]
    onnx.checker.check_model(str(out / "pruned.onnx"))


def test_two_budgets_are_both_met(network: Path) -> None:
    code, out = compiled(network, "--macs", "60%", "--params", "40%")
    report = json.loads((out / "report.json").read_text())
    assert code == 0
    assert report["result"]["macs"] <= 0.6 * report["baseline"]["macs"]
    assert report["result"]["params"] <= 0.4 * report["baseline"]["params"]


@pytest.mark.parametrize("solver", ["halp", "sp-lamp", "joint"])
def test_every_solver_meets_several_budgets(network: Path, solver: str) -> None:
    code, out = compiled(network, "--macs", "60%", "--params", "50%", "--peak-memory", "60%", "--solver", solver)
    report = json.loads((out / "report.json").read_text())
    before, after = report["baseline"], report["result"]
    assert code == 0
    assert after["macs"] <= 0.6 * before["macs"]
    assert after["params"] <= 0.5 * before["params"]
    assert after["peak_memory"] <= 0.6 * before["peak_memory"]
    assert 0 < report["importance_kept"] < 1


@pytest.mark.parametrize("solver", ["halp", "sp-lamp", "joint"])
def test_every_solver_meets_the_budget(network: Path, solver: str) -> None:
    code, out = compiled(network, "--macs", "50%", "--solver", solver)
    report = json.loads((out / "report.json").read_text())
    assert code == 0
    assert report["result"]["macs"] <= 0.5 * report["baseline"]["macs"]


def test_align_and_min_width_are_kept(network: Path) -> None:
    code, out = compiled(network, "--macs", "40%", "--align", "8", "--min-width", "8")
    widths = [line["width"] for line in json.loads((out / "report.json").read_text())["groups"]]
    assert code == 0
    assert all(width % 8 == 0 and width >= 8 for width in widths)


@pytest.mark.parametrize("name", ["net.c", "w1"])
def test_a_frozen_layer_keeps_its_width(network: Path, name: str) -> None:
    code, out = compiled(network, "--macs", "80%", "--freeze", name)
    assert code == 0
    assert [line["name"] for line in json.loads((out / "report.json").read_text())["groups"]] == ["net.a"]


def test_groups_that_an_importance_file_says_nothing_of_are_named(network: Path) -> None:
    np.savez(network.parent / "s.npz", w1=np.arange(24.0))
    code, out = compiled(network, "--macs", "80%", "--importance", str(network.parent / "s.npz"))
    assert code == 0
    notes = json.loads((out / "report.json").read_text())["notes"]
    assert any("no importance reached 1 of 2 groups" in note and "net.a" in note for note in notes)


def test_importance_that_hardly_says_anything_is_named(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = network.parent / "s.npz"

    def notes(a: object, c: object) -> list[str]:
        np.savez(file, w0=a, w1=c)
        code, out = compiled(network, "--macs", "80%", "--importance", str(file))
        assert code == 0
        return list(json.loads((out / "report.json").read_text())["notes"])

    assert any("of 1 of 2 groups is 0 throughout" in note for note in notes(np.zeros(16), np.ones(24)))
    assert any("holds 100.0000% of all importance" in note for note in notes(np.full(16, 1e80), np.ones(24)))
    assert not any("importance" in note for note in notes(np.ones(16), np.ones(24)))
    np.savez(file, w0=np.zeros(16), w1=np.zeros(24))
    assert compiled(network, "--macs", "80%", "--importance", str(file))[0] == 3
    assert "every score that reaches a group is 0" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(network: Path) -> None:
    code, out = compiled(network, "--macs", "50%", "--dry-run")
    assert code == 0
    assert not out.exists()


def test_a_plan_is_continued_and_never_gives_a_channel_back(network: Path) -> None:
    compiled(network, "--macs", "70%")
    plan = network.parent / "first.json"
    os.replace(network.parent / "out" / "plan.json", plan)
    code, out = compiled(network, "--macs", "40%", "--resume", str(plan))
    assert code == 0
    before = {g["name"]: set(g["kept"]) for g in json.loads(plan.read_text())["groups"]}
    after = {g["name"]: set(g["kept"]) for g in json.loads((out / "plan.json").read_text())["groups"]}
    assert all(after[name] <= kept for name, kept in before.items())


def test_what_is_kept_of_a_plan_that_is_continued_is_a_share_of_the_whole(network: Path) -> None:
    compiled(network, "--macs", "40%")
    once = json.loads((network.parent / "out" / "report.json").read_text())
    plan = network.parent / "first.json"
    os.replace(network.parent / "out" / "plan.json", plan)
    for budget in ("80%", "40%", "30%"):
        _, out = compiled(network, "--macs", budget, "--resume", str(plan))
        again = json.loads((out / "report.json").read_text())
        assert 0 < again["importance_kept"] <= once["importance_kept"] + 1e-9 < 1


def test_a_plan_is_continued_on_weights_that_were_trained_since(network: Path) -> None:
    compiled(network, "--macs", "70%")
    plan = network.parent / "first.json"
    os.replace(network.parent / "out" / "plan.json", plan)
    saved(network.parent, model(arrays=weights(SHAPES, seed=1)))
    code, out = compiled(network, "--macs", "40%", "--resume", str(plan))
    assert code == 0
    assert any("other weights" in note for note in json.loads((out / "report.json").read_text())["notes"])
    before = {g["name"]: set(g["kept"]) for g in json.loads(plan.read_text())["groups"]}
    after = {g["name"]: set(g["kept"]) for g in json.loads((out / "plan.json").read_text())["groups"]}
    assert all(after[name] <= kept for name, kept in before.items())


def test_a_plan_is_not_continued_on_what_it_made(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = compiled(network, "--macs", "70%")
    plan, pruned = out / "plan.json", out / "pruned.onnx"
    again = ["compile", str(pruned), "-o", str(network.parent / "again"), "-q", "--macs", "80%", "--resume", str(plan)]
    assert main(again) == 3
    said = capsys.readouterr().err
    assert "another network" in said
    assert "pruned already" in said


@pytest.mark.parametrize("budget", ["0%", "-5%", "5 parsecs", "200%"])
def test_a_budget_that_makes_no_sense_is_a_usage_error(
    network: Path, budget: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compiled(network, f"--macs={budget}")[0] == 2
    assert "expected a budget such as" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--macs", "50%", "--freeze", "nothing*"],
        ["--macs", "50%", "--threads", "0"],
        ["--macs", "50%", "--score", "energy"],
        ["--no-such-option"],
    ],
)
def test_arguments_that_make_no_sense_are_usage_errors(network: Path, arguments: list[str]) -> None:
    assert compiled(network, *arguments)[0] == 2


def test_a_budget_below_the_floor_is_infeasible_and_says_the_floor(
    network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = compiled(network, "--macs", "0.01%")
    assert code == 4
    assert "floor" in capsys.readouterr().err
    assert not out.exists()


def _bad_files(folder: Path) -> dict[str, Path]:
    whole = saved(folder).read_bytes()
    files = {
        "text": b"hello", "empty": b"", "zeros": bytes(1000), "truncated": whole[: len(whole) // 2],
        "json": b'{"a": 1}',
    }  # fmt: skip
    for name, content in files.items():
        (folder / f"{name}.onnx").write_bytes(content)
    proto = model()
    onnx.save(proto, str(folder / "external.onnx"), save_as_external_data=True, location="gone.data", size_threshold=0)
    (folder / "gone.data").unlink()
    wrong = model()
    wrong.opset_import[0].version = 99
    (folder / "opset.onnx").write_bytes(wrong.SerializeToString())
    odd = model()
    odd.graph.node[0].op_type = "NoSuchOperator"
    (folder / "operator.onnx").write_bytes(odd.SerializeToString())
    return {name: folder / f"{name}.onnx" for name in (*files, "external", "opset", "operator", "missing")}


def test_every_bad_model_file_is_one_line_and_exit_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, path in _bad_files(tmp_path).items():
        assert compiled(path, "--macs", "50%")[0] == 3, name
        said = capsys.readouterr().err.strip()
        assert len(said.splitlines()) == 1, said
        assert str(path) in said, said


def test_a_folder_that_is_a_file_is_refused_before_anything_is_done(network: Path) -> None:
    out = network.parent / "out"
    out.write_text("mine")
    assert compiled(network, "--macs", "50%")[0] == 3
    assert out.read_text() == "mine"


def test_a_failure_while_writing_leaves_what_was_there(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, out = compiled(network, "--macs", "70%")
    before = {f.name: f.read_bytes() for f in out.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("halpc.compile.write_json", full)
    assert compiled(network, "--macs", "40%")[0] == 3
    assert {f.name: f.read_bytes() for f in out.iterdir()} == before


def test_an_interrupt_is_130_and_leaves_nothing(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("halpc.compile.verify", interrupted)
    code, out = compiled(network, "--macs", "50%")
    assert code == 130
    assert not out.exists()
    assert not list(network.parent.glob(".out*"))


def test_a_verification_failure_is_5_and_writes_nothing(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("passes.verify.differences", lambda a, b: [1.0] * len(a))
    monkeypatch.setattr("passes.verify.NOISE_FACTOR", 0.0)
    code, out = compiled(network, "--macs", "50%")
    assert code == 5
    assert not out.exists()


def test_inspect_lists_groups_and_reasons(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(network), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {g["name"]: g["size"] for g in found["groups"] if g["pin"] is None} == {"net.a": 16, "net.c": 24}
    assert any("graph output" in g["pin"] for g in found["groups"] if g["pin"])
    assert found["params"] == sum(int(np.prod(shape)) for shape in SHAPES.values())


def test_inspect_leaves_out_what_only_serves_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model_of(REFOLDED, {"w": (8, 3, 3, 3), "v": (8, 5)}), path)
    assert main(["inspect", str(path), "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    assert sorted((g["size"], g["pin"] is None) for g in groups) == [(3, False), (5, False), (8, True)]


def test_inspect_says_what_the_macs_leave_out(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proto = onnx.load(network)
    next(node for node in proto.graph.node if node.op_type == "Relu").CopyFrom(
        onnx.helper.make_node("Inverse", ["a"], ["r"], "odd", domain="com.microsoft")
    )
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(proto, network)
    assert main(["inspect", str(network)]) == 0
    assert "MACs do not count com.microsoft::Inverse (1x)" in capsys.readouterr().out
    assert main(["inspect", str(network), "--json"]) == 0
    assert "Inverse" in json.loads(capsys.readouterr().out)["notes"][0]


@pytest.mark.parametrize("suffix", ["graphml", "dot", "svg"])
def test_the_coupling_can_be_drawn(network: Path, suffix: str) -> None:
    path = network.parent / f"graph.{suffix}"
    assert main(["inspect", str(network), "--graph", str(path)]) == 0
    assert "net.a" in path.read_text()


def test_explain_says_why_two_layers_are_tied(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(network), "net.a", "net.e"]) == 0
    assert "Add" in capsys.readouterr().out
    assert main(["explain", str(network), "net.y"]) == 0
    assert "graph output" in capsys.readouterr().out


def test_explain_names_the_nearest_layer(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(network), "net.aa"]) == 2
    assert "nearest" in capsys.readouterr().err


def test_schedule_falls_geometrically(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", "--latency", "25%", "--steps", "2"]) == 0
    assert capsys.readouterr().out.split() == ["50%", "25%"]


def test_a_compile_without_a_latency_budget_says_that_nothing_was_measured(
    network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", str(network), "--macs", "60%", "--dry-run"]) == 0
    assert "latency     not measured, since no budget is on it" in capsys.readouterr().out


def test_targets_of_a_schedule_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", "--latency", "99.999%", "--steps", "3"]) == 0
    assert capsys.readouterr().out.split() == ["99.9997%", "99.9993%", "99.999%"]


def test_calibration_inputs_recover_and_are_reported(network: Path) -> None:
    code, out = compiled(network, "--macs", "50%", "--calibration", calibration(network))
    recovery = json.loads((out / "report.json").read_text())["recovery"]
    assert code == 0
    assert recovery["error_after"] < recovery["error_before"]


@pytest.mark.parametrize(("how", "actions"), [("bias", {"bias", "kept"}), ("refit", {"refit", "bias", "kept"})])
def test_recover_says_what_may_be_adjusted(network: Path, how: str, actions: set[str]) -> None:
    code, out = compiled(network, "--macs", "50%", "--calibration", calibration(network), "--recover", how)
    layers = json.loads((out / "report.json").read_text())["recovery"]["layers"]
    assert code == 0
    assert how in {layer["action"] for layer in layers} <= actions


@pytest.mark.parametrize("how", [("--recover", "off"), ("--no-recover",)])
def test_recovery_can_be_switched_off(network: Path, how: tuple[str, ...]) -> None:
    code, out = compiled(network, "--macs", "50%", "--calibration", calibration(network, count=4), *how)
    assert code == 0
    assert json.loads((out / "report.json").read_text())["recovery"] is None


def test_too_few_samples_are_refused_before_anything_is_measured(
    network: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("halpc.compile.couple", lambda *args, **kw: pytest.fail("went on"))
    assert compiled(network, "--macs", "50%", "--calibration", calibration(network, count=5))[0] == 3
    assert "at least 8 are needed" in capsys.readouterr().err


def test_a_result_that_nothing_was_recovered_of_says_so(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(network), "--macs", "50%", "-o", str(network.parent / "out")]) == 0
    assert "recovered   nothing, and accuracy may be lost" in capsys.readouterr().out


@pytest.mark.parametrize("how, unlike", [("refit", False), ("bias", True)])
def test_outputs_that_are_hardly_the_originals_are_noted_whatever_importance_is_kept(
    network: Path, how: str, unlike: bool
) -> None:
    given = ("--calibration", calibration(network), "--recover", how)
    code, out = compiled(network, "--macs", "2%", "--align", "1", *given)
    report = json.loads((out / "report.json").read_text())
    assert code == 0
    assert (report["recovery"]["error_after"] > 0.5) == unlike
    assert any("of their variance on held-back inputs" in note for note in report["notes"]) == unlike


def test_calibration_of_another_name_is_refused(network: Path) -> None:
    np.savez(network.parent / "c.npz", images=np.zeros((64, 3, 8, 8), np.float32))
    assert compiled(network, "--macs", "50%", "--calibration", str(network.parent / "c.npz"))[0] == 3


def test_weights_of_a_saved_model_are_never_changed_in_place(network: Path) -> None:
    before = network.read_bytes()
    compiled(network, "--macs", "50%")
    assert network.read_bytes() == before
    assert set(weights(SHAPES)) == set(SHAPES)


def test_an_empty_output_name_is_not_the_current_folder(
    network: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(network.parent)
    before = sorted(network.parent.iterdir())
    assert main(["compile", str(network), "--macs", "50%", "-o", ""]) == 2
    assert "an empty name" in capsys.readouterr().err
    assert sorted(network.parent.iterdir()) == before


@pytest.mark.parametrize(
    "error, alike, said",
    [
        (3.9e17, False, "are off by more than 10 times their variance on held-back"),
        (float("inf"), False, "are NaN or infinite where they were numbers on held-back"),
        (0.8, True, "are off by 80% of their mean square on held-back"),
        (0.0, True, "the network gives the same for all held-back inputs"),
    ],
)
def test_no_percentage_of_next_to_no_variance_is_given(
    network: Path, monkeypatch: pytest.MonkeyPatch, error: float, alike: bool, said: str
) -> None:
    def recovered(*args: Any, **kw: Any) -> Recovery:
        return replace(recover(*args, **kw), error_after=error, alike=alike)

    monkeypatch.setattr("halpc.compile.recover", recovered)
    code, out = compiled(network, "--macs", "50%", "--calibration", calibration(network))
    assert code == 0
    assert any(said in note for note in json.loads((out / "report.json").read_text())["notes"])
