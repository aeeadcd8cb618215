"""Plots of the papers' experiments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.papers.points import Row

SERIES = {
    ("joint", "taylor"): ("joint", "tab:blue", "o-"),
    ("halp-30", "taylor"): ("halp-30", "tab:orange", "s-"),
    ("sp-lamp", "taylor"): ("sp-lamp", "tab:green", "^-"),
    ("uniform", "taylor"): ("uniform", "0.4", "d-"),
    ("global", "taylor"): ("global", "tab:brown", "v-"),
    ("eagleeye", "taylor"): ("eagleeye", "tab:purple", "P-"),
    ("onnxsim", "taylor"): ("onnxsim", "tab:red", "x-"),
    ("joint", "unrecoverable"): ("joint, unrecoverable", "tab:blue", "o--"),
    ("halp-30", "unrecoverable"): ("halp-30, unrecoverable", "tab:orange", "s--"),
    ("uniform", "unrecoverable"): ("uniform, unrecoverable", "0.4", "d--"),
}
DRAWN = ("joint", "halp-30", "uniform")
BUDGET = "2.5x"


def all_figures(rows: list[Row], results: Path, folder: Path) -> None:
    """Every figure there is data for."""
    folder.mkdir(parents=True, exist_ok=True)
    networks = [n for n in ("resnet18", "resnet56", "mobilenetv2") if any(r["network"] == n for r in rows)]
    for column, name in (("top1_recovered", "recovered"), ("tuned_pruned", "finetuned")):
        accuracy(rows, [n for n in networks if _has(rows, n, column)], column, folder / f"papers-{name}.png")
    structure(rows, folder / "papers-structure.png")
    if (results / "staircase.json").exists():
        staircase(json.loads((results / "staircase.json").read_text()), folder / "papers-staircase.png")


def _has(rows: list[Row], network: str, column: str) -> bool:
    return any(column in r for r in rows if r["network"] == network and r["method"] != "unpruned")


def accuracy(rows: list[Row], networks: list[str], column: str, path: Path) -> None:
    """Top-1 against measured speedup, one panel per network (HALP's figure 7)."""
    if not networks:
        return
    figure = Figure(figsize=(5.2 * len(networks), 4.0), layout="constrained")
    for axes, network in zip(figure.subplots(1, len(networks), squeeze=False)[0], networks, strict=True):
        for (method, score), (label, colour, style) in SERIES.items():
            points = [r for r in rows if (r["network"], r["method"], r["score"]) == (network, method, score)]
            points = sorted((r["speedup"], 100 * r[column]) for r in points if column in r and r["status"] == "met")
            if points:
                axes.plot(*zip(*points, strict=True), style, color=colour, label=label, markersize=4, linewidth=1)
        whole = [r for r in rows if r["network"] == network and r["method"] == "unpruned"]
        axes.plot([1], [100 * whole[0]["top1"]], "k*", label="unpruned")
        shown = [y for line in axes.lines for y in np.asarray(line.get_ydata())]
        axes.set_ylim(max(min(shown), float(np.median(shown)) - 12) - 1, max(shown) + 1)
        axes.set(title=network, xlabel="measured speedup", ylabel="top-1, %", xlim=(0.9, 5.2))
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=7, loc="lower left")
    figure.savefig(path, dpi=110)


def structure(rows: list[Row], path: Path) -> None:
    """Channels that stay of every group, at one budget (HALP's figure 12)."""
    chosen = [r for r in rows if r["network"] == "resnet18" and r["score"] == "taylor" and r["budget"] == BUDGET]
    chosen = [r for method in DRAWN for r in chosen if r["method"] == method and "widths" in r]
    if not chosen:
        return
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    names = list(chosen[0]["widths"])
    place = np.arange(len(names))
    for i, row in enumerate(chosen):
        _, colour, _ = SERIES[row["method"], "taylor"]
        shares = [100 * kept / size for kept, size in row["widths"].values()]
        axes.bar(place + 0.28 * (i - 1), shares, 0.26, color=colour, label=f"{row['method']}, {row['speedup']:.2f}x")
    labels = [f"{_short(n)} ({size})" for n, (_, size) in chosen[0]["widths"].items()]
    axes.set_xticks(place, labels, rotation=50, ha="right", fontsize=7)
    axes.set(ylabel="channels that stay, %", title=f"resnet18 at {BUDGET}, Taylor importance", ylim=(0, 100))
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def _short(name: str) -> str:
    parts = [p for p in name.split("/") if p and not p.startswith("Conv")]
    return "/".join(parts[1:] if len(parts) > 1 and parts[1].startswith(parts[0]) else parts)


def staircase(found: dict[str, Any], path: Path) -> None:
    """Latency of one convolution against its width, and what multiply-adds alone would say (HALP's figure 9)."""
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    macs, times = np.array(found["macs"]), np.array(found["ms"])
    axes.plot(found["widths"], times, ".-", markersize=4, linewidth=0.8, label="measured")
    rate = times[-1] / macs[-1]
    axes.plot(found["widths"], macs * rate, color="0.6", label="in proportion to multiply-adds")
    axes.set(xlabel="output channels", ylabel="ms",
             title=f"3x3, {found['inner']} channels in, {found['side']}x{found['side']}")  # fmt: skip
    axes.set_xticks(range(0, max(found["widths"]) + 1, 16))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
