"""A judge that shares no code with halpc: original file + plan.json against pruned.onnx.

Every removed slice of every weight that the plan names is set to zero in the original file: in place where the
name is an initializer, by a multiplication with a mask where it is computed from constants. Both models run in
onnxruntime with all optimisations off; the tolerance is the network's own float noise.

Where a network chooses (TopK, thresholds, …) rounding may turn a near tie. So the pruned model's choosing nodes are
given the numbers that the masked original has there, and its own numbers are compared as if they were outputs.

Quantised activations are compared without their rounding: a float that is quantised and dequantised at once stays
that float, in both models. Rounded, a difference in the last place may become a whole step, and grow from there.

Where the model leaves axes open, the two are compared at other sizes too: those of `STEPS` that the original runs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from tests.corpus.choices import Place, led, places, shown

TYPES = {"tensor(float)": "f4", "tensor(float16)": "f2", "tensor(double)": "f8", "tensor(int64)": "i8",
         "tensor(int32)": "i4",
         "tensor(uint8)": "u1", "tensor(int8)": "i1", "tensor(bool)": "?"}  # fmt: skip
SMALL_FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
SIZES = {4: 224, 5: 64}  # of dynamic axes behind the first, by rank; 32 otherwise
OTHERWISE = (0.25, 4, 16, 64)  # factors where the original runs out of memory, or needs more
STEPS = ((2, 9 / 7), (3, 0.8))  # further sizes: of an open first axis, and a factor on the other open ones


@dataclass(frozen=True, slots=True)
class Judgement:
    """error and tolerance are relative to the largest output; `moved` is how far masking moved the output.

    `choices`: operands of choosing nodes that were compared and then shared; `sizes`: of inputs, compared at.
    """

    error: float
    tolerance: float
    moved: float
    choices: int = 0
    sizes: int = 1

    @property
    def sound(self) -> bool:
        """Whether the pruned model equals the masked original."""
        return self.error <= self.tolerance


def judge(original: Path, plan: Path, pruned: Path, seed: int = 7) -> Judgement:
    """Compare at the sizes that halpc assumes for open axes, and at others; the worst of them."""
    said = json.loads(plan.read_text())
    keep = said["keep"] | {name: each["keep"] for name, each in said["derived"].items()}
    before, small = unrounded(onnx.load(original)), unrounded(onnx.load(pruned))
    whole = unrounded(mask(onnx.load(original), keep))
    run = session(before)
    scale = next((f for f in (1, *OTHERWISE) if runs(run, inputs(run, seed, factor=f))), 1)
    sets = [inputs(run, seed, factor=scale)]
    for first, factor in STEPS:
        feeds = inputs(run, seed, first, factor * scale)
        if all(shapes(feeds) != shapes(other) for other in sets) and runs(run, feeds):
            sets.append(feeds)
    found = [compare(before, whole, small, feeds) for feeds in sets]
    worst = max(found, key=lambda each: each.error / each.tolerance)
    return replace(worst, sizes=len(found))


def compare(
    before: onnx.ModelProto, whole: onnx.ModelProto, small: onnx.ModelProto, feeds: dict[str, np.ndarray]
) -> Judgement:
    """The pruned model against the masked original on one set of inputs."""
    expected, found, values = choices(whole, small, feeds)
    given = {f"{name}__given": value for name, value in values.items()}
    nudged = {k: np.asarray(v * (1 + 1e-6 * np.sign(np.random.default_rng(1).standard_normal(v.shape))), v.dtype)
              if v.dtype.kind == "f" else v for k, v in feeds.items()}  # fmt: skip
    right = [*expected, *(values[place.ours] for place in found)]
    moved = results(led(whole, found, values), [place.ours for place in found], nudged | given)
    ours = results(led(small, found, values), [place.theirs for place in found], feeds | given)
    half = any(v.dtype == np.float16 for v in expected if isinstance(v, np.ndarray))
    tolerance = max(2e-2 if half else 1e-4, 50 * distance(right, moved))
    unmasked = session(before).run(None, feeds)
    return Judgement(distance(right, ours), min(tolerance, 0.1), distance(expected, unmasked), len(found))


def shapes(feeds: dict[str, np.ndarray]) -> list[tuple[int, ...]]:
    return [value.shape for value in feeds.values()]


def runs(model: ort.InferenceSession, feeds: dict[str, np.ndarray]) -> bool:
    """Whether the model takes these sizes: an open axis may still be bound to others inside."""
    try:
        model.run(None, feeds)
    except Exception:  # onnxruntime raises its own untyped family
        return False
    return True


def choices(
    whole: onnx.ModelProto, small: onnx.ModelProto, feeds: dict[str, np.ndarray]
) -> tuple[list, list[Place], dict[str, np.ndarray]]:
    """The masked original's outputs, the places where both models choose by floats, and its numbers there."""
    candidates = places(whole, small)
    outputs = len(whole.graph.output)
    ours = results(whole, [place.ours for place in candidates], feeds)
    theirs = results(small, [place.theirs for place in candidates], feeds)[outputs:]
    found = [place for place, a, b in zip(candidates, ours[outputs:], theirs, strict=True)
             if a.dtype.kind == "f" and a.shape == b.shape]  # fmt: skip
    values = {place.ours: a for place, a in zip(candidates, ours[outputs:], strict=True) if place in found}
    return ours[:outputs], found, values


