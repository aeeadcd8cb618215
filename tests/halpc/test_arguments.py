"""The command line's arguments as they are written, and what is said of wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from halpc import commands
from halpc.arguments import joined, options_of, parser_for
from halpc.cli import main
from halpc.idle import refuse_idle
from tests.small import saved


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return saved(tmp_path)


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that is said of a usage error."""
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1, said
    return said


@pytest.mark.parametrize("option", ["--latency", "--macs", "--peak-memory", "--shape", "--batch", "--max-drop"])
@pytest.mark.parametrize("value", ["-5ms", "-.5", "-60%", "-1:3x8x8"])
def test_a_value_below_zero_is_refused_as_if_joined(
    option: str, value: str, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--evaluate", "e.npz"] if option == "--max-drop" else []
    more += ["--macs", "60%"] if option in ("--shape", "--batch") else []
    apart = refusal(["compile", str(network), option, value, *more], capsys)
    assert apart == refusal(["compile", str(network), f"{option}={value}", *more], capsys)
    assert value.partition(":")[0] in apart


@pytest.mark.parametrize("option", ["--latency", "--freeze", "--importance", "-o/--output"])
def test_a_value_that_looks_like_an_option_is_told_how_to_be_given(
    option: str, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(["compile", str(network), option.split("/")[0], "-inf"], capsys)
    assert f"given as {option.split('/')[-1]}=VALUE" in said


def test_only_what_follows_an_option_is_joined_to_it() -> None:
    assert joined(["schedule", "-5", "--steps", "-2", "-o", "-1.x"]) == ["schedule", "-5", "--steps=-2", "-o=-1.x"]
    assert joined(["--steps=3", "-2", "--", "-o", "-1"]) == ["--steps=3", "-2", "--", "-o", "-1"]


def test_a_folder_may_begin_with_a_minus(network: Path) -> None:
    assert main(["compile", str(network), "-q", "--macs", "60%", "-o", "-1.out"]) == 0
    assert Path("-1.out/report.json").is_file()


IDLE: dict[str, tuple[str, str]] = {
    "table of no latency": ("--macs 60% --table t", "--table is of a budget on --latency"),
    "percentile of no latency": ("--macs 60% --percentile 95", "--percentile is of a budget on --latency"),
    "tf32 of no latency": ("--macs 60% --precision tf32", "--precision tf32 is how a device computes"),
    "percentile of a foreign table": ("FOREIGN --percentile 95", "--percentile is of what is measured"),
    "a foreign table that is none": ("--latency 60% --accept-table-from-other-device", "--table, and there is none"),
    "provider of another": ("--latency 60% --profiler openvino --provider cuda", "--provider is of --profiler onnx"),
    "threads of TensorRT": ("--latency 60% --profiler tensorrt --threads 2", "--threads is of processors"),
    "steps of another solver": ("--macs 60% --steps 3", "--steps is of --solver halp"),
    "recovery without inputs": ("--macs 60% --recover refit", "--recover adjusts weights on the inputs of --cal"),
    "mean without images": ("--macs 60% --mean 0.5", "--mean is of the images"),
    "loud and quiet": ("--macs 60% -v -q", "not allowed with"),
    "two tables": ("--latency 60% --table a --table b", "given twice, a and b"),
    "two sets of inputs": ("--macs 60% --calibration a.npz --calibration b.npz", "given twice, a.npz and b.npz"),
    "the default and another": ("--macs 60% --solver joint --solver halp", "given twice, joint and halp"),
    "recovery and none": ("--macs 60% --recover bias --no-recover", "given twice, bias and off"),
}  # fmt: skip


@pytest.mark.parametrize("command", ["compile", "sweep"])
@pytest.mark.parametrize("what", IDLE)
def test_an_option_that_would_do_nothing_is_refused(
    what: str, command: str, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, words = IDLE[what]
    arguments = arguments.replace("FOREIGN", "--latency 60% --table t --accept-table-from-other-device")
    assert words in refusal([command, str(network), "-o", "out", *arguments.split()], capsys)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "arguments", ["--profiler openvino --provider cuda", "--profiler tensorrt --threads 2"], ids=str
)
@pytest.mark.parametrize("command", ["bench", "profile"])
def test_what_measures_alone_refuses_options_of_another_profiler(
    command: str, arguments: str, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"bench": [str(saved(network.parent, name="b.onnx"))], "profile": ["-o", "t"]}[command]
    said = refusal([command, str(network), *more, *arguments.split()], capsys)
    assert arguments.split()[2] in said


FOREIGN = "--table t --accept-table-from-other-device"
BUSY = [
    "--latency 60% --percentile 95 --threads 2 --table t --profiler onnxruntime --provider cpu",
    "--max-drop 1% --evaluate e.npz --percentile 95",
    "--macs 50% --latency 60% --threads 2",
    "--macs 50% --threads 2",
    "--macs 50% --precision int8 --calibration c.npz --profiler openvino",
    f"--latency 60% {FOREIGN} --precision int8 --calibration c.npz --provider cpu",
    "--macs 50% --recover off",
    "--macs 50% --solver halp --steps 3 --solver halp",
    "--macs 50% --calibration folder --mean 0.5 --std 0.2 --recover bias",
]


@pytest.mark.parametrize("arguments", BUSY)
def test_an_option_that_does_something_is_taken(arguments: str) -> None:
    refuse_idle(parser_for(commands).parse_args(["compile", "m.onnx", *arguments.split()]))


def test_a_provider_names_its_profiler() -> None:
    named, unnamed = (
        parser_for(commands).parse_args(["compile", "m.onnx", "--latency", "60%", *more])
        for more in (["--provider", "cpu"], [])
    )
    assert (options_of(named).profiler, options_of(unnamed).profiler) == ("onnxruntime", "auto")


@pytest.mark.parametrize(
    "arguments, idle",
    [
        ("--profiler onnxruntime", "--profiler onnxruntime"),
        ("--provider cuda --threads 2", "--profiler onnxruntime, --provider cuda, --threads 2"),
        ("--precision int8 --calibration c.npz --profiler onnxruntime --threads 2", "--threads 2"),
        ("--precision int8 --calibration c.npz --profiler onnxruntime", ""),
        ("", ""),
    ],
)
def test_a_device_that_nothing_is_measured_on_is_noted(arguments: str, idle: str, network: Path) -> None:
    np.savez("c.npz", x=np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32))
    assert main(["compile", str(network), "-q", "-o", "out", "--macs", "60%", *arguments.split()]) == 0
    notes = [n for n in json.loads(Path("out/report.json").read_text())["notes"] if "nothing is measured" in n]
    assert notes == ([f"nothing is measured here, and so nothing was done with {idle}"] if idle else [])


@pytest.mark.parametrize("which", ["min", "opt", "max"])
def test_a_shape_is_refused_under_its_own_option(which: str, network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(["compile", str(network), "--macs", "60%", f"--{which}-shapes", "x:3x"], capsys)
    assert said.startswith(f"halpc: --{which}-shapes 'x:3x'")


def test_help_says_where_tables_are_kept_and_what_min_width_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compile", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "HALPC_CACHE" in said
    assert "a residual branch may still vanish" in said


def test_a_check_that_nobody_hears_of_is_refused(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--check says" in refusal(["profile", str(network), "-o", "t", "--check", "-q"], capsys)
