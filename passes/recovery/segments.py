"""Runs a network over calibration inputs piece by piece, keeping only the tensors that later pieces need.

A layer-wise method asks for one layer's input after another. Running the network from its inputs each time
would be quadratic in its depth; keeping every activation would not fit. A `Walk` keeps the *frontier*: the
tensors, per batch, that computed nodes hand to nodes still to come. Each step runs only the nodes between
the frontier and what is asked for, so that all steps together run the network once. Where a frontier would
exceed the memory allowed, the older one stays and the nodes between are run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from halpc.errors import BackendError
from passes.inputs import Arrays
from passes.proto import reads
from passes.runtime import level_of

Tensors: TypeAlias = dict[str, NDArray[Any]]


def open_session(model: onnx.ModelProto, threads: int = 0) -> ort.InferenceSession:
    """An onnxruntime session on the CPU, which computes what the model says (`level_of`).

    Args:
        threads: intra-op threads, 0 for onnxruntime's default.

    Raises:
        BackendError: onnxruntime refuses the model.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = level_of(model)
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False  # an arena would keep the largest piece's memory through all others
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        raise BackendError(f"onnxruntime refuses the model: {error}") from error


def run_session(session: ort.InferenceSession, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
    """All outputs by name.

    Raises:
        BackendError: onnxruntime fails on these inputs.
    """
    names = [output.name for output in session.get_outputs()]
    try:
        values = session.run(names, dict(feeds))
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        raise BackendError(f"onnxruntime cannot run the model on these inputs: {error}") from error
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


@dataclass(slots=True)
class Walk:
    """One pass over a network, in steps.

    Attributes:
        model: may have its initializers replaced between steps, as long as no computed tensor depends on them.
        batches: per batch, an array per input of the model.
        schedule: per step, the names of the tensors it asks for.
        memory_bytes: most that the frontier may take.
        threads: of onnxruntime.
    """

    model: onnx.ModelProto
    batches: Sequence[Arrays]
    schedule: Sequence[Sequence[str]]
    memory_bytes: int = 2 << 30
    threads: int = 0
    frontier: list[Tensors] = field(init=False)
    _makers: dict[str, int] = field(init=False)
    _needed: set[int] = field(init=False)
    _done: set[int] = field(init=False, default_factory=set)
    _at: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.frontier = [dict(batch) for batch in self.batches]
        self._makers = {name: i for i, node in enumerate(self.model.graph.node) for name in node.output if name}
        everything = [name for step in self.schedule for name in step]
        self._needed = self._ancestors(everything)

    def step(self) -> Iterator[Tensors]:
        """The next step's tensors, batch by batch."""
        wanted = list(dict.fromkeys(self.schedule[self._at]))
        self._at += 1
        nodes = self._ancestors(wanted)
        keep = self._live(self._done | nodes)
        missing = [name for name in wanted if name not in self.frontier[0]]
        fresh = [name for name in keep if name not in self.frontier[0]]
        if not nodes:
            yield from self._serve(wanted, keep)
            return
        session, feeds = self._session(nodes, list(dict.fromkeys(missing + fresh)))
        advance = True
        for index, held in enumerate(self.frontier):
            made = run_session(session, {name: held[name] for name in feeds})
            both = {**held, **made}
            if index == 0:
                later = sum(both[name].nbytes for name in keep) * len(self.frontier)
                advance = later <= max(self.memory_bytes, self._frontier_bytes())
            if advance:
                self.frontier[index] = {name: both[name] for name in keep}
            yield {name: both[name] for name in wanted}
        if advance:
            self._done |= nodes

    def _serve(self, wanted: Sequence[str], keep: set[str]) -> Iterator[Tensors]:
        for index, held in enumerate(self.frontier):
            yield {name: held[name] for name in wanted}
            self.frontier[index] = {name: held[name] for name in held if name in keep}

    def _frontier_bytes(self) -> int:
        return sum(array.nbytes for held in self.frontier for array in held.values())

    def _ancestors(self, names: Sequence[str]) -> set[int]:
        """Nodes to run for `names`, starting at the frontier."""
        held = self.frontier[0]
        found: set[int] = set()
        pending = [name for name in names if name not in held]
        while pending:
            maker = self._makers.get(pending.pop())
            if maker is None or maker in found:
                continue
            found.add(maker)
            pending += [name for name in reads(self.model.graph.node[maker]) if name not in held]
        return found

    def _live(self, done: set[int]) -> set[str]:
        """Tensors that nodes or steps still to come read, and that `done` nodes or the inputs provide."""
        later = {name for step in self.schedule[self._at :] for name in step}
        for index in self._needed - done:
            later |= reads(self.model.graph.node[index])
        made = {name for index in done for name in self.model.graph.node[index].output}
        return later & (made | set(self.frontier[0]))

    def _session(self, nodes: set[int], outputs: Sequence[str]) -> tuple[ort.InferenceSession, list[str]]:
        """A session for `nodes` alone, and the frontier tensors that feed it."""
        chosen = [self.model.graph.node[index] for index in sorted(nodes)]
        read = set().union(*(reads(node) for node in chosen))
        made = {name for node in chosen for name in node.output}
        feeds = sorted(name for name in read - made if name in self.frontier[0])
        inputs = [helper.make_tensor_value_info(name, _element_type(self.frontier[0][name]), None) for name in feeds]
        results = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(chosen, "piece", inputs, results)
        graph.initializer.extend(item for item in self.model.graph.initializer if item.name in read)
        piece = helper.make_model(graph, opset_imports=self.model.opset_import, functions=self.model.functions)
        piece.ir_version = self.model.ir_version
        return open_session(piece, self.threads), feeds


def _element_type(array: NDArray[Any]) -> int:
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))
