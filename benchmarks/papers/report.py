"""Tables and plots of the papers' experiments, from what stands in `benchmarks/papers/results`.

    python -m benchmarks.papers.report

Replaces the tables between the markers of `docs/papers.md` and the plots `docs/figures/papers-*.png`.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from benchmarks.papers import draw
from benchmarks.papers.points import ACCURACY, BASELINE, LATENCY, RESULTS, TUNED, Row, Store, name_of

MARK = re.compile(r"(<!-- papers: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
METHODS = ("joint", "halp", "halp-30", "sp-lamp", "uniform", "global", "eagleeye", "onnxsim")


def main() -> None:
    """Draw, and rewrite the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_args()
    rows = joined(args.results)
    tables = {"grouping": grouping(rows), "steps": steps(rows), "solvers": solvers(args.results / "solvers.json")}
    for network in ("resnet18", "resnet56", "mobilenetv2", "resnet50"):
        tables[network] = methods(rows, network)
    page = args.docs / "papers.md"
    page.write_text(MARK.sub(lambda m: f"{m[1]}\n{tables[m[2]]}\n\n{m[3]}", page.read_text()))
    draw.all_figures(rows, args.results, args.docs / "figures")


def joined(results: Path) -> list[Row]:
    """Every point with what is known of it."""
    rows = Store(results / LATENCY).rows()
    known = {name_of(row) for row in rows}
    others = [Store(results / ACCURACY).rows()]
    for start, file in TUNED.items():
        others.append([_renamed(row, f"tuned_{start}") for row in Store(results / file).rows()])
    rows += [row for row in others[0] if row["method"] == BASELINE["method"]]
    known |= {name_of(row) for row in rows}
    more: dict[str, Row] = {}
    for row in (row for table in others for row in table):
        more.setdefault(name_of(row), {}).update(row)
    return [row | more.get(name_of(row), {}) for row in rows]


def _renamed(row: Row, name: str) -> Row:
    return {(name if k == "top1_tuned" else k): v for k, v in row.items() if k != "seconds"}


def selected(rows: list[Row], network: str, score: str | None = None) -> list[Row]:
    """The rows of one network, the unpruned one left out."""
    return [r for r in rows if r["network"] == network and r["method"] != "unpruned" and score in (None, r["score"])]


def methods(rows: list[Row], network: str) -> str:
    """Experiment 1."""
    lines = []
    shown = [row for row in selected(rows, network) if row["method"] in METHODS]
    shown.sort(key=lambda r: (float(r["budget"][:-1]), r["score"] != "taylor", METHODS.index(r["method"])))
    for row in shown:
        name = row["method"] if row["score"] == "taylor" else f"{row['method']}, {row['score']}"
        lines.append([row["budget"], name, *_measured(row), *_accuracies(row)])
    head = ["budget", "method", "measured speedup", "importance kept", "MACs left", "as pruned", "recovered",
            "fine-tuned as pruned", "fine-tuned recovered"]  # fmt: skip
    return table(head, lines)


def grouping(rows: list[Row]) -> str:
    """Experiment 2."""
    lines = []
    for row in selected(rows, "resnet18", "taylor"):
        method, _, size = row["method"].partition("/")
        if size or (method == "halp-30" and row["budget"] in ("1.6x", "2.5x")):
            lines.append([row["budget"], size or "latency-aware", *_measured(row), *_accuracies(row)[:2]])
    lines.sort(key=lambda line: (line[0], line[1].rjust(2) if line[1].isdigit() else ""))
    head = ["budget", "group size", "measured speedup", "importance kept", "MACs left", "as pruned", "recovered"]
    return table(head, lines)


def steps(rows: list[Row]) -> str:
    """Experiment 3."""
    lines = []
    for row in selected(rows, "resnet18", "taylor"):
        plain = re.fullmatch(r"joint|halp(-\d+)?", row["method"])
        if plain and row["budget"] in ("1.6x", "2.5x", "4x"):
            name = "joint" if row["method"] == "joint" else f"k = {row['method'].partition('-')[2] or 1}"
            lines.append([row["budget"], name, *_measured(row), *_accuracies(row)[:2]])
    lines.sort(key=lambda line: (float(line[0][:-1]), line[1] == "joint", int(line[1].partition("= ")[2] or 0)))
    head = ["budget", "steps", "measured speedup", "importance kept", "MACs left", "as pruned", "recovered"]
    return table(head, lines)


def solvers(path: Path) -> str:
    """Experiment 5."""
    if not path.exists():
        return ""
    found: dict[tuple[str, int], dict[str, Row]] = {}
    for row in json.loads(path.read_text())["rows"]:
        found.setdefault((row["network"], row["widths"]), {})[row["solver"]] = row
    names = list(dict.fromkeys(name for by_solver in found.values() for name in by_solver))
    lines = [[f"{network}, {widths} widths", *(_solved(by.get(name)) for name in names)]
             for (network, widths), by in found.items()]  # fmt: skip
    return table(["instance", *names], lines)


def _solved(row: Row | None) -> str:
    """Value kept, gap where there is a bound, seconds."""
    if row is None:
        return ""
    if row["kept"] is None:
        return "model too large" if row["seconds"] is None else f"no solution in {row['seconds']:.0f} s"
    gap = "" if row["gap"] is None else f", {max(row['gap'], 0.0):.3%}"
    return f"{row['kept']:.3%}{gap}, {row['seconds']:.1f} s"


def _measured(row: Row) -> list[str]:
    if row["status"] not in ("met", "over budget"):
        why = f"fastest is {row['fastest']:.2f}x" if "fastest" in row else "no choice of widths fits"
        return [why, "", ""]
    late = "" if row["status"] == "met" else " (missed)"
    return [f"{row['speedup']:.2f}x{late}", _share(row.get("importance")), _share(row.get("macs"))]


def _accuracies(row: Row) -> list[str]:
    return [_share(row.get(k), 2) for k in ("top1", "top1_recovered", "tuned_pruned", "tuned_recovered")]


def _share(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{100 * value:.{digits}f}%"


def table(head: list[str], lines: list[list[str]]) -> str:
    """Markdown; columns that are empty everywhere are left out."""
    if not lines:
        return "Not measured yet."
    used = [i for i in range(len(head)) if any(line[i] for line in lines)]
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row[i] for i in used) + " |" for row in rows)


if __name__ == "__main__":
    main()
