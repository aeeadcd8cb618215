"""Literals of the twin that the model itself computes."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray


class Computed(gs.Constant):
    """A literal of the twin that the model computes from its dynamic axes.

    Attributes:
        others: its entries at other sizes of the dynamic axes; empty arrays where its own shape varies.
    """

    others: list[NDArray[np.generic]]
