"""verify: the slim model must equal the original in which every removed slice of every weight is zero.

The oracle shares no code with slim: it needs the original, the plan's kept indices and onnxruntime without
optimisations. The tolerance of every output comes from the network's own float noise: how far the masked original
moves there when its inputs and weights move by a few units in the last place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from halpc.errors import ModelError, VerificationError
from halpc.ir.dims import Mask, mask
from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from halpc.ir.plan import Plan
from halpc.room import make_room
from passes.bare import Bare
from passes.feeds import LAWS, random_feeds, tells
from passes.loading.sizes import ODD_STEPS, USUAL_STEPS, varied
from passes.proto import bare_of, check_model
from passes.runtime import run_within, session_of
from passes.verification.noise import differences, nudge_weights, nudged, running_again
from passes.verification.reading import check_reading
from passes.verification.selecting import Cut, cuts_of, expose, hidden, hold
from passes.verification.sizing import impossible
from passes.verification.squashed import squashed
from passes.weights import array_of, constants, dtype_name, put

Outputs = list[NDArray[Any]]
Values = dict[str, NDArray[Any]]
NOISE_FACTOR = 30.0
FLOOR = {"float16": 2e-2}
NUDGE = {"float16": 1e-3}
CEILING = 0.05  # no network's noise excuses more


@dataclass(frozen=True, slots=True)
class Selection:
    """One operand of a node that selects: how far slim is from masked there, relative, and what is allowed."""

    node: str
    operand: int
    error: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Verification:
    """How the oracle judged.

    Attributes:
        max_relative_error: largest |slim − masked| over an output's largest magnitude, at the output where it comes
            closest to what is allowed there.
        tolerance: what the network's own noise allows at that output, in the same measure.
        runs: how many input sets were compared.
        selections: what nodes that select (TopK, comparisons, …) read; both models went on with the same numbers there.
        hidden_selections: such nodes inside If, Loop and Scan: both models made their own choices there.
    """

    max_relative_error: float
    tolerance: float
    runs: int
    selections: tuple[Selection, ...] = ()
    hidden_selections: int = 0

    @property
    def passed(self) -> bool:
        """Whether slim equals masked within the network's noise, at the outputs and wherever it selects."""
        return self.max_relative_error <= self.tolerance and all(s.error <= s.tolerance for s in self.selections)


@dataclass(frozen=True, slots=True)
class _Run:
    """One input set and what the masked original makes of it."""

    feeds: Values
    outputs: Outputs
    held: Values


def masked(model: Model, plan: Plan) -> gs.Graph:
    """The original with zeros in every removed slice of every weight."""
    graph = model.graph.copy()
    for tensor in constants(graph):
        if tensor.name in plan.keep and tensor.name not in model.uniform and _is_weight(tensor):
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
    coupling: Coupling,
    plan: Plan,
    slim: onnx.ModelProto,
    *,
    seeds: int = 2,
    inputs: Sequence[Mapping[str, NDArray[Any]]] = (),
    approximate: bool = False,
) -> Verification:
    """Compare slim with masked on random inputs, and on given ones; dynamic axes also at other sizes.

    Args:
        coupling: says which entries of the tensors that nodes select by are left.
        seeds: how many sets of random inputs.
        inputs: real inputs to compare on as well (calibration inputs).
        approximate: the user allowed statistics to change: the difference is reported, not judged.

    Raises:
        VerificationError: they differ by more than the network's noise, or slim does not load or run.
        ModelError: the original does not.
    """
    original = bare_of(masked(model, plan), model.header)
    make_room(model.size_bytes)
    unseen = hidden(original.proto.graph)
    names = [o.name for o in original.proto.graph.output]
    before = squashed(original.proto, slim)
    names += dict.fromkeys(name for name in before.values() if name not in names)
    expose(original.proto, names)
    # an approximate model's drift is a figure for people: it keeps its own choices
    runs, cuts = _reference(original, names, model, () if approximate else cuts_of(original.proto), seeds, inputs)
    cuts = [cut for cut in cuts if all(_maps(cut.tensor, run.held[cut.tensor], coupling, plan) for run in runs)]
    with running_again(model.path):
        noise, noise_at = _noise(original, names, runs, cuts, NUDGE.get(_coarsest(model), 1e-6))
    del original  # two large models need not be in memory together
    make_room(model.size_bytes)
    floor = FLOOR.get(_coarsest(model), 2e-5)
    allowed = [_allowed(each, floor) for each in noise]
    _loads(slim)
    own_outputs = len(slim.graph.output)
    expose(slim, names)
    try:
        errors, error_at = _errors(slim, names, runs, cuts, coupling, plan, allowed)
    finally:
        del slim.graph.output[own_outputs:]
    make_room(model.size_bytes)
    judged = _judged(dict(zip(names, zip(errors, allowed, strict=True), strict=True)), before)

    selections = tuple(
        Selection(cut.node, cut.operand, error, _allowed(noise_at[cut], floor)) for cut, error in error_at.items()
    )
    error, tolerance = max(judged, key=_share, default=(0.0, floor))
    result = Verification(error, tolerance, len(runs), selections, unseen)
    if not result.passed and not approximate:
        raise VerificationError(
            f"slim differs from the masked original {_where(result)}; "
            "nothing was written. This is a bug of halpc: please report the model"
        )
    return result


