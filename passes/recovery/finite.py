"""That activations are numbers: statistics over NaN and infinities say nothing, and what is chosen by them is chance.

Only what a statistic is made of is looked at: a mask of −inf that the network adds before a Softmax disturbs none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from halpc.errors import CalibrationError
from passes.calibration import Calibration
from passes.recovery.segments import Walk

LARGEST = 1e15  # squares of more than that, added up in float32, are infinite
NAMED = 5  # inputs that a message names


def usable(array: NDArray[Any]) -> bool:
    """Whether second moments can be had of an array."""
    return bool(array.min(initial=0) > -LARGEST and array.max(initial=0) < LARGEST)  # false of NaN


def comparable(array: NDArray[Any]) -> bool:
    """Whether an output can be compared: no NaN, and not infinite everywhere."""
    return not array.size or (not np.isnan(array).any() and bool(np.isfinite(array).any()))


def culprits(
    model: onnx.ModelProto,
    tensor: str,
    calibration: Calibration,
    fine: Callable[[NDArray[Any]], bool] = usable,
    *,
    threads: int = 0,
) -> list[int]:
    """Places in the source of the inputs that make `tensor` something that is not fine; batch by batch where fixed."""
    walk = Walk(model, tuple(calibration.batches(1)), [[tensor]], threads=threads)
    spoilt = [at for at, tensors in enumerate(walk.step()) if not fine(tensors[tensor])]
    batches = calibration.order.reshape(-1, calibration.batch or 1)
    return sorted(batches[spoilt].reshape(-1).tolist())


def refusal(calibration: Calibration, places: Sequence[int], where: str) -> CalibrationError:
    """What to say of inputs that give no numbers.

    Args:
        places: of the inputs in the source, in order; none where it is not known which they are.
        where: the tensor, and the layer.
    """
    count, named = len(calibration), ", ".join(map(str, places[:NAMED])) + ", …" * (len(places) > NAMED)
    which = f"{len(places)} of {count} inputs (from 0: {named})" if places else f"some of {count} inputs"
    if len(places) == count:
        which = f"all {count} inputs"
    return CalibrationError(
        f"{calibration.source}: {which}, finite themselves, give NaN, Inf or more than {LARGEST:g} in {where}:"
        " leave them out, or prepare them as in training (or --score l2 --recover off, which look at no activations)"
    )
