"""Solver quality: value kept, certificate gap and seconds, on the same instances (papers, experiment 5).

    python -m benchmarks.solvers                             the default sizes, about a quarter of an hour
    python -m benchmarks.solvers --networks resnet50 --widths 1000 --seconds 60

Instances are those of `benchmarks/instances.py`. `--widths` is the number of candidate widths in all groups together,
`--share` where the budget lies between the narrowest and the unpruned cost. Solvers: joint, halp in 1 and 30 steps by
the tile as its group size (`finest`: by single widths, `finest, exact`: with the best choice of each group's first
chunks in place of its knapsack's), sp-lamp and, up to `--judged` widths and with a time limit,
two general ones on an exact linear model of the same problem (`judges`): HiGHS (scipy.optimize.milp) and CP-SAT
(ortools, if installed; costs and values are rounded to 1e-7 of their total there). Every solve has a process of its
own, whose peak of resident memory above what it began with is written beside its seconds. Writes solvers.json, row by
row; rows of other instances and solvers that are there stay.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource as usage
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.instances import NETWORKS, instance
from benchmarks.judges import Verdict, by_cp_sat, by_highs
from halpc.errors import HalpcError
from halpc.ir.problem import Problem, Selection
from passes.select import select
from passes.select.halp import halp
from passes.select.sp_lamp import group_knapsack

SIZES = (100, 1_000, 10_000, 100_000)
JUDGES = ("HiGHS", "CP-SAT")
MEASURED = ("value", "bound", "gap", "seconds", "memory_mb")


def best_prefixes(worth: Sequence[np.ndarray], weights: Sequence[np.ndarray], capacity: int) -> list[int]:
    """HALP's knapsack solved to the optimum: how many chunks of each group, one choice per group."""
    kept = [np.concatenate([[0.0], np.cumsum(group)]) for group in worth]
    costs = [np.concatenate([[0], np.cumsum(group)]) for group in weights]
    least = [int(group.min()) for group in costs]
    return group_knapsack(kept, [group - low for group, low in zip(costs, least, strict=True)], capacity - sum(least))


def ours(problem: Problem, by: Callable[..., Selection] = select, **options: Any) -> dict[str, float] | None:
    """Value, gap and seconds of one of halpc's solvers."""
    started = time.perf_counter()
    try:
        found = by(problem, **options)
    except HalpcError:
        return None
    assert problem.feasible(found.widths)
    return Verdict(found.value, found.bound, time.perf_counter() - started).as_row()


def finest(problem: Problem) -> Problem:
    """The problem with every admissible width an end of a chunk, whatever the tiles are."""
    return replace(problem, choices=tuple(replace(choice, step=1) for choice in problem.choices))


def solvers(seconds: float) -> dict[str, Callable[[Problem], dict[str, float] | None]]:
    """All solvers by the name in the table."""
    return {
        "joint": lambda p: ours(p, solver="joint"),
        "halp k=1": lambda p: ours(p, solver="halp", steps=1),
        "halp k=30": lambda p: ours(p, solver="halp", steps=30),
        "halp k=30 finest": lambda p: ours(finest(p), solver="halp", steps=30),
        "halp k=30 finest, exact": lambda p: ours(finest(p), by=halp, steps=30, knapsack=best_prefixes),
        "sp-lamp": lambda p: ours(p, solver="sp-lamp"),
        "HiGHS": lambda p: judged(by_highs(p, seconds)),
        "CP-SAT": lambda p: judged(by_cp_sat(p, seconds)),
    }


def judged(verdict: Verdict | None) -> dict[str, float] | None:
    """A judge's verdict as a row."""
    return verdict and verdict.as_row()


def apart(solve: Callable[[Problem], dict[str, float] | None], problem: Problem) -> dict[str, float] | None:
    """What `solve` gives in a process of its own, with its peak of memory, megabytes above those at its start."""
    inbox, outbox = multiprocessing.Pipe(duplex=False)

    def work() -> None:
        before = usage.getrusage(usage.RUSAGE_SELF).ru_maxrss
        found = solve(problem)
        outbox.send(found and {**found, "memory_mb": (usage.getrusage(usage.RUSAGE_SELF).ru_maxrss - before) / 1024})

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    outbox.close()
    try:
        result: dict[str, float] | None = inbox.recv()
    finally:
        process.join()
    return result


def run(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row per instance and solver."""
    for network in arguments.networks:
        for widths in arguments.widths:
            problem = instance(network, widths, arguments.share)
            total = sum(float(choice.value.max()) for choice in problem.choices)
            count = sum(len(choice.widths) for choice in problem.choices)
            for name, solve in solvers(arguments.seconds).items():
                if name not in (arguments.solvers or [name]) or (name in JUDGES and widths > arguments.judged):
                    continue
                result = apart(solve, problem) or dict.fromkeys(MEASURED, float("nan"))
                row = {
                    "network": network,
                    "groups": len(problem.choices),
                    "widths": count,
                    "solver": name,
                    **result,
                }
                yield {**row, "kept": result["value"] / total}


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table that is printed and written."""
    lines = ["| network | groups | widths | solver | kept | gap | seconds | MB |", "|---|--:|--:|---|--:|--:|--:|--:|"]
    for row in rows:
        gap = "–" if not np.isfinite(row["gap"]) else f"{100 * row['gap']:.4f}%"
        kept = "–" if np.isnan(row["kept"]) else f"{100 * row['kept']:.3f}%"
        seconds = "–" if np.isnan(row["seconds"]) else f"{row['seconds']:.2f}"
        memory = "–" if np.isnan(row["memory_mb"]) else f"{row['memory_mb']:.0f}"
        head = f"| {row['network']} | {row['groups']} | {row['widths']} | {row['solver']} "
        lines.append(f"{head}| {kept} | {gap} | {seconds} | {memory} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--widths", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--solvers", nargs="+", default=[])
    parser.add_argument(
        "--share", type=float, default=0.5, help="budget, from the narrowest (0) to the unpruned (1) cost"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit of the general solvers")
    parser.add_argument("--judged", type=int, default=1_000, help="most widths that the general solvers are tried on")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/papers/results"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    about = {
        "format": "halpc.benchmark.solvers",
        "version": 1,
        "share": arguments.share,
        "machine": platform.processor(),
    }
    path = arguments.output / "solvers.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    for row in run(arguments):
        print(as_markdown([row]).splitlines()[-1], flush=True)
        new = {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
        if row["solver"] in JUDGES:
            new["limit_seconds"] = arguments.seconds
        rows = [r for r in rows if any(r[k] != new[k] for k in ("network", "widths", "solver"))] + [new]
        path.write_text(json.dumps({**about, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