def verify_reading(model: Model, settings: Mapping[str, float]) -> str | None:
    """That load read the file as onnxruntime does, see `passes/verification/reading.py`.

    Args:
        settings: inputs that always have this value.

    Returns: why onnxruntime does not run the file itself, so that nothing was compared, else None.

    Raises:
        VerificationError: it did not.
        ModelError: there are no random inputs for it, or a run of it does not end.
    """
    kind = _coarsest(model)
    allowed = partial(_allowed, floor=FLOOR.get(kind, 2e-5))
    return check_reading(model, settings, nudge=NUDGE.get(kind, 1e-6), allowed=allowed)


def _judged(pairs: Mapping[str, tuple[float, float]], before: Mapping[str, str]) -> list[tuple[float, float]]:
    """Error and tolerance per output; of a Sigmoid's, those of what it reads where these are better."""
    own = {name: pair for name, pair in pairs.items() if name in before or name not in before.values()}
    return [min(pair, pairs[before[name]], key=_share) if name in before else pair for name, pair in own.items()]


def _share(pair: tuple[float, float]) -> float:
    error, tolerance = pair
    return error / tolerance


def _allowed(noise: float, floor: float) -> float:
    return min(max(floor, NOISE_FACTOR * noise), CEILING)


def _where(result: Verification) -> str:
    """What was wrong, the first thing first."""
    for selection in result.selections:
        if selection.error > selection.tolerance:
            return (
                f"in operand {selection.operand} of {selection.node} by {selection.error:.2e} (relative),"
                f" allowed {selection.tolerance:.2e}"
            )
    return f"by {result.max_relative_error:.2e} (relative), allowed {result.tolerance:.2e}"


def _reference(
    original: Bare,
    names: Sequence[str],
    model: Model,
    cuts: Sequence[Cut],
    seeds: int,
    inputs: Sequence[Mapping[str, NDArray[Any]]],
) -> tuple[list[_Run], list[Cut]]:
    """What the masked original gives, and the cuts at which it selects by floats; `original` gets more outputs.

    Where an output holds no finite number on any inputs, random ones of other kinds are tried.
    """
    expose(original.proto, [cut.tensor for cut in cuts])
    try:
        session = session_of(original, optimise=False)
    except Exception as error:  # onnxruntime raises untyped errors for what it does not know
        raise ModelError(f"{model.path}: onnxruntime does not load it: {str(error).splitlines()[0]}") from error
    given = {v.name for v in original.proto.graph.input}
    inner = list(dict.fromkeys(cut.tensor for cut in cuts if cut.tensor not in {*given, *names}))
    runs: list[_Run] = []
    for law in LAWS:
        random = _random(session, original, model, seeds, law)
        for feeds in [*random, *map(dict, inputs if law == LAWS[0] else ())]:
            seen = {**feeds, **_seen(session, [*names, *inner], feeds, model)}
            held = {cut.tensor: seen[cut.tensor] for cut in cuts if _is_float(seen[cut.tensor])}
            runs.append(_Run(feeds, [seen[name] for name in names], held))
        if all(map(any, zip(*([tells(value) for value in run.outputs] for run in runs), strict=True))):
            break
    telling = [run for run in runs if any(map(tells, run.outputs))]
    if not telling:
        raise VerificationError(
            f"{model.path}: on {len(runs)} sets of inputs (normal, in 0 … 1 and small positive numbers) no output holds"
            " a finite number, so nothing can be compared; give --calibration inputs as the network was made for"
        )
    return telling, [cut for cut in cuts if cut.tensor in telling[-1].held]


