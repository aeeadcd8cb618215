"""A latency budget on a small network, measured for real with onnxruntime on this machine's CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from halpc.cli import main
from tests.small import RESIDUAL, model, saved, weights

WIDE = {"w0": (32, 3, 3, 3), "b0": (32,), "w1": (48, 32, 3, 3), "b1": (48,), "w2": (32, 48, 3, 3), "b2": (32,),
        "w3": (5, 32), "b3": (5,)}  # fmt: skip


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HALPC_CACHE", str(tmp_path / "cache"))
    return saved(tmp_path, model(RESIDUAL.replace("8, 8]", "48, 48]"), weights(WIDE)))


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `halpc profile` wrote of the network, for all who read it."""
    folder = tmp_path_factory.mktemp("profile")
    path = saved(folder, model(RESIDUAL.replace("8, 8]", "48, 48]"), weights(WIDE)))
    assert main(["profile", str(path), "-o", str(folder / "t"), "--profiler", "onnxruntime", "-q"]) == 0
    return (folder / "t").read_text()


@pytest.fixture
def narrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of 16 and 24 channels, which takes little measuring."""
    monkeypatch.setenv("HALPC_CACHE", str(tmp_path / "cache"))
    return saved(tmp_path)


def compiled(network: Path, name: str, *arguments: str) -> tuple[int, Path]:
    out = network.parent / name
    device = () if "--profiler" in arguments else ("--profiler", "onnxruntime")
    return main(["compile", str(network), "-o", str(out), "-q", *device, *arguments]), out


def test_a_latency_budget_is_measured_and_the_second_one_measures_no_kernels(network: Path) -> None:
    code, out = compiled(network, "first", "--latency", "60%")
    report = json.loads((out / "report.json").read_text())
    assert code == (0 if report["result"]["latency_ms"] <= report["budget"]["latency"]["limit"] else 7)
    assert report["result"]["latency_ms"] < report["baseline"]["latency_ms"]
    assert report["result"]["macs"] < 0.9 * report["baseline"]["macs"]
    assert report["rounds"]
    assert all(r["measured_ms"] > 0 and r["predicted_ms"] > 0 for r in report["rounds"])
    assert report["profiler"]["measured_now"] > 0
    _, again = compiled(network, "second", "--latency", "80%")
    assert json.loads((again / "report.json").read_text())["profiler"]["measured_now"] == 0


def test_a_percentile_is_what_is_measured_and_said(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = network.parent / "p95"
    code = main(
        ["compile", str(network), "-o", str(out), "--profiler", "onnxruntime", "--latency", "60%", "--percentile", "95"]
    )
    report = json.loads((out / "report.json").read_text())
    assert code == (0 if report["result"]["latency_ms"] <= report["budget"]["latency"]["limit"] else 7)
    assert report["profiler"]["percentile"] == 95
    assert "latency p95 60% = " in capsys.readouterr().out
    assert "latency p95" in (out / "report.html").read_text()


def test_a_table_travels_to_a_machine_that_measures_nothing(
    network: Path, once: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = network.parent / "table.jsonl"
    table.write_text(once)
    code, out = compiled(network, "out", "--latency", "70%", "--table", str(table), "--accept-table-from-other-device")
    report = json.loads((out / "report.json").read_text())
    assert code == 0
    assert report["status"] == "predicted"
    assert report["result"]["latency_ms"] is None
    assert any("nothing was measured here" in note for note in report["notes"])
    assert report["device"] == json.loads(table.read_text().splitlines()[0])["device"]
    assert report["profiler"]["networks"] > 1
    assert report["predicted_latency_ms"] == report["budget"]["latency"]["predicted"]
    assert report["predicted_latency_ms"] <= 0.7001 * report["predicted_baseline_ms"]
    given = ("--latency", "70%", "--table", str(table), "--accept-table-from-other-device")
    assert main(["compile", str(network), "-o", str(out), *given]) == 0
    said = capsys.readouterr().out
    assert "x faster, predicted" in said
    assert "of it, not measured" in said
    assert "(the table's)" in said
    assert "predicted, not measured" in (out / "report.html").read_text()
    assert "latency 70% = " in (out / "report.html").read_text()


@pytest.mark.slow
def test_profile_says_what_it_measured_on_what_and_what_to_do_next(
    network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = network.parent / "table.jsonl"
    given = ["profile", str(network), "-o", str(table), "--profiler", "onnxruntime"]
    assert main([*given, "--json", "--check"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["measured_now"] == found["samples"] + found["networks"]
    assert found["held_back"]["plans"] == len(found["held_back"]["measured_ms"])
    assert main(given) == 0
    said = capsys.readouterr().out
    assert f"0 measured now, {found['measured_now']} there before" in said
    assert f"{found['device']['name']}, onnxruntime" in said
    assert f"--latency 60% --table {table}" in said
    assert "{" not in said


def test_a_table_of_a_network_without_channels_to_go_is_said_to_be_of_no_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = '<ir_version: 9, opset_import: ["" : 17]> n (float[1,8] x) => (float[1,8] y) { y = Relu(x) }'
    path = saved(tmp_path, model(text, {}))
    assert main(["profile", str(path), "-o", str(tmp_path / "t"), "--profiler", "onnxruntime"]) == 0
    assert "no channels may go" in caplog.text


def test_a_floor_that_is_predicted_is_called_so(network: Path, once: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = network.parent / "table.jsonl"
    table.write_text(once)
    given = ("--latency", "1us", "--table", str(table), "--accept-table-from-other-device")
    assert compiled(network, "out", *given)[0] == 4
    said = capsys.readouterr().err
    assert "us, predicted, at widths that are multiples of 8 (--align)" in said
    assert "`halpc inspect" in said


def test_what_a_table_was_not_profiled_with_is_named(
    network: Path, once: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = network.parent / "table.jsonl"
    table.write_text(once)
    given = ("--latency", "70%", "--table", str(table), "--accept-table-from-other-device")
    assert compiled(network, "out", *given, "--freeze", "*a*")[0] == 3
    assert "--freeze" in capsys.readouterr().err
    assert compiled(network, "out", *given, "--batch", "2")[0] == 3
    assert "--batch" in capsys.readouterr().err


def test_a_table_of_an_interrupted_profile_is_said_to_lack_networks(network: Path, once: str) -> None:
    table = network.parent / "table.jsonl"
    table.write_text(once)
    lines = table.read_text().splitlines(keepends=True)
    lost = [json.loads(line)["widths"] for line in lines if line.startswith('{"network"')][-3:]
    table.write_text("".join(line for line in lines if json.loads(line).get("widths") not in lost))
    _, out = compiled(network, "out", "--latency", "70%", "--table", str(table), "--accept-table-from-other-device")
    assert any("lacks 3 whole networks" in note for note in json.loads((out / "report.json").read_text())["notes"])


def test_a_table_of_another_device_is_refused(network: Path, once: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = network.parent / "table.jsonl"
    table.write_text(once)
    lines = table.read_text().splitlines()
    header = json.loads(lines[0])
    header["device"]["name"] = "another processor"
    table.write_text("\n".join([json.dumps(header), *lines[1:]]) + "\n")
    assert compiled(network, "out", "--latency", "70%", "--table", str(table))[0] == 3
    assert "another processor" in capsys.readouterr().err


def test_a_backend_that_is_missing_is_exit_6_and_writes_nothing(
    network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = compiled(network, "out", "--latency", "70%", "--profiler", "tensorrt")
    assert code == 6
    assert not out.exists()
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_latency_below_the_floor_is_infeasible(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compiled(network, "out", "--latency", "1us")[0] == 4
    assert "floor" in capsys.readouterr().err


@pytest.mark.parametrize("table", [False, True])
def test_another_budget_beside_latency_may_take_widths_that_are_multiples_of_less(narrow: Path, table: bool) -> None:
    given = ["--table", str(narrow.parent / "t.jsonl")] if table else []
    if table:
        assert main(["profile", str(narrow), "-o", given[1], "--profiler", "onnxruntime", "-q"]) == 0
        given.append("--accept-table-from-other-device")
    code, out = compiled(narrow, "out", "--latency", "1s", "--macs", "2%", *given)
    report = json.loads((out / "report.json").read_text())
    assert code == 0
    assert any("multiples of 8 meet the budget: multiples of 2 were tried" in note for note in report["notes"])
    assert not any("of the latency budget is left" in note for note in report["notes"])
    assert report["result"]["macs"] <= 0.02 * report["baseline"]["macs"]


def test_no_multiples_of_less_are_tried_where_an_alignment_is_asked_for(
    narrow: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compiled(narrow, "out", "--latency", "1s", "--macs", "2%", "--align", "8")[0] == 4
    assert compiled(narrow, "out", "--latency", "1s", "--macs", "0.2%")[0] == 4
    assert "no choice of widths fits" in capsys.readouterr().err


def test_a_table_that_contradicts_itself_is_named(narrow: Path) -> None:
    table = narrow.parent / "t.jsonl"
    assert main(["profile", str(narrow), "-o", str(table), "--profiler", "onnxruntime", "-q"]) == 0
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    for i, row in enumerate(rows):
        if "network" in row and i % 2:
            row["ms"] = 1000 * row["ms"]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, out = compiled(narrow, "out", "--latency", "70%", "--table", str(table), "--accept-table-from-other-device")
    assert any("hardly predicts" in note for note in json.loads((out / "report.json").read_text())["notes"])


def test_all_of_the_latency_is_the_model_as_it_is(network: Path) -> None:
    code, out = compiled(network, "out", "--latency", "100%")
    report = json.loads((out / "report.json").read_text())
    assert (code, report["status"], report["importance_kept"]) == (0, "met", 1.0)
    assert report["result"]["latency_ms"] == report["baseline"]["latency_ms"]
    assert any("nothing was pruned" in note for note in report["notes"])


def test_a_percentile_is_named_by_bench_and_so_is_the_device(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = saved(network.parent, name="other.onnx")
    common = ("--profiler", "onnxruntime", "--seconds", "0.1")
    assert main(["bench", str(network), str(other), *common, "--percentile", "90"]) == 0
    said = capsys.readouterr().out
    assert "latency p90" in said
    assert "onnxruntime 1." in said.splitlines()[-1]
    assert "fp32, 1 thread" in said.splitlines()[-1]


def test_bench_gives_intervals_and_a_verdict(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compiled(network, "out", "--macs", "20%")[0] == 0
    small = network.parent / "out" / "pruned.onnx"
    assert main(["bench", str(network), str(small), "--profiler", "onnxruntime", "--seconds", "1", "--json", "-q"]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    assert np.isfinite([row["latency_ms"] for row in rows]).all()
    assert rows[1]["verdict"] == "faster"


@pytest.mark.slow
def test_a_narrower_model_shares_the_table_of_a_wider_one(network: Path) -> None:
    table = network.parent / "table.jsonl"
    narrow = {name: tuple(n // 2 if n in (64, 96) else n for n in shape) for name, shape in WIDE.items()}
    other = saved(network.parent, model(RESIDUAL.replace("8, 8]", "48, 48]"), weights(narrow)), "narrow.onnx")
    for path in (network, other):
        assert main(["profile", str(path), "-o", str(table), "--profiler", "onnxruntime", "-q"]) == 0
