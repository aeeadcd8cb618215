"""Random networks: a stem, some random steps, and a head on everything that nobody read.

Long ones find what rules do to each other. Short ones find what a single rule says too much: few steps, any operator,
and nearly every tensor is added up without a weight, which is exact only if what was removed is zero there.
"""

from __future__ import annotations

import numpy as np
import onnx

from tests.fuzz.network import Network
from tests.fuzz.rare import RARE
from tests.fuzz.steps import STEPS, Step, conv

LARGEST = 6000  # entries of a tensor, to keep runs short


def grow(seed: int) -> tuple[onnx.ModelProto, dict[str, tuple[int, ...]]]:
    """A random network and sizes for its inputs; the same for the same seed."""
    net = Network(seed)
    net.pool = [conv(net, "image")[0]]
    probes = _short(net) if net.chance(0.5) else _long(net)
    heads = [_head(net, x) for x in net.pool if x not in net.read]
    outputs = [*dict.fromkeys([*heads, *(_added_up(net, x) for x in probes)])]
    return net.model(outputs), net.inputs


def _long(net: Network) -> list[str]:
    """One step after the other; gives what is to be added up."""
    net.pool += conv(net, net.pool[0])
    wanted, tries = int(net.rng.integers(4, 14)), 0
    while wanted and tries < 100:
        tries += 1
        wanted -= _grown(net, STEPS, str(net.pick(*net.pool[-4:])))
    return [str(net.pick(*net.pool)) for _ in range(net.pick(0, 0, 1, 2))]


def _short(net: Network) -> list[str]:
    """A few steps side by side, each behind a layer of its own, so that what one pins does not shield another."""
    probes = []
    for _ in range(int(net.rng.integers(2, 7))):
        net.pool += conv(net, net.pool[0])
        if net.chance(0.4):
            _grown(net, STEPS, net.pool[-1])
        if _grown(net, RARE if net.chance(0.7) else STEPS, net.pool[-1]) and net.chance(0.6):
            probes.append(net.pool[-1])
    return probes


def _grown(net: Network, steps: tuple[Step, ...], x: str) -> bool:
    step = net.pick(*steps)
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
