"""vanishing: what a residual branch takes whatever its width is, which goes where the branch vanishes.

Kernels take some time however few channels they have, and in a branch there are kernels that its inner width does not
change at all: a depthwise convolution on the stream, a normalisation. In the sum over kernels both are fixed; with no
channels inside the branch they are gone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from halpc.ir.cost import CostModel
from halpc.ir.dims import Leaf
from halpc.ir.groups import Coupling
from halpc.ir.problem import Charge
from halpc.ir.table import NetworkSample
from passes.latency.clusters import Cluster
from passes.vanish import dead_without

MOST: Final = 0.9  # of the fixed part that vanishing branches may account for


@dataclass(frozen=True, slots=True)
class Present:
    """A cost in ms that any channel at all brings."""

    ms: float

    def __call__(self, *widths: Any) -> NDArray[np.float64]:
        """float64 of the width's shape."""
        return self.ms * (np.asarray(widths[0]) > 0).astype(np.float64)


def with_vanishing(
    cost: CostModel,
    graph: gs.Graph,
    coupling: Coupling,
    vanishing: Collection[str],
    clusters: Sequence[Cluster],
    networks: Sequence[NetworkSample],
) -> CostModel:
    """The same cost at widths above zero; at zero without what the branch takes at any width.

    Args:
        vanishing: groups that may have no channels.
        clusters: the model's kernels, those included that no width changes.
        networks: measured in context; where none has times of kernels, nothing is known of branches.
    """
    timed = [network for network in networks if network.layers]
    if not timed or not vanishing:
        return cost
    charges = {charge.name: charge for charge in cost.charges}
    gone = {name: dead_without(graph, coupling.groups[name]) for name in vanishing}
    parts: dict[str, float] = {}
    counted: set[str] = set()
    for name in sorted(gone, key=lambda name: len(gone[name])):  # a branch within a branch counts for the inner one
        own = [c.name for c in clusters if c.name in gone[name] and c.name not in counted]
        counted.update(own)
        parts[name] = max(0.0, sum(_constant(kernel, charges, timed) for kernel in own))
    share = min(1.0, MOST * max(cost.fixed, 0.0) / max(sum(parts.values()), 1e-12))
    found = tuple(
        Charge(f"branch of {name}", (Leaf(name, coupling.groups[name].size),), Present(share * ms))
        for name, ms in parts.items()
        if share * ms > 0
    )
    return replace(cost, fixed=cost.fixed - share * sum(parts.values()), charges=(*cost.charges, *found))


def _constant(kernel: str, charges: Mapping[str, Charge], networks: Sequence[NetworkSample]) -> float:
    """What a kernel took beyond what is charged to its widths, in ms: the median over the networks that have it."""
    charge = charges.get(kernel)
    rest = [
        network.layers[kernel] - (0.0 if charge is None else float(charge.at(network.widths)))
        for network in networks
        if kernel in network.layers
    ]
    return float(np.median(rest)) if rest else 0.0
