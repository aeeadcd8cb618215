"""That load read the file as onnxruntime does.

What was respelt, inlined and folded must compute what the file itself computes, else the slim model and the masked
original, both made of what load gave, would be wrong alike. Compared are the outputs and what nodes that select read;
where something that selects or draws lies before them a difference says nothing, since one in the last place may be
behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray

from halpc.errors import ModelError, VerificationError, shortened
from halpc.ir.model import Model
from halpc.room import make_room
from passes.bare import Bare
from passes.feeds import telling_feeds
from passes.loading.spellings import write_out_functions
from passes.loading.weights import read_weights
from passes.proto import bare_of, bodies
from passes.runtime import run_within, session_of
from passes.verification.noise import differences, nudge_weights, nudged, running_again
from passes.verification.selecting import cuts_of, expose, selects

_DRAWS = (
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
    "Dropout",
)

Values = dict[str, NDArray[Any]]


def check_reading(
    model: Model, settings: Mapping[str, float], *, nudge: float, allowed: Callable[[float], float]
) -> str | None:
    """That the file computes what load made of it, on random inputs.

    Args:
        settings: inputs that always have this value (`--set`).
        nudge: of inputs, as a share.
        allowed: the difference that is allowed where a nudge moves a tensor so far.

    Returns: why onnxruntime does not run the file itself, so that nothing was compared, else None.

    Raises:
        VerificationError: they differ by more than the network's noise.
        ModelError: there are no random inputs for it, or a run of it does not end.
    """
    ours = bare_of(model.graph, model.header)
    file = read_weights(model.path, onnx.load(str(model.path), load_external_data=False))
    write_out_functions(file.proto)
    known, told = _computed(file.proto.graph), _told(ours.proto)
    names = [name for name in told if name in known]
    try:
        feeds, theirs = _values(file, names, model, settings)
    except ModelError as error:  # no inputs can be made for it, or it does not end
        raise ModelError(f"{model.path}: {error}") from error
    except Exception as error:  # onnxruntime's errors are untyped; what it does not run is no reference
        return shortened(str(error).splitlines()[0])
    del file
    make_room(model.size_bytes)
    expose(ours.proto, names)
    try:
        own = _run(ours, names, feeds)
    except Exception as error:  # likewise
        raise VerificationError(
            f"{model.path}: onnxruntime runs the file, but not what halpc read of it: {str(error).splitlines()[0]};"
            " nothing was written. This is a bug of halpc: please report the model"
        ) from error
    found = differences(theirs, own)
    if max(found, default=0.0) <= allowed(0.0):
        return None
    nudge_weights(ours)
    with running_again(model.path):
        moved = differences(own, _run(ours, names, nudged(feeds, 0, nudge)))
    for name, off, noise in zip(names, found, moved, strict=True):
        if off > allowed(noise) and told[name]:
            raise VerificationError(
                f"{model.path}: halpc reads {name} otherwise than onnxruntime, by {off:.2e} (relative), allowed"
                f" {allowed(noise):.2e}; nothing was written. This is a bug of halpc: please report the model"
            )
    return None


def _values(
    file: Bare, names: Sequence[str], model: Model, settings: Mapping[str, float]
) -> tuple[Values, list[NDArray[Any]]]:
    """Inputs, and what the file gives under these names."""
    expose(file.proto, names)
    session = session_of(file, optimise=False)
    return telling_feeds(session, model.shapes, names, settings)


def _run(ours: Bare, names: Sequence[str], feeds: Values) -> list[NDArray[Any]]:
    session = session_of(ours, optimise=False)
    own = {value.name for value in session.get_inputs()}
    return run_within(session, names, {name: value for name, value in feeds.items() if name in own})


def _told(model: onnx.ModelProto) -> dict[str, bool]:
    """Outputs and operands of nodes that select: whether nothing selects or draws before them."""
    unsettled: set[str] = set()
    for node in model.graph.node:
        inside = [node, *(inner for body in bodies([node]) for inner in body.node)]
        before = {name for each in inside for name in each.input}
        if before & unsettled or any(selects(each) or each.op_type in _DRAWS for each in inside):
            unsettled.update(node.output)
    names = [*(value.name for value in model.graph.output), *(cut.tensor for cut in cuts_of(model))]
    fed = {value.name for value in model.graph.input}
    return {name: name not in unsettled for name in names if name not in fed}


def _computed(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node for name in node.output}
