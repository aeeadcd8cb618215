"""Odd and hostile input through the command line: one line that says what to mend, the exit code, no leftovers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from halpc.cli import main
from tests.small import model, saved

FLOAT = TensorProto.FLOAT


def refused(arguments: list[str], code: int, folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """One line on stderr with all of `words`, this exit code, and nothing new in the folder."""
    before = sorted(folder.rglob("*"))
    assert main(arguments) == code
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1, said
    assert all(word in said for word in words), said
    assert sorted(folder.rglob("*")) == before


def compiling(path: Path, *more: str) -> list[str]:
    return ["compile", str(path), "-o", str(path.parent / "out"), "-q", "--macs", "50%", *more]


def two_layers(
    sizes: Any = (1, 4), kind: int = FLOAT, middle: int = 8, *, first: onnx.TensorProto | None = None
) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("w", (4, middle)), ("v", (middle, 4)))
    ]
    if first is not None:
        weights[0] = first
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", kind, sizes)],
        [helper.make_tensor_value_info("y", FLOAT, [None] * len(sizes))],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def one_node(op: str, kind: int, sizes: Any) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", kind, sizes)],
        [helper.make_tensor_value_info("y", kind, sizes)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def exploding() -> onnx.ModelProto:
    proto = two_layers()
    proto.graph.node[-1].output[0] = "c"
    proto.graph.node.extend([
        helper.make_node("Constant", [], ["s"], value_ints=[2**20, 2**20]),
        helper.make_node("ConstantOfShape", ["s"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("Add", ["c", "sum"], ["y"]),
    ])  # fmt: skip
    return proto


def lacking() -> onnx.ModelProto:
    proto = two_layers()
    proto.graph.node[-1].output[0] = "c"
    proto.graph.node.append(helper.make_node("Einsum", ["c", ""], ["y"], "s", equation="ij,jk->ij"))
    return proto


def split_once_more() -> onnx.ModelProto:
    proto = two_layers()
    proto.graph.node[-1].output[0] = "c"
    proto.graph.node.append(helper.make_node("Split", ["c"], ["y", "y2", "y3"], "s", axis=1, num_outputs=2))
    proto.opset_import[0].version = 18
    return proto


def wrongly_spelt() -> onnx.ModelProto:
    proto = two_layers()
    proto.graph.node[-1].output[0] = "c"
    proto.graph.node.append(helper.make_node("Gelu", ["c"], ["y"], "s", domain="com.microsoft", how=b"\xff"))
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


def symbolic() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n)
               for n, s in (("w", (8, 3, 3, 3)), ("v", (4, 8, 3, 3)))]  # fmt: skip
    nodes = [helper.make_node("Relu", ["x"], ["r"]),  # a layer that reads x would settle its channels
             helper.make_node("Conv", ["r", "w"], ["a"]), helper.make_node("Conv", ["a", "v"], ["y"])]  # fmt: skip
    value = [helper.make_tensor_value_info(name, FLOAT, ["n", "c", "h", "w_"]) for name in "xy"]
    return helper.make_model(
        helper.make_graph(nodes, "symbolic", value[:1], value[1:], weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )


def broken_weight(value: float) -> onnx.ModelProto:
    weight = np.ones((4, 8), np.float32)
    weight[2, 3] = value
    return two_layers(first=numpy_helper.from_array(weight, "w"))


def broken_scale() -> onnx.ModelProto:
    proto = two_layers(first=numpy_helper.from_array(np.ones((4, 8), np.int8), "w_q"))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(np.nan), "w_s"))
    proto.graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", ["w_q", "w_s"], ["w"], "dequantize"))
    return proto


def without_numbers() -> onnx.ModelProto:
    proto = two_layers()
    proto.graph.node[-1].output[0] = "c"
    proto.graph.node.extend([
        helper.make_node("Sub", ["c", "c"], ["zero"]), helper.make_node("Div", ["zero", "zero"], ["y"]),
    ])  # fmt: skip
    return proto


def sequence(where: str) -> onnx.ModelProto:
    proto = two_layers()
    if where == "output":
        proto.graph.node.append(helper.make_node("SequenceConstruct", ["y"], ["list"]))
    value = helper.make_tensor_sequence_value_info("list", FLOAT, None)
    getattr(proto.graph, where).append(value)
    return proto


def newer_file() -> onnx.ModelProto:
    proto = two_layers()
    proto.ir_version = 14
    return proto


def unknown_operator() -> onnx.ModelProto:
    proto = two_layers()
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "Foo", "my.domain"
    proto.opset_import.append(helper.make_opsetid("my.domain", 1))
    return proto


def dangling() -> onnx.ModelProto:
    proto = two_layers()
    proto.graph.node[0].name = "first"
    proto.graph.node[0].input[0] = "nowhere"
    return proto


def shapeless() -> onnx.ModelProto:
    proto = two_layers()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    return proto


def too_small() -> onnx.ModelProto:
    proto = symbolic()
    for dim, size in zip(proto.graph.input[0].type.tensor_type.shape.dim, (1, 3, 3, 8), strict=True):
        dim.dim_value = size
    return proto


MODELS: dict[str, tuple[Callable[[], onnx.ModelProto], tuple[str, ...]]] = {
    "strings": (lambda: one_node("Identity", TensorProto.STRING, [2]), ("tensor(string)", "expected numbers")),
    "complex": (lambda: one_node("Identity", TensorProto.COMPLEX64, [2]), ("does not load",)),
    "huge": (lambda: two_layers((2**40, 4)), ("entries", "--shape")),
    "larger than memory": (exploding, ("does not run",)),
    "a weight that is NaN": (lambda: broken_weight(np.nan), ("weight w of", "nan at [2, 3]", "finite")),
    "a scale that is NaN": (broken_scale, ("w_s of dequantize", "nan at []", "finite")),
    "a weight without end": (lambda: broken_weight(-np.inf), ("weight w of", "-inf at [2, 3]")),
    "too small an input": (too_small, ("tensor y comes out as 1x4x-1x4", "x 1x3x3x8", "larger sizes")),
    "a list goes in": (lambda: sequence("input"), ("input list", "sequence", "expected a tensor")),
    "a list comes out": (lambda: sequence("output"), ("output list", "sequence", "expected a tensor")),
    "newer than the runtime": (newer_file, ("IR version 14", "up to 13", "ir_version = 13")),
    "of an operator that nobody has": (unknown_operator, ("cannot run the model", "my.domain:Foo")),
    "a name that nothing makes": (dangling, ("'nowhere'", "first", "MatMul", "export it again")),
    "an input without a shape": (shapeless, ("input x has no shape",)),
    "symbolic channels": (symbolic, ("does not run", "--shape")),
    "a missing operand": (lacking, ("operand 1 of node s (Einsum) is missing",)),
    "more results than there are": (split_once_more, ("node s (Split) has 3 outputs, and num_outputs is 2",)),
    "an attribute that is no text": (wrongly_spelt, (r"attribute b'\xff' is no text",)),
    "unknown type": (
        lambda: two_layers(first=onnx.TensorProto(name="w", data_type=77, dims=[4, 8], raw_data=b"1")),
        ("weight w", "77"),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_nobody_can_run_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, words = MODELS[name]
    (tmp_path / "model.onnx").write_bytes(make().SerializeToString())
    refused(compiling(tmp_path / "model.onnx"), 3, tmp_path, capsys, str(tmp_path / "model.onnx"), *words)


def test_a_model_whose_outputs_are_no_numbers_is_not_called_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(without_numbers(), tmp_path / "model.onnx")
    refused(compiling(tmp_path / "model.onnx"), 5, tmp_path, capsys, "model.onnx", "finite", "--calibration")


JSON = {
    "nothing": ("null", "'net.a'"), "words": ('"1"', "'net.a'"), "truth": ("true", "'net.a'"),
    "an object": ("{}", "'net.a'"), "beyond floats": ("1" + "0" * 400, "'net.a'"),
    "twice": ('1], "net.a": [1', "there twice"),
}  # fmt: skip


@pytest.mark.parametrize("what", JSON)
def test_importance_that_is_no_list_of_numbers_is_refused(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry, word = JSON[what]
    path = saved(tmp_path)
    (tmp_path / "i.json").write_text(f'{{"net.a": [{", ".join(["1"] * 15)}, {entry}]}}')
    refused(compiling(path, "--importance", str(tmp_path / "i.json")), 3, tmp_path, capsys, "i.json", word)


@pytest.mark.parametrize(
    "content, word", [(b"hello", "numpy.savez"), (b"PK\x03\x04", "numpy.savez"), (None, "a folder")]
)
def test_importance_that_is_no_archive_is_refused(
    content: bytes | None, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "i.npz"
    place.mkdir() if content is None else place.write_bytes(content)
    refused(compiling(saved(tmp_path), "--importance", str(place)), 3, tmp_path, capsys, "i.npz", word)


@pytest.mark.parametrize("command", ["compile", "profile", "bench"])
def test_a_model_that_the_runtime_does_not_run_is_named(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    double = two_layers(kind=TensorProto.DOUBLE)
    double.graph.node[1].op_type = "Softsign"  # no kernel of doubles
    double.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in double.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    onnx.save(double, tmp_path / "double.onnx")
    arguments = {
        "compile": ["-o", str(tmp_path / "out"), "--latency", "60%"],
        "profile": ["-o", str(tmp_path / "t")],
        "bench": [str(saved(tmp_path))],
    }[command]
    given = [command, str(tmp_path / "double.onnx"), *arguments, "-q", "--profiler", "onnxruntime"]
    refused(given, 6, tmp_path, capsys, "double.onnx", "Softsign")


@pytest.mark.parametrize(
    "option", ["--align 4096", "--min-width 99", "--freeze net.*"], ids=lambda option: option.partition(" ")[0]
)
def test_a_budget_that_an_option_puts_out_of_reach_names_it(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path)
    words = ("macs", "floor", f"halpc inspect {path}", option.replace(" net.*", ""), "more may go")
    refused(compiling(path, *option.split(), "--no-vanish"), 4, tmp_path, capsys, *words)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    refused(compiling(tmp_path / "pipe.onnx"), 3, tmp_path, capsys, "no regular file")


@pytest.mark.parametrize("key, value", [("offset", "-5"), ("length", "-1"), ("length", "many"), ("offset", "1e3")])
def test_external_data_that_is_described_wrongly_is_refused(
    key: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model(), str(path), save_as_external_data=True, location="weights.data", size_threshold=0)
    proto = onnx.load(str(path), load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        entry.value = value if entry.key == key else entry.value
    path.write_bytes(proto.SerializeToString())
    refused(compiling(path), 3, tmp_path, capsys, "weight w0", value)


@pytest.mark.parametrize("location", ["../../../../etc/passwd", "/etc/passwd", "../secret.data"])
def test_external_data_outside_the_models_folder_is_not_read(
    location: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret.data").write_bytes(bytes(100_000))
    onnx.save(model(), str(folder / "m.onnx"), save_as_external_data=True, location="weights.data", size_threshold=0)
    proto = onnx.load(str(folder / "m.onnx"), load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    refused(compiling(folder / "m.onnx"), 3, tmp_path, capsys, "external data")


def test_a_layer_without_channels_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.onnx").write_bytes(two_layers(middle=0).SerializeToString())
    assert main([a for a in compiling(tmp_path / "model.onnx") if a != "-q"]) == 0
    assert "0 MACs: met, there is none" in capsys.readouterr().out


def test_an_input_without_axes_is_no_obstacle(tmp_path: Path) -> None:
    proto = two_layers()
    proto.graph.input.append(helper.make_tensor_value_info("gain", FLOAT, []))
    proto.graph.node[-1].output[0] = "c"
    proto.graph.node.append(helper.make_node("Mul", ["c", "gain"], ["y"]))
    onnx.save(proto, tmp_path / "model.onnx")
    assert main(compiling(tmp_path / "model.onnx")) == 0


def test_importance_that_overflows_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path)
    np.savez(tmp_path / "i.npz", **{"net.a": np.full(16, 1e308)})
    refused(compiling(path, "--importance", str(tmp_path / "i.npz")), 3, tmp_path, capsys, "too large", "net.a")


def test_a_shape_beyond_integers_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(compiling(saved(tmp_path), "--shape", f"x:{10**20}x3x8x8"), 2, tmp_path, capsys, "--shape")


def test_a_name_that_the_disk_cannot_hold_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path)
    refused(["compile", str(path), "-o", str(tmp_path / ("n" * 300)), "-q", "--macs", "50%"], 3, tmp_path, capsys)


@pytest.mark.parametrize(
    "changed",
    [
        {"kept": [-1]},
        {"kept": [999]},
        {"kept": [3, 3, 4]},
        {"kept": [True]},
        {"kept": 3},
        {"kept": ["a"]},
        {"size": 10**12},
        {"kept": []},
    ],
    ids=str,
)
def test_a_plan_that_was_tampered_with_is_refused(
    changed: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path)
    groups = [{"name": "net.a", "size": 16, "kept": [0, 1, 2], **changed}]
    plan = {"format": "halpc.plan", "version": 1, "model_sha256": "", "groups": groups, "keep": {}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    refused(compiling(path, "--resume", str(tmp_path / "plan.json")), 3, tmp_path, capsys, "plan.json")


def test_a_plan_with_a_group_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path)
    groups = [{"name": "net.a", "size": 16, "kept": [0, 1, 2]}] * 2
    plan = {"format": "halpc.plan", "version": 1, "model_sha256": "", "groups": groups, "keep": {}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    given = compiling(path, "--resume", str(tmp_path / "plan.json"))
    refused(given, 3, tmp_path, capsys, "plan.json", "a group is there twice", "that compile wrote")


def test_an_interrupt_while_modules_load_is_130(tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("raise KeyboardInterrupt")
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "halpc", "inspect", "model.onnx"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130
    assert done.stderr == "halpc: interrupted before anything was done\n"


def test_a_plan_that_is_nested_without_end_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path)
    (tmp_path / "plan.json").write_text("[" * 100_000)
    refused(compiling(path, "--resume", str(tmp_path / "plan.json")), 3, tmp_path, capsys, "not JSON")


def test_an_operator_that_an_exporter_had_no_translation_for_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, one_node("Erfc", FLOAT, (1, 4)))
    refused(compiling(path), 3, tmp_path, capsys, "operator Erfc is none of ONNX's", "export it with another opset")
