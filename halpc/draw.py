"""Drawings by matplotlib (extra `plots`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import networkx as nx

from halpc.errors import BackendError
from halpc.ir.frontier import Point

log = logging.getLogger(__name__)

COSTS: Final = {
    "latency": ("latency_ms", "measured latency [ms]"),
    "macs": ("macs", "MACs"),
    "params": ("params", "parameters"),
    "peak-memory": ("peak_memory", "peak memory [bytes]"),
}


def _axes(width: float, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendError("drawing needs matplotlib: pip install 'halpc[plots]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def draw_coupling(graph: nx.Graph, path: Path) -> None:
    """Groups in one column, layers in another, an edge where a layer is part of a group.

    Raises:
        BackendError: matplotlib is not installed.
    """
    sides = {kind: [n for n, d in graph.nodes(data=True) if d["kind"] == kind] for kind in ("group", "layer")}
    figure, axes = _axes(10, max(3.0, 0.22 * max(map(len, sides.values()), default=1)))
    place = {n: (x, -i / max(len(side), 1)) for x, side in enumerate(sides.values()) for i, n in enumerate(side)}
    for a, b in graph.edges:
        axes.plot(*zip(place[a], place[b], strict=True), color="0.8", linewidth=0.7, zorder=1)
    for name, data in graph.nodes(data=True):
        colour = "0.6" if data["pin"] else ("tab:blue" if data["kind"] == "group" else "black")
        align = "right" if data["kind"] == "group" else "left"
        axes.text(*place[name], data["label"], color=colour, ha=align, va="center", fontsize=7)
    axes.set_xlim(-0.6, 1.6)
    axes.axis("off")
    figure.savefig(path)


def draw_sweep(points: Sequence[Point], resource: str, path: Path) -> None:
    """Importance kept and top-1 against cost, one dot per budget; skipped, and said, without matplotlib.

    Cost is the resource, or MACs where latency was predicted and not measured.
    """
    try:
        figure, axes = _axes(7, 4.5)
    except BackendError as error:
        log.warning("%s; no plot was drawn", error)
        return
    done = [point.outcome for point in points if point.outcome is not None]
    measured = all(found.result.latency_ms is not None for found in done)
    cost, label = COSTS[resource if resource != "latency" or measured else "macs"]
    x = [getattr(found.result, cost) for found in done]
    axes.plot(x, [100 * found.importance_kept for found in done], "o-", label="importance kept")
    if done and done[0].baseline.accuracy is not None:
        axes.plot(x, [100 * (found.result.accuracy or 0.0) for found in done], "s-", label="top-1")
        axes.plot(
            [getattr(done[0].baseline, cost)], [100 * done[0].baseline.accuracy], "k*", label="top-1 of the original"
        )
    axes.set_xlabel(label)
    axes.set_ylabel("%")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