def _random(session: ort.InferenceSession, original: Bare, model: Model, seeds: int, law: str) -> list[Values]:
    """Random inputs at the model's sizes and at others."""
    try:
        found = [random_feeds(session, model.shapes, seed=seed, law=law) for seed in range(seeds)]
    except ModelError as error:
        raise ModelError(f"{model.path}: {error}") from error
    return [*found, *_resized(session, original.proto, model, law)]


def _seen(session: ort.InferenceSession, names: Sequence[str], feeds: Values, model: Model) -> Values:
    """What the original gives under these names."""
    try:
        return dict(zip(names, run_within(session, names, feeds), strict=True))
    except Exception as error:  # onnxruntime raises untyped errors for what it cannot compute
        sizes = ", ".join(f"{name} {list(value.shape)}" for name, value in feeds.items())
        raise ModelError(
            f"{model.path}: onnxruntime does not run it on {sizes}: {str(error).splitlines()[0]};"
            " give --shape where these sizes are not the model's"
        ) from error


def _resized(session: ort.InferenceSession, original: onnx.ModelProto, model: Model, law: str) -> list[Values]:
    """Random inputs at other sizes of the dynamic axes, those that the model itself takes."""
    if not any(model.dynamic.values()):
        return []
    found: list[Values] = []
    for step in (USUAL_STEPS[0], ODD_STEPS[0], ODD_STEPS[-1]):
        if step == ODD_STEPS[-1] and found:  # smaller, for models that take no larger sizes
            break
        sizes = varied(model.graph, model.shapes, model.dynamic, *step)
        if impossible(original, model.shapes, sizes):
            continue
        feeds = random_feeds(session, sizes, law=law)
        with contextlib.suppress(Exception):  # onnxruntime raises its own untyped family: the model takes other sizes
            run_within(session, None, feeds)
            found.append(feeds)
    return found


def _is_float(value: object) -> bool:
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)


def _noise(
    original: Bare, names: Sequence[str], runs: Sequence[_Run], cuts: Sequence[Cut], nudge: float
) -> tuple[list[float], dict[Cut, float]]:
    """How far a nudge of inputs and weights moves the masked original, choices held: at each output, and each cut.

    The weights of `original` are changed in place. Where a signal has faded, inputs alone move nothing behind them,
    though each layer rounds.
    """
    own = hold(original.proto, cuts, _types(runs))
    nudge_weights(original)
    session = session_of(original, optimise=False)
    worst, at = [0.0] * len(names), dict.fromkeys(cuts, 0.0)
    for seed, run in enumerate(runs):
        feeds = nudged(run.feeds, seed, nudge)
        outputs, values = _run(session, names, feeds, {cut.held: run.held[cut.tensor] for cut in cuts}, own)
        worst = _larger(worst, differences(run.outputs, outputs))
        for cut, value in values.items():
            at[cut] = max(at[cut], *differences([run.held[cut.tensor]], [value]))
    return worst, at


