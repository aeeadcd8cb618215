"""From a finished job to its report, and from a report to a page."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from halpc import trials
from halpc.ir.groups import Coupling, Group
from halpc.ir.latency import Timing
from halpc.ir.problem import Step
from halpc.ir.report import Figures, GroupLine, Report
from halpc.job import Job
from halpc.units import UNITS

LIBRARIES = ("halpc", "onnx", "onnxruntime", "onnx-graphsurgeon", "numpy", "networkx", "tensorrt", "tensorrt-rtx-cu13")


def report(job: Job) -> Report:
    """Everything a reader needs to trust the result, or not."""
    widths = job.selection.widths
    before, after = job.timings or (None, None)
    found = job.evidence
    before_ms, after_ms = (None, None) if found is None else (found.baseline_ms, found.measured_ms)
    final = job.recovery.model if job.recovery is not None else job.slim
    return Report(
        status="dry run" if job.options.dry_run else trials.status(job),
        model=str(job.options.model),
        budget={b.resource: _limit(job, b.resource, b.text) for b in job.options.budgets},
        baseline=replace(
            _figures(job, {}, before, before_ms, job.model.size_bytes, job.accuracy_before), params=job.whole("params")
        ),
        result=_figures(job, widths, after, after_ms, final.ByteSize(), job.accuracy),
        predicted_latency_ms=job.rounds[-1]["predicted_ms"] if job.rounds else _predicted(job, widths),
        predicted_baseline_ms=_predicted(job, {}),
        importance_kept=importance_kept(job),
        gap=job.selection.gap if np.isfinite(job.selection.bound) else None,
        bound_means=job.selection.bound_means,
        verification={
            **asdict(job.verification),
            "passed": job.verification.passed,
            "model": "slim, before recovery",
            "conversion_error": job.conversion,
        },
        recovery=_recovery(job),
        prices=dict(job.selection.prices),
        groups=_lines(job),
        pinned={name: str(group.pin) for name, group in pinned(job.coupling).items()},
        rounds=tuple(job.rounds),
        stage_seconds={name: round(s, 4) for name, s in job.seconds.items()},
        profiler=_profiler(job),
        device=_device(job),
        versions=versions(),
        solver=job.selection.solver,
        notes=tuple(job.notes),
        precision=job.options.precision,
    )


def engine(job: Job) -> dict[str, Any]:
    """What the builder says of the engine that it wrote."""
    built = job.engine
    return {
        "backend": built.backend,
        "version": built.version,
        "gpu": built.gpu,
        "precisions": dict(built.precisions),
        "size_bytes": built.size_bytes,
        "seconds": round(built.seconds, 3),
        "latency_ms": job.engine_ms,
        "warnings": list(built.warnings),
    }


def _predicted(job: Job, widths: Mapping[str, int]) -> float | None:
    """Latency by the model alone, in ms, where nothing was measured."""
    return job.costs["latency"].at(widths) if job.profiler is None and "latency" in job.costs else None


def _device(job: Job) -> dict[str, Any]:
    """What latencies are of: what measured them, or what the table was taken on."""
    if job.profiler is not None:
        return dict(job.profiler.device.as_json())
    return dict(job.table.device.as_json()) if job.table is not None else {"kind": "analytic"}


def _limit(job: Job, resource: str, text: str) -> dict[str, Any]:
    return {
        "limit": job.limits[resource],
        "unit": UNITS[resource],
        "asked": text,
        "predicted": job.cost(resource).at(job.selection.widths),
    }


def _figures(
    job: Job,
    widths: Mapping[str, int],
    timing: Timing | None,
    latency_ms: float | None,
    size: int,
    accuracy: float | None,
) -> Figures:
    spread = None
    if timing is not None:
        low, high = np.percentile(timing.samples_ms, [25, 75])
        spread = float(high - low) / 2
    return Figures(
        macs=job.costs["macs"].at(widths),
        params=job.costs["params"].at(widths),
        peak_memory=job.memory.at(widths),
        latency_ms=latency_ms,
        latency_spread_ms=spread,
        size_bytes=size,
        accuracy=accuracy,
    )


def importance_kept(job: Job) -> float:
    """Share of all importance in free groups that the chosen channels carry."""
    total = sum(float(job.saliency.curve(name)[-1]) for name in job.masks)
    kept = sum(float(job.saliency.curve(name)[int(mask.sum())]) for name, mask in job.masks.items())
    return kept / total if total > 0 else 1.0


def _recovery(job: Job) -> dict[str, Any] | None:
    if job.recovery is None:
        return None
    return {
        "error_before": job.recovery.error_before,
        "error_after": job.recovery.error_after,
        "seconds": job.recovery.seconds,
        "layers": [asdict(layer) for layer in job.recovery.layers],
    }


def pinned(coupling: Coupling) -> dict[str, Group]:
    """Groups of channels that carry weights and stay whole; the extents of kernels are no channels."""
    return {
        name: group
        for name, group in coupling.groups.items()
        if group.pin is not None and group.size > 1 and any(m.axis < 2 or "Conv" not in m.op for m in group.members)
    }


def _lines(job: Job) -> tuple[GroupLine, ...]:
    steps = {step.group: step for step in job.selection.steps}
    detected = job.costs.get("latency", job.costs["macs"]).steps
    return tuple(
        _line(group, detected.get(name, 1), steps[name], job.selection.prices)
        for name, group in job.coupling.free().items()
    )


def _line(group: Group, detected: int, step: Step, prices: Mapping[str, float]) -> GroupLine:
    layers = tuple(dict.fromkeys(m.node for m in group.members))
    line = GroupLine(step.group, group.size, step.width, detected, layers)
    if step.next_width is None:
        return line
    return replace(
        line,
        next_width=step.next_width,
        next_gain=step.gain,
        next_cost=dict(step.cost),
        next_price={name: step.gain / cost for name, cost in step.cost.items() if cost > 0},
        next_asked=sum(prices[name] * cost for name, cost in step.cost.items()) if prices else None,
    )


def _profiler(job: Job) -> dict[str, Any]:
    if job.profiler is None:
        if job.table is None:
            return {"backend": "analytic", "regime": "counted, not measured"}
        return {"backend": "table", "regime": f"predicted from {job.table.path}, not measured", **job.profile_stats}
    regime = job.timings[0].regime if job.timings else ""
    return {
        "backend": job.profiler.device.backend,
        "regime": regime,
        "percentile": job.options.percentile,
        **job.profile_stats,
    }


def table_json(job: Job) -> dict[str, Any]:
    """The cost models in numbers, for `latency.json`."""
    return {
        "format": "halpc.latency-model",
        "version": 1,
        "device": _device(job),
        "rounds": job.rounds,
        "costs": {
            name: {
                "unit": c.unit,
                "fixed": c.fixed,
                "scale": c.scale,
                "knee": c.knee,
                "more": c.more,
                "response": c.response.as_json(),
                "baseline": c.at({}),
                "steps": dict(c.steps),
            }
            for name, c in job.costs.items()
        },
    }


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def html(report: Report) -> str:
    """The report as one self-contained page."""
    from halpc.page import render

    return render(report)
