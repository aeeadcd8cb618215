"""Compile every network of a folder to half of its MACs and let the oracle judge; a table for docs/coverage.md.

python -m tests.corpus.coverage CORPUS --results coverage.jsonl --table docs/coverage.md
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from halpc import HalpcError, Options, compile_model, parse_budget
from halpc.errors import InfeasibleError
from halpc.inspection import inspect
from tests.corpus.oracle import judge

BUDGET = "50%"


def row(path: Path) -> dict[str, Any]:
    """Everything the table says of one network."""
    found: dict[str, Any] = {"network": path.stem}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        try:
            report, asked = compiled(path, out)
        except HalpcError as error:
            return {**found, "status": type(error).__name__, "why": str(error)}
        except Exception as error:  # a crash is a result here
            return {**found, "status": "crash", "why": f"{type(error).__name__}: {error}"}
        found |= {
            "status": "ok",
            "asked": asked,
            "macs_left": report.result.macs / max(report.baseline.macs, 1),
        }
        found |= {
            "params_left": report.result.params / max(report.baseline.params, 1),
            "groups": len(report.groups),
        }
        found |= {f"{stage}_s": report.stage_seconds[stage] for stage in ("load", "couple", "select")}
        found["gap"] = report.gap
        try:
            judgement = judge(path, out / "plan.json", out / "pruned.onnx")
        except Exception as error:  # the oracle cannot judge this one: said, not counted as sound
            return {**found, "status": "unjudged", "why": f"{type(error).__name__}: {error}"[:300]}
        found |= {
            "error": judgement.error,
            "tolerance": judgement.tolerance,
            "moved": judgement.moved,
            "sizes": judgement.sizes,
        }
        found["sound"] = judgement.sound
    found["whole"], found["unexplained"] = reasons(path)
    return found


def compiled(path: Path, out: Path) -> tuple[Any, str]:
    """At the budget, or, where that is below the floor, just above the floor."""
    try:
        return compile_model(Options(path, (parse_budget("macs", BUDGET),), out=out)), BUDGET
    except InfeasibleError as error:
        amount = f"{error.floor * 1.001:.0f}"
        return compile_model(Options(path, (parse_budget("macs", amount),), out=out)), amount


def reasons(path: Path) -> tuple[list[str], int]:
    """The commonest reasons for layers that stay whole, and how many such layers have none."""
    whole = inspect(path, {}, None, (), False).whole
    counts: dict[str, int] = {}
    for reason in whole.values():
        short = reason.split(" (")[0]
        counts[short] = counts.get(short, 0) + 1
    commonest = sorted(counts.items(), key=lambda item: -item[1])[:2]
    return [f"{n}x {reason}" for reason, n in commonest], sum(not reason for reason in whole.values())


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a summary, then a line per network."""
    done = [r for r in rows if r["status"] == "ok"]
    sound = [r for r in done if r["sound"]]
    small = [r for r in sound if r["macs_left"] <= 0.6]
    couple = sorted(r["couple_s"] for r in done) or [0.0]
    lines = [
        "# Coverage",
        "",
        f"{len(rows)} exported networks with random weights, each compiled with `--macs {BUDGET}` (or to its floor,",
        "where that is higher) and judged by `tests/corpus/oracle.py`, which shares no code with halpc. Made by",
        "`python -m tests.corpus.export --out CORPUS` and",
        "`python -m tests.corpus.coverage CORPUS --table docs/coverage.md`.",
        "",
        f"- compiled: {len(done)} of {len(rows)}; equal to the masked original: {len(sound)} of {len(done)}",
        f"- at most 60% of their MACs: {len(small)}",
        f"- couple: median {couple[len(couple) // 2]:.2f} s,"
        f" nine in ten under {couple[int(0.9 * (len(couple) - 1))]:.2f} s, slowest {couple[-1]:.2f} s",
        "",
        "| network | MACs left | parameters left | groups | couple s | error | noise allowed | stays whole because |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        if r["status"] != "ok":
            lines.append(f"| {r['network']} | {r['status']} | | | | | | {r['why'][:160]} |")
            continue
        flag = "" if r["sound"] else " **WRONG**"
        lines.append(
            f"| {r['network']} | {r['macs_left']:.1%} | {r['params_left']:.1%} | {r['groups']} | {r['couple_s']:.2f} |"
            f" {r['error']:.1e}{flag} | {r['tolerance']:.0e} | {'; '.join(r['whole'])} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Resume from the results file, judge what is missing, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--results", type=Path, default=Path("coverage.jsonl"))
    parser.add_argument("--table", type=Path)
    parser.add_argument("--only", default="*")
    args = parser.parse_args()
    old = args.results.read_text().splitlines() if args.results.exists() else []
    rows = {r["network"]: r for r in map(json.loads, old)}
    with args.results.open("a") as stream:
        for path in sorted(args.corpus.glob(f"{args.only}.onnx"), key=lambda file: file.stat().st_size):
            if path.stem in rows:
                continue
            started = time.perf_counter()
            rows[path.stem] = {**row(path), "seconds": round(time.perf_counter() - started, 1)}
            stream.write(json.dumps(rows[path.stem]) + "\n")
            stream.flush()
            print(json.dumps(rows[path.stem])[:200], flush=True)
    if args.table is not None:
        args.table.write_text(table([rows[k] for k in sorted(rows)]))


if __name__ == "__main__":
    main()
