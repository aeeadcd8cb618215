"""Peak memory: against a count, tensor by tensor, of what lives in the slim model's own file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, shape_inference

from halpc import closed_loop
from halpc.compile import PREPARE, run
from halpc.errors import InfeasibleError
from halpc.job import Job
from halpc.options import Options
from halpc.units import parse_budget
from passes.couple import couple
from passes.load import load
from passes.memory import RENAMES, peak_memory
from passes.proto import static_proto
from passes.slim import plan_for, slim
from tests.small import model, saved, weights

MODELS = Path(__file__).parents[2] / "models"
HOURGLASS = """
<ir_version: 9, opset_import: ["" : 17]>
net (float[1, 3, 32, 32] x) => (float[1, 5] y) {
    a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w0)
    ar = Relu (a)
    b = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (ar, w1)
    br = Relu (b)
    c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (br, w2)
    d = Add (br, c)
    e = ConvTranspose <kernel_shape = [2, 2], strides = [2, 2]> (d, w3)
    f = Concat <axis = 1> (ar, e)
    g = GlobalAveragePool (f)
    h = Flatten <axis = 1> (g)
    y = Gemm <transB = 1> (h, w4)
}
"""
SHAPES = {"w0": (16, 3, 3, 3), "w1": (32, 16, 3, 3), "w2": (32, 32, 3, 3), "w3": (32, 24, 2, 2), "w4": (5, 40)}
OVER = frozenset({"Relu", "Add", "Clip", "Sub", "Div", "Cast", "Mul"})


def counted(proto: onnx.ModelProto) -> int:
    """Bytes of the weights and, at the worst node, of what is alive: names in sets, walked node by node."""
    graph = shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph
    typed = {v.name: v.type.tensor_type for v in (*graph.value_info, *graph.input, *graph.output)}
    size = {
        name: int(np.prod([d.dim_value for d in t.shape.dim]))
        * onnx.helper.tensor_dtype_to_np_dtype(t.elem_type).itemsize
        for name, t in typed.items()
    }
    fixed = sum(numpy_helper.to_array(w).nbytes for w in graph.initializer)
    fixed += sum(numpy_helper.to_array(n.attribute[0].t).nbytes for n in graph.node if n.op_type == "Constant")
    nodes = [n for n in graph.node if n.op_type != "Constant"]
    stored = {v.name: v.name for v in graph.input}
    worst = 0
    for i, node in enumerate(nodes):
        later = {name for n in nodes[i + 1 :] for name in n.input} | {v.name for v in graph.output}
        now = {stored[name] for name in node.input if name in stored}
        after = {stored[name] for name in later if name in stored}
        first = stored.get(node.input[0])
        for name in node.output:
            renamed = node.op_type in RENAMES
            over = node.op_type in OVER and first not in after and size.get(first) == size[name]
            stored[name] = first if first and (renamed or over) else name
            now.add(stored[name])
        kept = {stored[name] for name in later if name in stored}
        worst = max(worst, sum(size[name] for name in now | kept))
    return fixed + worst


def check(path: Path, seeds: int) -> None:
    loaded = load(path, batch=1)
    coupling = couple(loaded.twin)
    memory = peak_memory(loaded.twin, coupling)
    rng = np.random.default_rng(0)
    for _ in range(seeds):
        masks = {n: np.arange(g.size) < rng.integers(1, g.size + 1) for n, g in coupling.free().items()}
        small = static_proto(slim(loaded, coupling, plan_for(loaded, coupling, masks)), loaded.shapes, loaded.header)
        assert memory.at({name: int(mask.sum()) for name, mask in masks.items()}) == counted(small)
    assert memory.at({}) == counted(static_proto(loaded.twin, loaded.shapes, loaded.header))


def test_peak_memory_is_what_lives_in_the_slim_file(tmp_path: Path) -> None:
    check(saved(tmp_path, model(HOURGLASS, weights(SHAPES))), 40)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2"])
def test_peak_memory_of_shipped_networks(name: str) -> None:
    check(MODELS / f"{name}.onnx", 2)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    path = saved(tmp_path_factory.mktemp("hourglass"), model(HOURGLASS, weights(SHAPES)))
    prepared = Job(Options(path, (parse_budget("peak-memory", "60%"),)))
    run(prepared, PREPARE)
    return prepared


@pytest.mark.parametrize("share", range(40, 100, 5))
def test_the_choice_is_within_the_limit_at_every_node(job: Job, share: int) -> None:
    own = job.at(replace(job.options, budgets=(parse_budget("peak-memory", f"{share}%"),)))
    closed_loop.select_and_measure(own)
    limit = own.limits["peak-memory"]
    assert counted(own.slim) <= limit * (1 + 1e-9)
    assert own.selection.bound >= own.selection.value
    wider = {n: min(w + 1, own.coupling.groups[n].size) for n, w in own.selection.widths.items()}
    assert own.memory.at(wider) > limit or wider == own.selection.widths


def test_memory_that_nothing_can_free_is_refused(job: Job) -> None:
    own = job.at(replace(job.options, budgets=(parse_budget("peak-memory", "1%"),)))
    with pytest.raises(InfeasibleError, match="peak-memory"):
        closed_loop.select_and_measure(own)