def results(model: onnx.ModelProto, tensors: list[str], feeds: dict[str, np.ndarray]) -> list:
    """The outputs, and behind them these tensors."""
    names = [o.name for o in model.graph.output]
    return session(shown(model, tensors)).run([*names, *(f"{t}__shown" for t in tensors)], feeds)


def mask(model: onnx.ModelProto, keep: dict[str, dict[str, list[int]]]) -> onnx.ModelProto:
    """The original with the removed slices of its weights set to zero."""
    initializers = {t.name: t for t in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    for name, axes in keep.items():
        if name in initializers:
            values = numpy_helper.to_array(initializers[name]).copy()
            if (values.dtype.kind in "fiu" and values.dtype not in (np.int64,)) or values.dtype.name in SMALL_FLOATS:
                blank(values, axes)
                initializers[name].CopyFrom(numpy_helper.from_array(values, name))
        elif name in producers and producers[name].op_type == "Constant":
            tensor = producers[name].attribute[0].t
            values = numpy_helper.to_array(tensor).copy()
            if values.dtype.kind == "f":
                blank(values, axes)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        elif name in producers:
            multiply(model, producers[name], name, axes)
        else:
            raise AssertionError(f"the plan names {name}, which the original does not have")
    return model


def unrounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """QuantizeLinear followed by DequantizeLinear with the same parameters becomes Identity, in place."""
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        source = producers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source is not None and source.op_type == "QuantizeLinear" and source.input[1:] == node.input[1:]:
            node.CopyFrom(helper.make_node("Identity", [source.input[0]], list(node.output), name=node.name))
    return model


def blank(values: np.ndarray, axes: dict[str, list[int]]) -> None:
    for axis, kept in axes.items():
        gone = np.setdiff1d(np.arange(values.shape[int(axis)]), kept)
        values[(slice(None),) * int(axis) + (gone,)] = 0


def multiply(model: onnx.ModelProto, node: onnx.NodeProto, name: str, axes: dict[str, list[int]]) -> None:
    """name ← name · mask, right behind its producer; the mask's length is the largest kept index's axis."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.append(onnx.ValueInfoProto(name=name))
    one = session(probe)
    ones = np.ones_like(one.run([name], inputs(one, 0))[0])
    blank(ones, axes)
    raw = f"{name}__unmasked"
    node.output[list(node.output).index(name)] = raw
    model.graph.initializer.append(numpy_helper.from_array(ones, f"{name}__mask"))
    place = list(model.graph.node).index(node) + 1
    model.graph.node.insert(place, helper.make_node("Mul", [raw, f"{name}__mask"], [name]))


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """No optimisations: some of them are wrong on some networks."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def inputs(run: ort.InferenceSession, seed: int, first: int = 1, factor: float = 1.0) -> dict[str, np.ndarray]:
    """Random inputs; every dynamic first axis (and what is called like one) is `first`, the others `factor` times the
    usual."""
    rng = np.random.default_rng(seed)
    feeds = {}
    batches = {value.shape[0] for value in run.get_inputs() if value.shape and isinstance(value.shape[0], str)}
    for value in run.get_inputs():
        usual = int(SIZES.get(len(value.shape), 32) * factor)
        shape = [
            n if isinstance(n, int) else (first if i == 0 or n in batches else usual) for i, n in enumerate(value.shape)
        ]
        dtype = np.dtype(TYPES[value.type])
        if dtype.kind == "f":
            feeds[value.name] = np.asarray(rng.standard_normal(shape), dtype=dtype)
        elif dtype == np.uint8:
            feeds[value.name] = rng.integers(0, 256, shape).astype(dtype)
        elif dtype.kind == "b":
            feeds[value.name] = np.ones(shape, dtype)
        else:
            feeds[value.name] = np.asarray(rng.integers(0, 2, shape), dtype=dtype)
    return feeds


def distance(a: list, b: list) -> float:
    """Largest difference relative to the output's largest magnitude."""
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        x, y = np.asarray(x), np.asarray(y)
        if x.shape != y.shape:
            return float("inf")
        if x.size and x.dtype.kind == "f":
            x, y = x.astype(np.float64), y.astype(np.float64)
            different = ~((x == y) | (np.isnan(x) & np.isnan(y)))
            if different.any():
                scale = np.abs(x[np.isfinite(x)]).max(initial=1e-12)
                gap = np.abs(x[different] - y[different]).max()
                worst = max(worst, float(gap / scale) if np.isfinite(gap) else float("inf"))
        elif x.size and x.dtype.kind in "iu":
            worst = max(worst, 0.01 * float(np.mean(x != y)))
    return worst
