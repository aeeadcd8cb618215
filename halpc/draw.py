"""Drawings by matplotlib (extra `plots`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx

from halpc.errors import BackendError

log = logging.getLogger(__name__)


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


def draw_sweep(points: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Importance kept and top-1 against cost, one dot per budget; skipped, and said, without matplotlib."""
    done = [p for p in points if "result" in p]
    try:
        figure, axes = _axes(7, 4.5)
    except BackendError as error:
        log.warning("%s; no plot was drawn", error)
        return
    cost = "latency_ms" if done and done[0]["result"]["latency_ms"] is not None else "macs"
    x = [p["result"][cost] for p in done]
    axes.plot(x, [100 * p["importance_kept"] for p in done], "o-", label="importance kept")
    if done and done[0]["result"]["accuracy"] is not None:
        axes.plot(x, [100 * p["result"]["accuracy"] for p in done], "s-", label="top-1")
        axes.plot(
            [done[0]["baseline"][cost]], [100 * done[0]["baseline"]["accuracy"]], "k*", label="top-1 of the original"
        )
    axes.set_xlabel("measured latency [ms]" if cost == "latency_ms" else "MACs")
    axes.set_ylabel("%")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
