"""Shapes that nobody can infer, observed: the model is run once on random inputs with these tensors as outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper

from halpc.errors import ModelError
from passes.feeds import random_feeds
from passes.loading.fold import Known
from passes.proto import bare_of
from passes.runtime import run_within, session_of


def observe(graph: gs.Graph, shapes: Mapping[str, tuple[int, ...]], names: Sequence[str]) -> dict[str, Known]:
    """Shapes and dtypes of the named tensors in one run of onnxruntime.

    Raises:
        ModelError: onnxruntime cannot run the model.
    """
    bare = bare_of(graph)
    kept = {o.name for o in bare.proto.graph.output}
    bare.proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in kept)
    try:
        session = session_of(bare, optimise=False)
        values = run_within(session, names, random_feeds(session, shapes))
    except Exception as error:  # onnxruntime raises its own untyped family
        sizes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
        raise ModelError(
            f"onnxruntime cannot run the model on {sizes} to observe its shapes: {str(error).splitlines()[0]}; give"
            " --shape where these sizes are not the model's"
        ) from error
    return {
        name: Known(value.shape, int(helper.np_dtype_to_tensor_dtype(value.dtype)))
        for name, value in zip(names, values, strict=True)
        if isinstance(value, np.ndarray)
    }
