"""A loaded model: the graph as it came (dynamic axes and all) and its static twin for analysis."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

from halpc.ir.origin import Origin, Recipe


@dataclass(frozen=True, slots=True)
class Model:
    """A model ready for the stages.

    Attributes:
        path: where it was read.
        sha256: of the file (and of its external data).
        graph: constants folded, functions inlined, every node named; dynamic axes stay dynamic.
        twin: the same nodes by name, every shape static, shape subgraphs folded to literals.
        shapes: input name → static shape that the twin was made for.
        dynamic: input name → indices of axes that are dynamic in `graph`.
        size_bytes: of the file and its external data.
        header: the proto without its graph: metadata, producer, versions.
        origins: tensor → what of the file load made it of, for every constant.
        recipes: tensor → how it is computed, for folded constants that take far more room than that.
        stored: entries of weights in the file.
        uniform: names of constants that are no weights: what is removed of them is not zero in the masked original.
    """

    path: Path
    sha256: str
    graph: gs.Graph
    twin: gs.Graph
    shapes: Mapping[str, tuple[int, ...]]
    dynamic: Mapping[str, tuple[int, ...]]
    size_bytes: int
    header: onnx.ModelProto
    origins: Mapping[str, Origin] = field(default_factory=dict)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    stored: float = math.inf
    uniform: Collection[str] = ()
