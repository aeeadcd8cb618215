"""Options that contradict each other, places that are none: one line, the exit code, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from halpc.cli import main
from halpc.errors import OutputError
from passes.write import publish, staging
from tests.small import model, saved

IMAGE = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("hello\n")
    return saved(tmp_path)


def graph(nodes: list[onnx.NodeProto], outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
    made = helper.make_graph(nodes, "g", [IMAGE], outputs)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def refused(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str], *words: str) -> None:
    before = sorted(Path.cwd().rglob("*"))
    assert main(arguments) == code
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1, said
    assert all(word in said for word in words), said
    assert sorted(Path.cwd().rglob("*")) == before


USAGE: dict[str, tuple[list[str], str]] = {
    "two budgets on one resource": (["--macs", "60%", "--macs", "50%"], "given twice, 60% and 50%"),
    "two drops": (["--max-drop", "1%", "--max-drop", "2%"], "given twice"),
    "two shapes of one input": (["--macs", "60%", "--shape", "x:2x3x8x8", "--shape", "x:3x3x8x8"], "another shape"),
    "a shape of no input": (["--macs", "60%", "--shape", "z:2x3x8x8"], "no such input"),
    "a shape that does not fit": (["--macs", "60%", "--shape", "x:2x4x8x8"], "?x3x8x8"),
    "normalisation of nothing": (["--macs", "60%", "--mean", "0.5"], "--calibration"),
    "a foreign table that is none": (["--macs", "60%", "--accept-table-from-other-device"], "--table"),
    "steps without end": (["--macs", "60%", "--solver", "halp", "--steps", "9" * 20], "1 to 10000"),
    "widths beyond integers": (["--macs", "60%", "--align", "9" * 20], "1 to 2147483647"),
    "a budget of next to nothing": (["--macs", "1e-300"], "above zero"),
    "a budget without end": (["--latency", "1e400ms"], "finite"),
}


@pytest.mark.parametrize("what", USAGE)
def test_it_is_a_usage_error(what: str, network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, word = USAGE[what]
    refused(["compile", str(network), "-q", "-o", "out", *arguments], 2, capsys, word)


def test_a_batch_that_no_input_takes_is_a_usage_error(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = model()
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    fixed.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    path = saved(network.parent, fixed, "fixed.onnx")
    refused(["inspect", str(path), "--batch", "3"], 2, capsys, "--batch 3", "x 1x3x8x8")
    assert main(["inspect", str(path), "--batch", "1"]) == 0


def test_a_layer_is_not_tied_to_itself(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["explain", str(network), "net.a", "net.a"], 2, capsys, "one layer")


def test_importance_of_one_layer_under_two_names_is_refused(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("i.npz", **{"net.a": np.ones(16), "w0": np.ones(16)})
    given = ["compile", str(network), "-q", "-o", "out", "--macs", "60%", "--importance", "i.npz"]
    refused(given, 3, capsys, "i.npz", "net.a", "w0")


EMPTY = {
    "outputs": graph([helper.make_node("Identity", ["x"], ["y"])], []),
    "nodes": graph([], [IMAGE]),
}


@pytest.mark.parametrize("missing", EMPTY)
@pytest.mark.parametrize("command", ["compile", "inspect"])
def test_a_graph_without_anything_is_refused(
    missing: str, command: str, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = network.parent / "empty.onnx"
    path.write_bytes(EMPTY[missing].SerializeToString())
    more = ["-q", "-o", "out", "--macs", "50%"] if command == "compile" else []
    refused([command, str(path), *more], 3, capsys, "empty.onnx", f"no {missing}")


def test_a_model_inside_a_file_is_refused_by_its_own_name(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["compile", "a.txt/m.onnx", "-q", "-o", "out", "--macs", "50%"], 3, capsys, "a.txt/m.onnx: cannot be read")


@pytest.mark.parametrize("arguments, code", [(["--dry-run"], 0), (["--macs", "0.0001%"], 4)])
def test_folders_above_the_output_are_not_left_behind(network: Path, arguments: list[str], code: int) -> None:
    budget = [] if "--macs" in arguments else ["--macs", "60%"]
    assert main(["compile", str(network), "-q", "-o", "some/where/deep", *budget, *arguments]) == code
    assert not Path("some").exists()


MEASURED = ["--max-drop", "90%", "--evaluate", "e.npz", "--profiler", "onnxruntime"]


@pytest.mark.parametrize("arguments", [["--macs", "60%"], pytest.param(MEASURED, marks=pytest.mark.slow)])
def test_a_dry_run_needs_no_place_that_can_be_written(arguments: list[str], network: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez("e.npz", x=rng.standard_normal((16, 3, 8, 8)).astype(np.float32), labels=rng.integers(0, 5, 16))
    assert main(["compile", str(network), "-q", "-o", "/proc/out", "--dry-run", *arguments]) == 0


@pytest.mark.parametrize("letter", ["x", "ш"])
def test_an_output_may_have_the_longest_name_of_its_disk(letter: str, network: Path) -> None:
    name = letter * (250 // len(letter.encode()))
    assert main(["compile", str(network), "-q", "-o", name, "--macs", "60%"]) == 0
    assert (Path(name) / "report.json").is_file()


@pytest.mark.parametrize("command", ["compile", "sweep"])
def test_a_result_does_not_replace_its_own_model(
    command: str, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(network), "-q", "-o", "out", "--macs", "80%"]) == 0
    first, deeper = Path("out/80pct/pruned.onnx"), Path("out/80pct/deeper/pruned.onnx")
    out = {"compile": "out/80pct", "sweep": "out"}[command]
    refused([command, str(first), "-q", "-o", out, "--macs", "80%"], 3, capsys, str(first), "-o another folder")
    deeper.parent.mkdir()
    first.rename(deeper)
    assert main([command, str(deeper), "-q", "-o", out, "--macs", "80%"]) == 0


def test_folders_above_the_output_are_made(network: Path) -> None:
    assert main(["compile", str(network), "-q", "-o", "some/where/deep", "--macs", "60%"]) == 0
    assert Path("some/where/deep/report.json").is_file()
    assert not list(Path.cwd().glob(".*.tmp"))


def test_what_fails_elsewhere_is_not_blamed_on_the_output(network: Path) -> None:
    with pytest.raises(Exception, match=r"none\.txt") as found, staging(Path("out")):
        Path("none.txt").read_text()
    assert "nothing was changed in out" in str(found.value)


def test_equal_budgets_of_a_sweep_are_one(network: Path) -> None:
    assert main(["sweep", str(network), "-q", "-o", "sweep", "--macs", "60%,60 %, 60%"]) == 0
    assert {place.name for place in Path("sweep").iterdir()} <= {"60pct", "sweep.json", "sweep.svg"}


def test_a_precision_without_kernels_leaves_no_table(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["profile", str(network), "-q", "-o", "t.jsonl", "--precision", "bf16", "--profiler", "onnxruntime"]
    refused(given, 6, capsys, "--precision bf16")


@pytest.mark.parametrize("name", ["pruned.onnx", "report.json", "pruned.fp16.onnx"])
def test_a_folder_in_a_files_place_is_refused_before_anything_is_done(
    name: str, network: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path("out") / name).mkdir(parents=True)
    monkeypatch.setattr("halpc.compile.load", lambda *a, **k: pytest.fail("the model was read"))
    given = ["compile", str(network), "-q", "-o", "out", "--macs", "60%", "--precision", "fp16"]
    refused(given, 3, capsys, f"out/{name}: is a folder", "-o another folder")


def test_files_are_all_moved_in_or_none(tmp_path: Path) -> None:
    folder, out = tmp_path / "scratch", tmp_path / "out"
    folder.mkdir()
    for name in ("a.json", "b.json"):
        (folder / name).write_text("new")
    (out / "b.json").mkdir(parents=True)
    (out / "a.json").write_text("old")
    with pytest.raises(OutputError, match=r"b\.json: is a folder"):
        publish(folder, out)
    assert (out / "a.json").read_text() == "old"


@pytest.mark.parametrize(
    "option, name", [("--table", "latency.json"), ("--importance", "plan.json"), ("--calibration", "report.json")]
)
def test_an_input_is_not_replaced_by_the_result(
    option: str, name: str, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["compile", str(network), "-q", "-o", "out", "--latency", "60%", option, f"out/{name}"]
    refused(given, 3, capsys, f"out/{name}: would give way", "-o another folder")


def test_a_file_that_this_run_would_remove_is_no_input_of_it(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(network), "-q", "-o", "out", "--macs", "60%", "--precision", "fp16"]) == 0
    given = ["compile", "out/pruned.fp16.onnx", "-q", "-o", "out", "--macs", "60%"]
    refused(given, 3, capsys, "out/pruned.fp16.onnx: would give way")
    assert Path("out/pruned.fp16.onnx").is_file()


def test_files_of_an_earlier_run_that_this_one_does_not_write_go_and_others_stay(network: Path) -> None:
    assert main(["compile", str(network), "-q", "-o", "out", "--macs", "60%", "--precision", "fp16"]) == 0
    for name in ("model.engine", "model.layers.json", "mine.txt"):
        (Path("out") / name).write_text("of another run")
    assert main(["compile", str(network), "-q", "-o", "out", "--macs", "0.001%"]) == 4
    assert Path("out/model.engine").is_file()
    assert main(["compile", str(network), "-q", "-o", "out", "--macs", "50%"]) == 0
    assert {f.name for f in Path("out").iterdir()} == {
        "pruned.onnx", "plan.json", "latency.json", "report.json", "report.html", "mine.txt",
    }  # fmt: skip


def test_an_output_that_is_a_link_to_nothing_is_refused(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").symlink_to("gone")
    refused(["compile", str(network), "-q", "-o", "out", "--macs", "60%"], 3, capsys, "out: is a link to gone")
