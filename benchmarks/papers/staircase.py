"""The staircase: measured latency of one convolution against its width, beside its multiply-adds (HALP's figure 9).

    python -m benchmarks.papers.staircase

A 3x3 convolution of `--inner` channels to 4, 6, 8, … channels on a square image, alone, onnxruntime, one thread.
Writes `staircase.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.papers.points import RESULTS
from halpc.ir.profiler import Profiler
from profilers import profiler_for

KERNEL = 3


def main() -> None:
    """Measure every width and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inner", type=int, default=128, help="input channels")
    parser.add_argument("--widest", type=int, default=160)
    parser.add_argument("--step", type=int, default=2)
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    profiler: Profiler = profiler_for("onnxruntime").profiler
    widths = list(range(4, args.widest + 1, args.step))
    times = profiler.kernels([convolution(args.inner, width, args.side) for width in widths], repetitions=40)
    macs = [args.inner * width * (KERNEL * args.side) ** 2 for width in widths]
    args.results.mkdir(parents=True, exist_ok=True)
    found = {"inner": args.inner, "side": args.side, "widths": widths, "ms": times.tolist(), "macs": macs,
             "device": profiler.device.as_json()}  # fmt: skip
    (args.results / "staircase.json").write_text(json.dumps(found))
    print(f"{len(widths)} widths, {times.min():.4f} to {times.max():.4f} ms")


def convolution(inner: int, outer: int, side: int) -> onnx.ModelProto:
    """One convolution with random weights, as a model."""
    weight = np.random.default_rng(0).standard_normal((outer, inner, KERNEL, KERNEL)).astype(np.float32)
    tensor = helper.make_tensor_value_info
    ends = [tensor("x", onnx.TensorProto.FLOAT, [1, inner, side, side])]
    results = [tensor("y", onnx.TensorProto.FLOAT, [1, outer, side, side])]
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", kernel_shape=[KERNEL] * 2, pads=[KERNEL // 2] * 4)
    graph = helper.make_graph([node], "conv", ends, results, [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


if __name__ == "__main__":
    main()
