"""Tables and plots of the papers' experiments, from what stands in `benchmarks/papers/results`.

    python -m benchmarks.papers.report

Replaces the tables between the markers of `docs/papers.md` and the plots `docs/figures/papers-*.png`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

from benchmarks.papers import draw
from benchmarks.papers.compare import BUDGETS, METHODS
from benchmarks.papers.points import ACCURACY, BASELINE, LATENCY, RESULTS, TUNED, Row, Store, name_of

MARK = re.compile(r"(<!-- papers: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


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
    shown = [row for row in selected(rows, network) if row["method"] in METHODS]
    shown.sort(key=lambda r: (r["score"] != "taylor", METHODS.index(r["method"])))
    return by_budget("method", shown, lambda r: r["method"] + ("" if r["score"] == "taylor" else f", {r['score']}"))


def grouping(rows: list[Row]) -> str:
    """Experiment 2."""
    shown = [r for r in selected(rows, "resnet18", "taylor") if r["budget"] in BUDGETS["grouping"]]
    shown = [r for r in shown if r["method"].partition("/")[0] == "halp-30"]
    shown.sort(key=lambda r: int(r["method"].partition("/")[2] or 0))
    return by_budget("group size", shown, lambda r: r["method"].partition("/")[2] or "latency-aware")


def steps(rows: list[Row]) -> str:
    """Experiment 3."""
    shown = [r for r in selected(rows, "resnet18", "taylor") if r["budget"] in BUDGETS["steps"]]
    shown = [r for r in shown if re.fullmatch(r"joint|halp(-\d+)?", r["method"])]
    shown.sort(key=lambda r: (r["method"] == "joint", int(r["method"].partition("-")[2] or 1)))
    return by_budget("steps", shown, lambda r: {"joint": "joint", "halp": "1"}.get(r["method"], r["method"][5:]))


def by_budget(first: str, rows: list[Row], name: Callable[[Row], str]) -> str:
    """A line per name, in the rows' order, and a column per budget."""
    budgets = sorted({row["budget"] for row in rows}, key=lambda b: float(b[:-1]))
    cells = {(name(row), row["budget"]): cell(row) for row in rows}
    names = list(dict.fromkeys(name(row) for row in rows))
    return table([first, *budgets], [[n, *(cells.get((n, b), "") for b in budgets)] for n in names])


def cell(row: Row) -> str:
    """Measured speedup, and as far as they are known importance and multiply-adds that are left, or accuracies."""
    if row["status"] not in ("met", "over budget"):
        return f"fastest is {row['fastest']:.2f}x" if "fastest" in row else "no widths fit"
    late = "" if row["status"] == "met" else " missed"
    known = [row.get(k) for k in ("top1", "top1_recovered", "tuned_pruned")]
    if known[0] is None and row["network"] == "resnet50":
        known = [row["importance"], row["macs"]]
    shares = ["" if value is None else f"{100 * value:.1f}" for value in known]
    return f"{row['speedup']:.2f}x{late}" + (": " + " / ".join(s or "–" for s in shares) if any(shares) else "")


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


def table(head: list[str], lines: list[list[str]]) -> str:
    """Markdown."""
    if not lines:
        return "Not measured yet."
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *lines])


if __name__ == "__main__":
    main()
