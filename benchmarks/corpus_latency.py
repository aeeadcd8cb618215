"""Networks that halpc was never tuned on, each compiled to a latency budget with an empty cache of tables.

    python -m benchmarks.corpus_latency FOLDER... --results corpus.jsonl --seconds 100

compiles ONNX files of the folders in a random order, each to a budget drawn by its name, one after the other on this
core, and adds a line of facts per network to the results. Networks that have one are left out, so that a run may be
broken off and resumed. Prints the table over all results. Open axes get the sizes that an INDEX.json beside the file
gives as an example (`tests/corpus/export.py` writes one), else those that halpc assumes. Other arguments go to
`halpc compile`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

BUDGETS = ("85%", "70%", "60%", "50%", "2x", "1.5x")
LIMIT_S = 300
Facts: TypeAlias = dict[str, Any]


def main() -> None:
    """Compile what has no line yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=math.inf, help="after which no network is begun")
    parser.add_argument("--seed", type=int, default=0)
    args, options = parser.parse_known_args()
    lines = args.results.read_text().splitlines() if args.results.exists() else []
    rows = [json.loads(line) for line in lines]
    known = {row["network"] for row in rows}
    files = [path for folder in args.folders for path in sorted(folder.glob("*.onnx"))]
    random.Random(args.seed).shuffle(files)
    ends = time.monotonic() + args.seconds
    for path in (path for path in files if path.stem not in known):
        if time.monotonic() > ends:
            break
        rows.append(compiled(path, random.Random(f"{args.seed} {path.stem}").choice(BUDGETS), options))
        with args.results.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


def compiled(path: Path, budget: str, options: Sequence[str]) -> Facts:
    """One network in a process of its own, and what can be said of that."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "said").open("w+") as said:
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "halpc", "compile", str(path), "--latency", budget, "--profiler",
                   "onnxruntime", "--output", str(out), *shapes_of(path), *options]  # fmt: skip
        started = time.monotonic()
        process = subprocess.Popen(
            command, env={**os.environ, "HALPC_CACHE": folder}, stdout=subprocess.DEVNULL, stderr=said
        )
        timer = threading.Timer(LIMIT_S, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        facts = {"network": path.stem, "budget": budget, "exit": process.returncode, "said": said.read()[-2000:],
                 "seconds": round(time.monotonic() - started, 1), "peak_mb": usage.ru_maxrss // 1024}  # fmt: skip
        report = out / "report.json"
        return facts | (reported(json.loads(report.read_text())) if report.exists() else {})


def shapes_of(path: Path) -> list[str]:
    """`--shape` for every input with open axes, where the folder's index knows sizes."""
    index = path.parent / "INDEX.json"
    inputs = json.loads(index.read_text()).get(path.name, {}).get("inputs", ()) if index.exists() else ()
    sizes = {v["name"]: "x".join(map(str, v["example"])) for v in inputs if v["shape"] != v["example"]}
    return [argument for name, size in sizes.items() for argument in ("--shape", f"{name}:{size}")]


def reported(report: Facts) -> Facts:
    """What counts of a report; errors are those of the first choice's predicted latency."""
    rounds, before, after = report["rounds"], report["baseline"], report["result"]
    return {
        "baseline_ms": before["latency_ms"],
        "used": after["latency_ms"] / report["budget"]["latency"]["limit"],
        "speedup": before["latency_ms"] / after["latency_ms"],
        "first_off": rounds[0]["predicted_ms"] / rounds[0]["measured_ms"] - 1,
        "rounds": max(r["round"] for r in rounds),
        "samples": report["profiler"]["samples"],
        "stages": report["stage_seconds"],
        "notes": report["notes"],
    }


def table(rows: Sequence[Facts]) -> str:
    """All results in lines of a Markdown table; shares as median and what nine in ten do not exceed."""
    done = [row for row in rows if "used" in row]
    codes = ", ".join(f"{count} × {code}" for code, count in sorted(Counter(row["exit"] for row in rows).items()))
    used = np.array([row["used"] for row in done if row["exit"] == 0])
    off = np.abs([row["first_off"] for row in done])
    lines = [("networks, exit codes", f"{len(rows)}: {codes}")]
    if done:
        lines += [("of the budget used, where met: at least 97%, 90%, least",
                   f"{(used >= 0.97).mean():.0%}, {(used >= 0.9).mean():.0%}, {used.min():.1%}"),
                  ("first choice's prediction off by", f"{np.median(off):.1%}, {np.percentile(off, 90):.1%}"),
                  ("rounds", f"{np.mean([row['rounds'] for row in done]):.1f} on average")]  # fmt: skip
        for stage in ("profile", "select"):
            lines.append((f"seconds of {stage}", spread([row["stages"][stage] for row in done])))
    lines += [("seconds in all", spread([row["seconds"] for row in rows])),
              ("peak memory, MB", spread([row["peak_mb"] for row in rows]))]  # fmt: skip
    return "\n".join(f"| {name} | {value} |" for name, value in lines)


def spread(values: Sequence[float]) -> str:
    """Median, ninth decile and the largest."""
    return f"{np.median(values):.0f}, {np.percentile(values, 90):.0f}, at most {max(values):.0f}"


if __name__ == "__main__":
    main()
