"""Input sizes that the model takes, and what is known of it there."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator

import onnx_graphsurgeon as gs

from halpc.errors import ModelError
from passes.loading.fold import Knowledge, interpret, look_up
from passes.loading.observe import observe
from passes.loading.sizes import Shapes, doubled, halved, open_axes, resized

log = logging.getLogger(__name__)

LARGEST = 1 << 26  # entries of a tensor; sizes that nobody gave are halved where one would be larger
LARGEST_INPUT = 1 << 23  # entries of an input; sizes that nobody gave are not doubled beyond
USUAL = (
    48,
    32,
    64,
    80,
    96,
    112,
    128,
    160,
    192,
    240,
    256,
    299,
    320,
    384,
    416,
    512,
    640,
)  # of images, and of lines of text
SLIDES = ("Conv", "FusedConv", "MaxPool", "AveragePool", "LpPool")  # operators that need a least size


def fitting(
    graph: gs.Graph, static: Shapes, dynamic: Shapes, given: Shapes
) -> tuple[dict[str, tuple[int, ...]], Knowledge]:
    """Shapes of the inputs and what is known at them.

    Sizes that nobody gave are doubled where the model needs more, and halved where a tensor would be too large. Where
    it runs at none of these, usual ones are tried.

    Raises:
        ModelError: the model runs at none of them; what was wrong at the first.
    """
    axes = open_axes(graph, dynamic, given)
    sizes, known = _large_enough(graph, static, axes)
    while _largest(known) > LARGEST and (smaller := halved(sizes, axes)):
        sizes, known = smaller, _known_at(graph, smaller)
    return dict(sizes), known


def _large_enough(graph: gs.Graph, static: Shapes, axes: Shapes) -> tuple[Shapes, Knowledge]:
    first: tuple[Shapes, Knowledge] | None = None
    refusal: ModelError | None = None
    for sizes in _growing(static, axes):
        try:
            known = _known_at(graph, sizes)
        except ModelError as error:
            refusal = refusal or error
            continue
        if not any(_too_small(node, known) for node in graph.nodes):
            return sizes, known
        first = first or (sizes, known)
    if first is None:
        assert refusal is not None
        first = _usual(graph, static, axes)
        if first is None:
            raise refusal
    return first


def _growing(static: Shapes, axes: Shapes) -> Iterator[Shapes]:
    sizes = static
    yield sizes
    while (larger := doubled(sizes, axes)) != sizes and _entries(larger) <= LARGEST_INPUT:
        yield larger
        sizes = larger


def _usual(graph: gs.Graph, static: Shapes, axes: Shapes) -> tuple[Shapes, Knowledge] | None:
    """The first usual size of all open axes that the model runs at."""
    for size in USUAL if any(axes.values()) else ():
        with contextlib.suppress(ModelError):
            sizes = resized(static, axes, size)
            return sizes, _known_at(graph, sizes)
    return None


def _entries(shapes: Shapes) -> int:
    return max(math.prod(max(size, 1) for size in shape) for shape in shapes.values())


def _too_small(node: gs.Node, known: Knowledge) -> bool:
    """Whether an operator's kernel is longer than what it slides along."""
    operands = [look_up(tensor, known.tensors) for tensor in node.inputs[:2]]
    if node.op not in SLIDES or operands[0] is None or node.attrs.get("auto_pad", "NOTSET").startswith("SAME"):
        return False
    sizes = operands[0].shape[2:]
    kernel = node.attrs.get("kernel_shape") or (operands[1].shape[2:] if operands[1:] and operands[1] else ())
    steps = node.attrs.get("dilations") or [1] * len(kernel)
    pads = node.attrs.get("pads") or [0] * (2 * len(kernel))
    rooms = [n + before + after for n, before, after in zip(sizes, pads, pads[len(kernel) :], strict=False)]
    return any((k - 1) * step >= room for k, step, room in zip(kernel, steps, rooms, strict=False))


def _known_at(graph: gs.Graph, shapes: Shapes) -> Knowledge:
    """Shapes and values; what inference cannot tell is observed in one run."""
    known = interpret(graph, shapes)
    if known.unknown:
        log.info("shapes of %d tensors are not inferable: running the model once", len(known.unknown))
        known = interpret(graph, shapes, observe(graph, shapes, known.unknown))
    if known.unknown:
        raise ModelError(f"the shape of tensor {known.unknown[0]} cannot be told at input shapes {dict(shapes)}")
    return known


def _largest(known: Knowledge) -> int:
    """Entries of the largest tensor."""
    return max((math.prod(fact.shape) for fact in known.tensors.values()), default=0)
