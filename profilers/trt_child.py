"""The process in which TensorRT lives: `python -m profilers.trt_child`, one folder a line on standard input.

`FOLDER/job.json` says what to do, `FOLDER/result.json` what came of it, `FOLDER/stage` what was being done,
so that a process killed by a signal still says where; a line on standard output says that it is done. Errors that
halpc raises on purpose travel as `{"error": class, "message": text}`.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halpc import errors
from halpc.errors import BackendError, HalpcError
from profilers import trt_engine, trt_layers, trt_time
from profilers.cuda import Cuda, open_cuda, probe

Job = dict[str, Any]


class Worker:
    """Does jobs; what one comparison loads, the next finds loaded, where nothing came between that wants the memory."""

    def __init__(self) -> None:
        self._trt: Any = None
        self._logger: Any = None
        self._cuda: Cuda | None = None
        self._loaded: dict[tuple[Any, ...], trt_time.Loaded] = {}
        self.actions: dict[str, Callable[[Job, Path], Job]] = {
            "describe": self._describe,
            "unsupported": self._unsupported,
            "plan": self._plan,
            "layers": self._layers,
            "compare": self._compare,
        }

    def do(self, folder: Path) -> None:
        """The job in `folder`, whose result, or whose error that halpc raised on purpose, is written there."""
        job: Job = json.loads((folder / "job.json").read_text())
        try:
            result = self.actions[job["action"]](job, folder)
        except HalpcError as error:
            name = type(error).__name__ if hasattr(errors, type(error).__name__) else "BackendError"
            result = {"error": name, "message": str(error)}
        (folder / "result.json").write_text(json.dumps(result))

    def _describe(self, job: Job, folder: Path) -> Job:
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

    def _unsupported(self, job: Job, folder: Path) -> Job:
        """Why the parser refuses the model, one sentence per node."""
        self._open(job)
        _stage(folder, "checking the operators of the model")
        bench = trt_engine.open_builder(self._trt, self._logger)
        return {"reasons": trt_engine.unsupported(bench, Path(job["model"]))}

    def _plan(self, job: Job, folder: Path) -> Job:
        """Builds a plan of a model; where it is asked to, also reads its layers back from the engine."""
        self._open(job)
        self._unload()  # a kernel that finds too little memory to be tried is left out
        model, plan, name = Path(job["model"]), Path(job["plan"]), job["name"]
        settings = trt_engine.Settings(**job["settings"])
        shapes = {name: trt_engine.Profile(*map(tuple, sizes)) for name, sizes in job["shapes"].items()}
        started = time.perf_counter()
        bench = trt_engine.open_builder(self._trt, self._logger)
        _stage(folder, f"parsing {name}")
        trt_engine.parse(bench, model, name)
        _stage(folder, f"building an engine for {name}")
        config = trt_engine.configure(bench, settings, shapes)
        data = trt_engine.build(bench, config, settings, name)
        seconds = time.perf_counter() - started
        plan.write_bytes(data)
        information = ""
        if job["inspect"]:
            _stage(folder, f"reading the layers of the engine for {name}")
            keep, engine = trt_engine.deserialize(self._trt, self._logger, plan)
            information = trt_engine.information(self._trt, engine, bench.said)
            del engine, keep
        Path(job["information"]).write_text(information)
        found = trt_layers.precisions(trt_layers.layers_of(information))
        return {"seconds": seconds, "size_bytes": len(data), "precisions": found, "warnings": bench.said[-20:]}

    def _layers(self, job: Job, folder: Path) -> Job:
        """Milliseconds per run and layer of one engine, and what the engine says about its layers."""
        cuda = self._open_both(job)
        self._unload()
        _stage(folder, f"timing the layers of {job['name']}")
        loaded = trt_time.open_engine(
            self._trt, cuda, Path(job["plan"]), self._logger, shapes=_shapes(job), feeds=_feeds(job)
        )
        names, times_ms = trt_time.time_layers(loaded, job["repetitions"])
        information = trt_engine.information(self._trt, loaded.engine, loaded.said, loaded.context)
        loaded.close()
        return {"names": names, "times_ms": times_ms, "information": information}

    def _compare(self, job: Job, folder: Path) -> Job:
        """Milliseconds of every run of every engine, taken in turns; the engines stay loaded for the next time."""
        cuda = self._open_both(job)
        shapes, feeds = _shapes(job), _feeds(job)
        plans = [Path(plan) for plan in job["plans"]]
        self._unload({_known_by(path, shapes) for path in plans})
        engines = [self._engine(cuda, path, shapes, feeds, folder) for path in plans]
        _stage(folder, "timing the engines")
        times_ms, rounds = trt_time.race(engines, job["seconds"])
        captured = trt_time.captured(engines)
        return {"times_ms": times_ms, "rounds": rounds, "regime": trt_time.regime(cuda, captured)}

    def _engine(self, cuda: Cuda, path: Path, shapes: Any, feeds: Any, folder: Path) -> trt_time.Loaded:
        """The engine of a plan file, its inputs filled: as it stayed, or loaded now."""
        key = _known_by(path, shapes)
        loaded = self._loaded.get(key)
        if loaded is None:
            _stage(folder, f"loading the engine {path.name}")
            loaded = trt_time.open_engine(self._trt, cuda, path, self._logger, shapes=shapes, feeds=feeds)
        elif feeds or loaded.given:  # else they are as they were, and many images take a while
            trt_time.fill(loaded, feeds)
        self._loaded[key] = loaded
        return loaded

    def _unload(self, kept: Collection[tuple[Any, ...]] = ()) -> None:
        """Gives back the memory of all engines but some: how many may be loaded at once is the parent's business."""
        for key in [key for key in self._loaded if key not in kept]:
            self._loaded.pop(key).close()

    def _open(self, job: Job) -> None:
        """The vendor module, after the driver has been asked for a GPU where the action needs one."""
        if job["needs_gpu"]:
            probe(job["backend"])
        if self._trt is None:
            self._trt = trt_engine.load(job["backend"])
            self._logger = trt_engine.make_logger(self._trt)
            trt_engine.register_plugins(self._trt, self._logger)
        self._logger.said.clear()

    def _open_both(self, job: Job) -> Cuda:
        self._open(job)
        if self._cuda is None:
            self._cuda = open_cuda(job["backend"])
        return self._cuda


def _known_by(path: Path, shapes: Any) -> tuple[Any, ...]:
    """What a loaded engine is known by: a file that was written anew is another."""
    stat = path.stat()
    return str(path), stat.st_size, stat.st_mtime_ns, repr(shapes)


def _shapes(job: Job) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in job.get("shapes", {}).items()}


def _feeds(job: Job) -> dict[str, NDArray[Any]]:
    if not job.get("feeds"):
        return {}
    with np.load(job["feeds"], allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _stage(folder: Path, text: str) -> None:
    (folder / "stage").write_text(text)


def _listen(folders: queue.SimpleQueue[Path]) -> None:
    """Hands on what the parent asks for, and ends the process, whatever it is doing, when the parent is gone."""
    with os.fdopen(os.dup(0), "rb", buffering=0) as asked:  # no lock that a dying interpreter would wait for
        for line in asked:
            folders.put(Path(line.decode().rstrip("\r\n")))
    os._exit(0)


def main() -> None:
    """Does the job in every folder that standard input names, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the parent, which ends this process
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    folders: queue.SimpleQueue[Path] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(folders,), daemon=True).start()
    worker = Worker()
    while True:
        worker.do(folders.get())
        print("done", file=answers, flush=True)


if __name__ == "__main__":
    main()
