"""verify: the slim model must equal the original in which every removed slice of every weight is zero.

The oracle shares no code with slim: it needs the original, the plan's kept indices and onnxruntime without
optimisations. The tolerance comes from the network's own float noise: how far the masked original moves when
its inputs move by a few units in the last place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
from numpy.typing import NDArray

from halpc.errors import VerificationError
from halpc.ir.model import Model
from halpc.ir.plan import Plan
from passes.feeds import random_feeds
from passes.proto import fits, proto_of
from passes.runtime import session_of
from passes.weights import array_of, dtype_name, put

Outputs = list[NDArray[Any]]
NOISE_FACTOR = 30.0
FLOOR = {"float16": 2e-2}
NUDGE = {"float16": 1e-3}


@dataclass(frozen=True, slots=True)
class Verification:
    """How the oracle judged.

    Attributes:
        max_relative_error: largest |slim − masked| over an output's largest magnitude.
        tolerance: what the network's own noise allows, in the same measure.
        runs: how many input sets were compared.
    """

    max_relative_error: float
    tolerance: float
    runs: int

    @property
    def passed(self) -> bool:
        """Whether slim equals masked within the network's noise."""
        return self.max_relative_error <= self.tolerance


def masked(model: Model, plan: Plan) -> gs.Graph:
    """The original with zeros in every removed slice of every weight."""
    graph = model.graph.copy()
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Constant) and tensor.name in plan.keep and _is_weight(tensor):
            values = np.array(array_of(tensor))
            for axis, kept in plan.keep[tensor.name].items():
                gone = np.setdiff1d(np.arange(values.shape[axis]), kept)
                values[(slice(None),) * axis + (gone,)] = 0
            put(tensor, values)
    return graph


def _is_weight(tensor: gs.Constant) -> bool:
    return dtype_name(tensor.dtype) not in ("int64", "bool")


def verify(
    model: Model,
    plan: Plan,
    slim: onnx.ModelProto,
    *,
    seeds: int = 2,
    inputs: Sequence[Mapping[str, NDArray[Any]]] = (),
    approximate: bool = False,
) -> Verification:
    """Compare slim with masked on random inputs, and on given ones.

    Args:
        seeds: how many sets of random inputs.
        inputs: real inputs to compare on as well (calibration inputs).
        approximate: the user allowed statistics to change: the difference is reported, not judged.

    Raises:
        VerificationError: they differ by more than the network's noise, or slim does not load.
    """
    original = session_of(proto_of(masked(model, plan), model.header), optimise=False)
    type_ = _coarsest(model)
    runs: list[tuple[dict[str, NDArray[Any]], Outputs]] = []
    tolerance = FLOOR.get(type_, 2e-5)
    random = [random_feeds(original, model.shapes, seed=seed) for seed in range(seeds)]
    for seed, feeds in enumerate([*random, *map(dict, inputs)]):
        expected = original.run(None, feeds)
        noise = difference(expected, original.run(None, _nudged(feeds, seed, NUDGE.get(type_, 1e-6))))
        tolerance = max(tolerance, NOISE_FACTOR * noise)
        runs.append((feeds, expected))
    del original  # two models above 2 GB need not be in memory together
    session = _session(slim)
    worst = max(difference(expected, session.run(None, feeds)) for feeds, expected in runs)
    result = Verification(worst, min(tolerance, 0.05), len(runs))
    if not result.passed and not approximate:
        raise VerificationError(
            f"slim differs from the masked original by {worst:.2e} (relative), allowed {result.tolerance:.2e}; "
            "nothing was written. This is a bug of halpc: please report the model"
        )
    return result


def _session(slim: onnx.ModelProto) -> ort.InferenceSession:
    try:
        if fits(slim):
            onnx.checker.check_model(slim)
        return session_of(slim, optimise=False)
    except Exception as error:  # onnx and onnxruntime raise untyped errors for an invalid graph
        raise VerificationError(f"the slim model does not load: {str(error).splitlines()[0]}") from error


def _coarsest(model: Model) -> str:
    """The type that sets the network's noise: float16 anywhere among its weights, inputs and outputs, else float32."""
    constants = [t for t in model.graph.tensors().values() if isinstance(t, gs.Constant)]
    tensors = [*constants, *model.graph.inputs, *model.graph.outputs]
    return "float16" if any(dtype_name(t.dtype) == "float16" for t in tensors) else "float32"


def _nudged(feeds: Mapping[str, NDArray[Any]], seed: int, nudge: float) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed + 1000)
    return {
        name: (x * (1 + nudge * rng.standard_normal(x.shape))).astype(x.dtype)
        if np.issubdtype(x.dtype, np.floating)
        else x
        for name, x in feeds.items()
    }


def difference(a: Outputs, b: Outputs) -> float:
    """Largest difference over the largest magnitude, per output; integers by the share that differs."""
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if not isinstance(x, np.ndarray) or x.size == 0:
            continue
        if x.shape != y.shape:
            return float("inf")
        if np.issubdtype(x.dtype, np.floating):
            worst = max(worst, _relative(x.astype(np.float64), y.astype(np.float64)))
        elif x.dtype != object:
            worst = max(worst, float(np.mean(x != y)) * 0.01)
    return worst


def _relative(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    if same.all():
        return 0.0
    if not (np.isfinite(x[~same]).all() and np.isfinite(y[~same]).all()):
        return float("inf")
    scale = float(np.max(np.abs(x[np.isfinite(x)]), initial=0.0))
    return float(np.max(np.abs(x[~same] - y[~same]))) / max(scale, 1e-12)
