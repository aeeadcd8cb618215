"""What a change of precision does to a model: how far its outputs move, and whether its values are still numbers.

onnxruntime computes float16 on processors in float32 and leaves out the roundings in between, so a value that leaves
float16's range on a GPU does not do so there, unless it is asked for: every tensor inside is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from halpc.errors import VerificationError
from passes.feeds import telling_feeds
from passes.runtime import session_of
from passes.verification.selecting import expose

_HALF_MAX = float(np.finfo(np.float16).max)
_INFINITY = 1e9  # masks write minus infinity as -1e9 or as the lowest number there is


def conversion_error(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]],
    inputs: Sequence[Mapping[str, NDArray[Any]]] = (),
) -> float | None:
    """Largest |after − before| over an output's largest magnitude; None where this onnxruntime cannot run `after`.

    Args:
        before: the model in float32.
        after: the same at another precision.
        shapes: of random inputs, where `inputs` has none.
        inputs: real inputs to compare on.

    Raises:
        VerificationError: `after` gives infinities or NaN where `before` gives numbers, or would at float16.
    """
    first = session_of(before)
    try:
        feeds = list(inputs) or [telling_feeds(first, shapes)[0]]
        second = session_of(after)
        pairs = [(first.run(None, dict(feed)), second.run(None, dict(feed))) for feed in feeds]
        inside = _inside(before, after, feeds[0])
    except Exception:  # onnxruntime's own exceptions share no base class; what cannot run here is told elsewhere
        return None
    _check_range(inside)
    names = [value.name for value in first.get_outputs()]
    return max((_moved(name, a, b) for run in pairs for name, a, b in zip(names, *run, strict=True)), default=0.0)


def _inside(
    before: onnx.ModelProto, after: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]
) -> dict[str, tuple[Any, Any]]:
    """Every tensor that is float16 in `after`, as `before` computes it and rounded to float16."""
    kinds = {v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(after).graph.value_info}
    known = {name for node in before.graph.node for name in node.output} - {v.name for v in before.graph.output}
    wanted = [name for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT16 and name in known]
    if not wanted:
        return {}
    found = []
    for model in (before, after):
        opened = onnx.ModelProto()
        opened.CopyFrom(model)
        expose(opened, wanted)
        found.append(session_of(opened).run(wanted, dict(feeds)))
    return {name: (a, b) for name, a, b in zip(wanted, *found, strict=True)}


def _check_range(inside: Mapping[str, tuple[Any, Any]]) -> None:
    """No number may become infinite. What stands for infinity (a mask's lowest number, clipped by the conversion) may.

    Raises:
        VerificationError: one does; the message names the tensor with the largest.
    """
    peaks = {name: _lost(a, b) for name, (a, b) in inside.items()}
    worst = max(peaks, key=lambda name: peaks[name], default="")
    if peaks.get(worst, 0.0) > 0.0:
        raise VerificationError(
            f"values of '{worst}' reach {peaks[worst]:.3g} on the calibration inputs (or random ones),"
            f" beyond fp16's {_HALF_MAX:.0f}: use --precision bf16, which has float32's range, or rescale the layer"
        )


def _lost(before: Any, after: Any) -> float:
    """The largest magnitude that is no longer finite, 0 where there is none."""
    gone = np.isfinite(before) & ~np.isfinite(after) & (np.abs(before) < _INFINITY)
    return float(np.abs(before[gone]).max(initial=0.0))


def _moved(name: str, before: Any, after: Any) -> float:
    if not (isinstance(before, np.ndarray) and np.issubdtype(before.dtype, np.floating)) or before.shape != after.shape:
        return 0.0
    lost = np.isfinite(before) & ~np.isfinite(after)
    if lost.any():
        raise VerificationError(
            f"after the conversion {int(lost.sum())} of {lost.size} entries of output '{name}' are infinite or not a"
            " number, where the model in float32 gives numbers: values inside leave the precision's range. bf16 has"
            " float32's range."
        )
    wide = np.where(np.isfinite(before), before, 0).astype(np.float64)
    moved = np.abs(np.where(np.isfinite(before), after, 0).astype(np.float64) - wide)
    return float(moved.max(initial=0.0) / max(float(np.abs(wide).max(initial=0.0)), 1e-30))
