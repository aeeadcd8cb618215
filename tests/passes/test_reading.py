"""That load reads what is in the file: told by running the file itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from halpc.cli import main
from halpc.errors import ModelError, VerificationError
from halpc.ir.model import Model
from passes import load as loading
from passes.load import load
from passes.verification.noise import running_again
from passes.verify import verify_reading
from passes.weights import array_of, put
from tests.small import RESIDUAL, model, saved

PICKS = RESIDUAL.replace("float[N, 5] y", "int64[N, 1] y").replace(
    "y = Gemm <transB = 1> (f, w3, b3)", "z = Gemm <transB = 1> (f, w3, b3)\n    y = ArgMax <axis = 1> (z)"
)
DRAWS = RESIDUAL.replace("t = Relu (s)", "n = RandomNormalLike (s)\n    t = Add (s, n)")


def misread(model: Model, share: float, weight: str = "w1") -> Model:
    """As if load had changed a weight."""
    tensor = model.graph.tensors()[weight]
    assert isinstance(tensor, gs.Constant)
    put(tensor, np.asarray(array_of(tensor) * np.float32(1 + share)))
    return model


def check(path: Path, share: float, weight: str = "w1", settings: Mapping[str, float] | None = None) -> None:
    verify_reading(misread(load(path), share, weight), settings or {})


@pytest.mark.parametrize("text", [RESIDUAL, PICKS])
def test_a_weight_that_was_read_wrongly_is_found(tmp_path: Path, text: str) -> None:
    """Before what selects as well."""
    path = saved(tmp_path, model(text))
    check(path, 0.0)
    check(path, 1e-7)  # a unit in the last place
    with pytest.raises(VerificationError, match=r"model.onnx: halpc reads [yz] otherwise than onnxruntime"):
        check(path, 0.01)


def test_a_root_of_what_is_fed_hides_nothing(tmp_path: Path) -> None:
    text = RESIDUAL.replace("(x, w0", "(root, w0").replace("{\n", "{\n    root = Sqrt (x)\n", 1)
    path = saved(tmp_path, model(text))
    check(path, 0)
    with pytest.raises(VerificationError, match="otherwise than onnxruntime"):
        check(path, 1e-2)


def test_behind_what_draws_nothing_can_be_told(tmp_path: Path) -> None:
    check(saved(tmp_path, model(DRAWS)), 0.5)


def test_a_file_that_onnxruntime_does_not_run_is_no_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What halpc mends, here names of nodes that are there twice, is said to be compared with nothing."""
    proto = model()
    for node in proto.graph.node:
        node.name = "same"
    path = saved(tmp_path, proto)
    assert "two nodes with same node name" in (verify_reading(load(path), {}) or "")
    assert verify_reading(load(saved(tmp_path)), {}) is None
    path = saved(tmp_path, proto)
    assert main(["compile", str(path), "-o", str(tmp_path / "out"), "--macs", "60%"]) == 0
    assert "note        onnxruntime does not run the file as it is" in capsys.readouterr().out


def test_what_load_makes_of_a_file_that_runs_runs_too(tmp_path: Path) -> None:
    read = load(saved(tmp_path))
    read.graph.nodes[0].attrs["kernel_shape"] = [-3, 3]
    with pytest.raises(VerificationError, match="runs the file, but not what halpc read of it"):
        verify_reading(read, {})


def test_inputs_that_always_have_a_value_have_it_in_the_file_too(tmp_path: Path) -> None:
    text = RESIDUAL.replace("8, 8] x)", "8, 8] x, float[1] k)").replace(
        "t = Relu (s)", "m = Mul (s, k)\n    t = Relu (m)"
    )
    path = saved(tmp_path, model(text))
    verify_reading(load(path, values={"k": 2.5}), {"k": 2.5})
    with pytest.raises(VerificationError, match="halpc reads y otherwise"):
        verify_reading(load(path, values={"k": 2.5}), {"k": 1.0})


def test_a_compile_ends_with_the_exit_code_of_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, settle = saved(tmp_path), loading._import
    monkeypatch.setattr(loading, "_import", lambda proto: misread(_Holder(settle(proto)), 0.1).graph)
    assert main(["compile", str(path), "--macs", "70%", "-o", str(tmp_path / "out"), "-q"]) == 5
    assert "otherwise than onnxruntime" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


class _Holder:
    """A model as far as `misread` looks."""

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph


def test_a_model_that_runs_once_only_is_refused_with_what_onnxruntime_says() -> None:
    said = r"net.onnx: onnxruntime runs it, but not once .* moved .*: no room$"
    with pytest.raises(ModelError, match=said), running_again(Path("net.onnx")):
        raise RuntimeError("no room\nfor this")
    with pytest.raises(VerificationError, match="off"), running_again(Path("net.onnx")):
        raise VerificationError("off")
