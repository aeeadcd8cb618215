"""Random networks: a stem, some random steps, and a head on everything that nobody read."""

from __future__ import annotations

import numpy as np
import onnx

from tests.fuzz.network import Network
from tests.fuzz.steps import STEPS, conv

LARGEST = 6000  # entries of a tensor, to keep runs short


def grow(seed: int) -> onnx.ModelProto:
    """A random network; the same for the same seed."""
    net = Network(seed)
    net.pool = [conv(net, "image")[0]]
    net.pool += conv(net, net.pool[0])
    wanted = int(net.rng.integers(4, 14))
    tries = 0
    while wanted and tries < 100:
        tries += 1
        wanted -= _grown(net)
    probes = [str(net.pick(*net.pool)) for _ in range(net.pick(0, 0, 1, 2))]
    heads = [_head(net, x) for x in net.pool if x not in net.read]
    outputs = [*dict.fromkeys([*heads, *(_added_up(net, x) for x in probes)])]
    return net.model(outputs)


def _grown(net: Network) -> bool:
    step, x = net.pick(*STEPS), str(net.pick(*net.pool[-4:]))
    nodes, types, read = len(net.nodes), dict(net.types), set(net.read)
    try:
        made = step(net, x)
    except (ValueError, IndexError, KeyError, onnx.shape_inference.InferenceError, onnx.checker.ValidationError):
        made = []
    if not made or any(len(net.shape(t)) < 2 or np.prod(net.shape(t)) > LARGEST for t in made):
        del net.nodes[nodes:]
        net.types, net.read = types, read
        return False
    net.pool += made
    return True


def _added_up(net: Network, x: str) -> str:
    """A sum without weights: exact only where what is removed is zero."""
    shape = net.shape(x)
    return net.add(
        "ReduceSum", x, net.ints(1 if len(shape) in (2, 4) and net.chance(0.7) else len(shape) - 1), keepdims=1
    )


def _head(net: Network, x: str) -> str:
    """Weigh what is there, along the axis where channels are; some tensors go out as they are."""
    shape = net.shape(x)
    kind = net.pick(*["weigh"] * 7, "sum", "sum", "raw")
    if kind == "raw":
        return x
    if kind == "sum" and len(shape) > 1:
        return _added_up(net, x)
    if len(shape) == 4:
        return net.add("Conv", x, net.weight(3, shape[1], 1, 1))
    return net.add("MatMul", x, net.weight(shape[-1], 3))
