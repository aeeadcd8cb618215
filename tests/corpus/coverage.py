"""Compile every network of a folder to half of its MACs and let the oracle judge; a table for docs/coverage.md.

python -m tests.corpus.coverage CORPUS --results coverage.jsonl --table docs/coverage.md
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from halpc import HalpcError, Options, compile_model, parse_budget
from halpc.errors import InfeasibleError
from halpc.inspection import inspect
from tests.corpus.oracle import judge
from tests.corpus.row import VARIANT, Variant

BUDGET = "50%"
PROVEN = 1e-8  # gap that is rounding


def row(path: Path) -> dict[str, Any]:
    """Everything the table says of one network."""
    found: dict[str, Any] = {"network": path.stem}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        try:
            report, asked = compiled(path, out)
        except HalpcError as error:
            return {**found, "status": type(error).__name__, "why": str(error).removeprefix(f"{path}: ")}
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


def named(stem: str) -> tuple[str, Variant]:
    """A file's network and variant."""
    match = re.fullmatch(rf"(.+?)-({VARIANT.pattern})", stem)
    assert match is not None, stem
    return match[1], Variant.parse(match[2])


def kinds(variant: Variant) -> list[str]:
    """What is particular about a variant, for the summary."""
    tests = {
        "TorchScript exporter": variant.exporter == "torchscript",
        "dynamo exporter": variant.exporter == "dynamo",
        "opset 11 or older": variant.opset <= 11,
        "opset 20 or newer": variant.opset >= 20,
        "open batch": variant.dynamic == "batch",
        "open batch and sizes": variant.dynamic == "size",
        "unfolded": not variant.folded,
        "quantised": variant.after != "" and not variant.after.startswith("fp16"),
        "float16": variant.after.startswith("fp16"),
    }
    return [kind for kind, holds in tests.items() if holds]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a summary, a line per kind of variant, then a line per file."""
    done = [r for r in rows if r["status"] == "ok"]
    couple = sorted(r["couple_s"] for r in done) or [0.0]
    several = [r for r in done if r.get("sizes", 1) > 1]
    lines = [
        "# Coverage",
        "",
        f"{len(rows)} exported networks with random weights, each compiled with `--macs {BUDGET}` (or to its floor,",
        "where that is higher) and judged by `tests/corpus/oracle.py`, which shares no code with halpc. Made by",
        "`python -m tests.corpus.export --out CORPUS` and",
        "`python -m tests.corpus.coverage CORPUS --table docs/coverage.md`.",
        "",
        f"- compiled: {len(done)} of {len(rows)}; equal to the masked original: {len(sound(done))} of {len(done)}",
        f"- at most 60% of their MACs: {len(small(done))}",
        f"- selection proven optimal for its MACs: {sum(r['gap'] <= PROVEN for r in done)} of {len(done)};"
        f" the others are at most {max((r['gap'] for r in done), default=0.0):.2%} below the optimum",
        f"- weighted layers that stay whole without a reason: {sum(r['unexplained'] for r in sound(done))}",
        f"- with open axes and compared at several input sizes: {len(several)}",
        f"- couple: median {couple[len(couple) // 2]:.2f} s,"
        f" nine in ten under {couple[int(0.9 * (len(couple) - 1))]:.2f} s, slowest {couple[-1]:.2f} s",
        "",
        "| files | | compiled | sound | at most 60% of their MACs |",
        "|---|---|---|---|---|",
    ]
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for r in rows:
        for kind in kinds(named(r["network"])[1]):
            by_kind.setdefault(kind, []).append(r)
    for kind, members in sorted(by_kind.items(), key=lambda item: -len(item[1])):
        ok = [r for r in members if r["status"] == "ok"]
        lines.append(f"| {kind} | {len(members)} | {len(ok)} | {len(sound(ok))} | {len(small(ok))} |")
    lines += [
        "",
        "| network | variant | MACs left | parameters left | groups | couple s | sizes | error | noise allowed "
        "| stays whole because |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(line(r) for r in rows),
    ]
    return "\n".join(lines) + "\n"


def sound(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [r for r in rows if r["status"] == "ok" and r["sound"]]


def small(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [r for r in sound(rows) if r["macs_left"] <= 0.6]


def line(r: dict[str, Any]) -> str:
    """A file's line."""
    network, variant = named(r["network"])
    if r["status"] != "ok":
        return f"| {network} | {variant} | {r['status']} | | | | | | | {r['why'][:160].splitlines()[0]} |"
    flag = "" if r["sound"] else " **WRONG**"
    return (
        f"| {network} | {variant} | {r['macs_left']:.1%} | {r['params_left']:.1%} | {r['groups']} |"
        f" {r['couple_s']:.2f} | {r.get('sizes', 1)} | {r['error']:.1e}{flag} | {r['tolerance']:.0e} |"
        f" {'; '.join(r['whole'])} |"
    )


def below(path: Path) -> str:
    """What stands in a table's file from its first second-level heading on: written by hand, and kept."""
    text = path.read_text() if path.exists() else ""
    at = text.find("\n## ")
    return text[at:] if at >= 0 else ""


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
        args.table.write_text(table([rows[k] for k in sorted(rows)]) + below(args.table))


if __name__ == "__main__":
    main()
