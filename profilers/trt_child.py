"""The process in which TensorRT lives: `python -m profilers.trt_child FOLDER`.

`FOLDER/job.json` says what to do, `FOLDER/result.json` what came of it, `FOLDER/stage` what was being done,
so that a process killed by a signal still says where. Errors that halpc raises on purpose travel as
`{"error": class, "message": text}`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halpc import errors
from halpc.errors import BackendError, HalpcError
from profilers import trt_engine, trt_layers, trt_time
from profilers.cuda import open_cuda, probe

Job = dict[str, Any]


def describe(job: Job, folder: Path) -> Job:
    """Version of the module, and the GPU if there is one."""
    found: Job = {"gpu": None, "problem": None}
    try:
        gpu = probe(job["backend"])
        found["gpu"] = {"name": gpu.name, "capability": gpu.capability, "cuda": gpu.cuda}
    except BackendError as error:
        if job["needs_gpu"]:
            raise
        found["problem"] = str(error)
    found["version"] = str(trt_engine.load(job["backend"]).__version__)
    return found


def unsupported(job: Job, folder: Path) -> Job:
    """Why the parser refuses the model, one sentence per node."""
    trt = _open(job)
    _stage(folder, "checking the operators of the model")
    return {"reasons": trt_engine.unsupported(trt_engine.open_builder(trt), Path(job["model"]))}


def plan(job: Job, folder: Path) -> Job:
    """Builds a plan of each model; with a GPU also reads its layers back from the engine."""
    trt = _open(job)
    settings = trt_engine.Settings(**job["settings"])
    shapes = {name: trt_engine.Profile(*map(tuple, sizes)) for name, sizes in job["shapes"].items()}
    return {"plans": [_plan(trt, settings, shapes, item, job, folder) for item in job["items"]]}


def _plan(trt: Any, settings: Any, shapes: Any, item: Job, job: Job, folder: Path) -> Job:
    model, name = Path(item["model"]), item["name"]
    started = time.perf_counter()
    bench = trt_engine.open_builder(trt)
    _stage(folder, f"parsing {name}")
    trt_engine.parse(bench, model, name)
    _stage(folder, f"building an engine for {name}")
    config = trt_engine.configure(bench, settings, shapes)
    data = trt_engine.build(bench, config, settings, name)
    seconds = time.perf_counter() - started
    Path(item["plan"]).write_bytes(data)
    information = ""
    if job["inspect"]:
        _stage(folder, f"reading the layers of the engine for {name}")
        keep, engine = trt_engine.deserialize(trt, bench.logger, bench.said, Path(item["plan"]))
        information = trt_engine.information(trt, engine, bench.said)
        del keep
    Path(item["information"]).write_text(information)
    found = trt_layers.precisions(trt_layers.layers_of(information))
    return {"seconds": seconds, "size_bytes": len(data), "precisions": found, "warnings": bench.said[-20:]}


def layers(job: Job, folder: Path) -> Job:
    """Milliseconds per run and layer of one engine, and what the engine says about its layers."""
    trt, cuda = _open(job), open_cuda(job["backend"])
    _stage(folder, f"timing the layers of {job['name']}")
    loaded = trt_time.open_engine(trt, cuda, Path(job["plan"]), shapes=_shapes(job), feeds=_feeds(job))
    names, times_ms = trt_time.time_layers(loaded, job["repetitions"])
    information = trt_engine.information(trt, loaded.engine, loaded.said, loaded.context)
    loaded.close()
    return {"names": names, "times_ms": times_ms, "information": information}


def compare(job: Job, folder: Path) -> Job:
    """Milliseconds of every run of every engine, taken in turns."""
    trt, cuda = _open(job), open_cuda(job["backend"])
    engines = []
    for path in job["plans"]:
        _stage(folder, f"loading the engine {Path(path).name}")
        engines.append(trt_time.open_engine(trt, cuda, Path(path), shapes=_shapes(job), feeds=_feeds(job)))
    _stage(folder, "timing the engines")
    times_ms = trt_time.race(engines, job["seconds"])
    captured = all(loaded.graph is not None for loaded in engines)
    for loaded in engines:
        loaded.close()
    rounds = len(times_ms[0]) // trt_time.BURST
    return {"times_ms": times_ms, "rounds": rounds, "regime": trt_time.regime(cuda, captured)}


ACTIONS: dict[str, Callable[[Job, Path], Job]] = {
    "describe": describe, "unsupported": unsupported, "plan": plan, "layers": layers, "compare": compare,
}  # fmt: skip


def _open(job: Job) -> Any:
    """The vendor module, after the driver has been asked for a GPU where the action needs one."""
    if job["needs_gpu"]:
        probe(job["backend"])
    return trt_engine.load(job["backend"])


def _shapes(job: Job) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in job.get("shapes", {}).items()}


def _feeds(job: Job) -> dict[str, NDArray[Any]]:
    if not job.get("feeds"):
        return {}
    with np.load(job["feeds"], allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _stage(folder: Path, text: str) -> None:
    (folder / "stage").write_text(text)


def main(arguments: list[str]) -> int:
    """Does the job in the folder named on the command line; 0 if `result.json` was written."""
    folder = Path(arguments[0])
    job: Job = json.loads((folder / "job.json").read_text())
    try:
        result = ACTIONS[job["action"]](job, folder)
    except HalpcError as error:
        name = type(error).__name__ if hasattr(errors, type(error).__name__) else "BackendError"
        result = {"error": name, "message": str(error)}
    (folder / "result.json").write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