def _larger(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [max(pair) for pair in zip(a, b, strict=True)]


def _errors(
    slim: onnx.ModelProto,
    names: Sequence[str],
    runs: Sequence[_Run],
    cuts: Sequence[Cut],
    coupling: Coupling,
    plan: Plan,
    allowed: Sequence[float],
) -> tuple[list[float], dict[Cut, float]]:
    """How far slim is from the masked original, choices held: at each output, and at every cut that it has.

    What is held differs in the last place from what other nodes read of the same tensor. Where both cancel (x less its
    own largest entries), nothing is left but that difference. An output that is too far off is therefore
    compared without holding as well: equal with choices of its own, it is equal.
    """
    bound, own = slim, dict[Cut, str]()
    if cuts:
        bound = onnx.ModelProto()
        bound.CopyFrom(slim)
        own = hold(bound, cuts, _types(runs))
    session = _session(bound)
    worst, at = [0.0] * len(names), dict.fromkeys(own, 0.0)
    for run in runs:
        left = {cut: _left(cut.tensor, run.held[cut.tensor], coupling, plan) for cut in own}
        held = {cut.held: value for cut, value in left.items()}
        outputs, values = _slim_run(session, names, run.feeds, held, own)
        found = differences(run.outputs, outputs)
        if own and any(error > most for error, most in zip(found, allowed, strict=True)):
            outputs, _ = _slim_run(_session(slim), names, run.feeds, {}, {})
            found = [min(pair) for pair in zip(found, differences(run.outputs, outputs), strict=True)]
        worst = _larger(worst, found)
        for cut, value in values.items():
            at[cut] = max(at[cut], *differences([left[cut]], [value]))
    return worst, at


def _slim_run(
    session: ort.InferenceSession, names: Sequence[str], feeds: Values, held: Values, own: Mapping[Cut, str]
) -> tuple[Outputs, dict[Cut, NDArray[Any]]]:
    try:
        return _run(session, names, feeds, held, own)
    except Exception as error:  # onnxruntime raises untyped errors for what it cannot compute
        raise VerificationError(f"the slim model does not run: {str(error).splitlines()[0]}") from error


def _types(runs: Sequence[_Run]) -> dict[str, tuple[int, int]]:
    held = {name: value for run in runs for name, value in run.held.items()}
    return {name: (int(helper.np_dtype_to_tensor_dtype(v.dtype)), v.ndim) for name, v in held.items()}


def _run(
    session: ort.InferenceSession, names: Sequence[str], feeds: Values, held: Values, own: Mapping[Cut, str]
) -> tuple[Outputs, dict[Cut, NDArray[Any]]]:
    """A model's outputs and what it would have put at every cut, with `held` in place of that."""
    inner = [name for name in dict.fromkeys(own.values()) if name not in feeds and name not in names]
    values = run_within(session, [*names, *inner], {**feeds, **held})
    seen = {**feeds, **dict(zip([*names, *inner], values, strict=True))}
    return values[: len(names)], {cut: seen[name] for cut, name in own.items()}


def _left(tensor: str, value: NDArray[Any], coupling: Coupling, plan: Plan) -> NDArray[Any]:
    """The entries of an original tensor that slim still has."""
    for axis, stays in _masks(tensor, value.ndim, coupling, plan).items():
        value = value.compress(stays, axis=axis)
    return value


def _maps(tensor: str, value: NDArray[Any], coupling: Coupling, plan: Plan) -> bool:
    """Whether what is left of a tensor is known at these sizes of the dynamic axes."""
    masks = _masks(tensor, value.ndim, coupling, plan)
    return all(value.shape[axis] == stays.size for axis, stays in masks.items())


def _masks(tensor: str, rank: int, coupling: Coupling, plan: Plan) -> dict[int, Mask]:
    """Masks of the axes that lose something."""
    dims = {axis: coupling.axes.get((tensor, axis)) for axis in range(rank)}
    masks = {axis: mask(dim, plan.masks) for axis, dim in dims.items() if dim is not None}
    return {axis: stays for axis, stays in masks.items() if not stays.all()}


def _loads(slim: onnx.ModelProto) -> None:
    try:
        check_model(slim)
    except onnx.checker.ValidationError as error:
        raise VerificationError(f"the slim model is not valid: {str(error).splitlines()[0]}") from error


def _session(slim: onnx.ModelProto) -> ort.InferenceSession:
    try:
        return session_of(slim, optimise=False)
    except Exception as error:  # onnxruntime raises untyped errors for an invalid graph
        raise VerificationError(f"the slim model does not load: {str(error).splitlines()[0]}") from error


def _coarsest(model: Model) -> str:
    """The type that sets the network's noise: float16 anywhere among its weights, inputs and outputs, else float32."""
    tensors = [*constants(model.graph), *model.graph.inputs, *model.graph.outputs]
    return "float16" if any(dtype_name(t.dtype) == "float16" for t in tensors) else "float32"
