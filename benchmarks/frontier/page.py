"""The frontier as a table and a plot per network, written between two marks of a Markdown page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from halpc.errors import UsageError

START, END = "<!-- frontier: made by python -m benchmarks.frontier --page -->", "<!-- end of frontier -->"
STYLES = {
    "halpc": ("o-", "tab:blue"),
    "halpc, no recovery": ("o:", "tab:blue"),
    "uniform": ("s-", "tab:orange"),
    "uniform, no recovery": ("s:", "tab:orange"),
    "onnxsim": ("v:", "tab:green"),
    "torch-pruning": ("^:", "tab:red"),
    "fine-tuned": ("*--", "black"),
}
Row = dict[str, Any]


def write(rows: list[Row], page: Path, folder: Path) -> None:
    """Replaces what stands between the marks, and draws `recovery-NETWORK.png` into `folder`.

    Raises:
        UsageError: the page has no marks.
    """
    text = page.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise UsageError(f"{page}: expected the lines {START!r} and {END!r}; add them where the table belongs")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    networks = list(dict.fromkeys(row["network"] for row in rows))
    parts = [_conditions(rows)]
    for name in networks:
        own = [row for row in rows if row["network"] == name]
        draw(own, folder / f"recovery-{name}.png", name)
        parts.append(f"![{name}]({folder.relative_to(page.parent).as_posix()}/recovery-{name}.png)")
    page.write_text("\n\n".join([before + START, *parts, table(rows, networks), END]) + after, encoding="utf-8")


def _conditions(rows: list[Row]) -> str:
    made = [row for row in rows if "device" in row]
    seen = {key: ", ".join(dict.fromkeys(str(row[key]) for row in made if row.get(key))) for key in
            ("device", "onnxruntime", "date", "tool", "note", "epoch_images")}  # fmt: skip
    lines = f"{seen['device']}, onnxruntime {seen['onnxruntime']}, one thread, batch 1, fp32; {seen['date']}."
    lines += f" Other tools: {seen['tool']}." if seen["tool"] else ""
    lines += f" An epoch of fine-tuning: {seen['epoch_images']} images." if seen["epoch_images"] else ""
    return lines + (f" {seen['note'][:1].upper()}{seen['note'][1:]}." if seen["note"] else "")


def table(rows: list[Row], networks: list[str]) -> str:
    """Top-1 (and measured speedup) per way and speedup."""
    speedups = sorted({row["speedup"] for row in rows if row["way"] != "unpruned"})
    head = ["way", *(f"{name}, {speedup:g}x" for name in networks for speedup in speedups)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    found = {(row["network"], row["way"], row["speedup"]): row for row in rows}
    for way in STYLES:
        cells = [_cell(found.get((name, way, speedup))) for name in networks for speedup in speedups]
        lines.append("| " + " | ".join([way, *cells]) + " |")
    whole = [found.get((name, "unpruned", 1.0)) for name in networks]
    said = ", ".join(f"{row['network']} {row['top1']:.2%}" for row in whole if row is not None)
    return "\n".join(lines) + f"\n\nTop-1 (measured speedup). Unpruned: {said}."


def _cell(row: Row | None) -> str:
    if row is None:
        return "not run"
    return f"{row['top1']:.2%} ({row['measured']:.2f}x)" if row["status"] == "ok" else row["status"]


def draw(rows: list[Row], path: Path, name: str) -> None:
    """Top-1 over measured speedup, a line per way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    whole = next((row for row in rows if row["way"] == "unpruned"), None)
    for way, (style, colour) in STYLES.items():
        points = sorted((row["measured"], 100 * row["top1"]) for row in rows if row["way"] == way and "top1" in row)
        if points:
            axes.plot(*zip(*points, strict=True), style, color=colour, label=way, markersize=4, linewidth=1)
    if whole is not None:
        axes.axhline(100 * whole["top1"], color="gray", linewidth=0.6)
    axes.set(xlabel="measured speedup", ylabel="top-1, %", title=name, ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6, loc="lower left")
    figure.savefig(path, dpi=90)
