"""Solver quality: value kept, certificate gap and seconds, on the same instances (papers, experiment 5).

    python benchmarks/solvers.py                             the default sizes, about ten minutes
    python benchmarks/solvers.py --networks resnet50 --widths 1000 --seconds 60 -o benchmarks/results

Instances have the graphs of ResNet-50, DenseNet-121, MobileNet-V2 and a ViT, staircase costs (tiles of 8 to
64 channels, a launch overhead, a plateau per tile) and log-normal channel importance. `--widths` is the
number of candidate widths in all groups together, `--share` where the budget lies between the narrowest and
the unpruned cost. Solvers: joint, halp in 1 and 30 steps, sp-lamp and, with a time limit, two general ones on
an exact linear model of the same problem: HiGHS (scipy.optimize.milp) and CP-SAT (ortools, if installed;
costs and values are rounded to 1e-7 of their total there).
Writes solvers.json and solvers.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from halpc.errors import HalpcError
from halpc.ir.dims import Dim, Leaf, Product, Sum, leaves
from halpc.ir.problem import Charge, Choice, Problem, Resource, Selection
from passes.select import select

SIZES = (100, 1_000, 10_000, 100_000)
CELLS = 4_000_000  # table entries up to which the general solvers are tried


@dataclass
class Draft:
    """A problem being drawn: groups by size, then kernels, then widths for a wanted total."""

    sizes: dict[str, int] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    charges: list[Charge] = field(default_factory=list)
    seed: int = 0

    def group(self, name: str, size: int) -> Leaf:
        """A group of `size` channels."""
        self.sizes[name] = size
        return Leaf(name, size)

    def kernel(self, inner: Dim, outer: Dim, macs: float, tile: int) -> None:
        """A convolution of `macs` multiply-adds per channel pair."""
        self.charges.append(Charge(f"k{len(self.charges)}", (inner, outer), staircase(macs, tile)))
        if isinstance(outer, Leaf):
            self.steps[outer.name] = max(tile, self.steps.get(outer.name, 8))

    def pointwise(self, axis: Dim, work: float) -> None:
        """A depthwise, normalising or activating kernel."""
        name = f"k{len(self.charges)}"
        self.charges.append(Charge(name, (axis,), lambda c: 1e-3 + 1e-9 * work * np.ceil(c / 8) * 8))

    def problem(self, widths: int, share: float) -> Problem:
        """With about `widths` candidate widths, and a budget `share` of the way from narrowest to unpruned."""
        rng = np.random.default_rng(self.seed)
        per_channel = widths / sum(self.sizes.values())
        choices = tuple(
            _choice(rng, name, size, per_channel, self.steps.get(name, 8)) for name, size in self.sizes.items()
        )
        charges = tuple(self.charges)
        full = {c.name: int(c.widths[-1]) for c in choices}
        top = Resource("latency", "ms", np.inf, 0.5, charges).spent(full)
        least = Resource("latency", "ms", np.inf, 0.5, charges).spent({c.name: int(c.widths[0]) for c in choices})
        return Problem(choices, (Resource("latency", "ms", least + share * (top - least), 0.5, charges),))


def staircase(macs: float, tile: int) -> Callable[..., Any]:
    """Launch overhead, then whole tiles in both directions; a tail tile is slightly dearer."""

    def cost(inner: Any, outer: Any) -> Any:
        tiles = np.ceil(inner / 8) * 8 * np.ceil(outer / tile) * tile
        tail = 1.0 + 0.05 * (outer % tile != 0)
        return 4e-3 + 1e-9 * macs * tiles * tail

    return cost


def _choice(rng: np.random.Generator, name: str, size: int, per_channel: float, step: int) -> Choice:
    count = int(np.clip(round(size * per_channel), 1, size))
    widths = np.unique(np.round(np.linspace(size / count, size, count)).astype(np.int64))
    scores = np.sort(rng.lognormal(0.0, 1.0, size))[::-1].copy()
    return Choice(name, widths, np.concatenate([[0.0], np.cumsum(scores)])[widths], step, scores)


def resnet50(factor: int = 1) -> Draft:
    """37 groups: 16 bottlenecks in 4 stages that share their residual widths."""
    draft = Draft()
    before: Dim = draft.group("stem", 64 * factor)
    for stage, (blocks, inner) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        area = 56.0**2 / 4**stage
        residual = draft.group(f"residual{stage}", 4 * inner * factor)
        for block in range(blocks):
            first = draft.group(f"{stage}.{block}.1", inner * factor)
            second = draft.group(f"{stage}.{block}.2", inner * factor)
            draft.kernel(before, first, area, 32)
            draft.kernel(first, second, 9 * area, 32)
            draft.kernel(second, residual, area, 64)
            if block == 0:
                draft.kernel(before, residual, area, 64)
            before = residual
    draft.pointwise(before, 1000.0)
    return draft


def mobilenetv2(factor: int = 1) -> Draft:
    """Inverted residuals: expansions are depthwise, narrow residual widths are shared in a stage."""
    draft = Draft()
    before: Dim = draft.group("stem", 32 * factor)
    settings = [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]
    width, area = 32, 112.0**2
    for stage, (expand, out, blocks) in enumerate(settings):
        area /= 4 if stage in (1, 2, 3, 5) else 1
        residual = draft.group(f"residual{stage}", out * factor)
        for block in range(blocks):
            inner: Dim = before
            if expand > 1:
                inner = draft.group(f"{stage}.{block}", expand * width * factor)
                draft.kernel(before, inner, area, 16)
            draft.pointwise(inner, 9 * area * 8)
            draft.kernel(inner, residual, area, 16)
            before, width = residual, out
    last = draft.group("last", 1280 * factor)
    draft.kernel(before, last, area, 32)
    draft.pointwise(last, 1000.0)
    return draft


def densenet121(factor: int = 1) -> Draft:
    """Every layer reads the concat of all before it in its block."""
    draft = Draft()
    features: list[Dim] = [draft.group("stem", 64 * factor)]
    area = 56.0**2
    for stage, layers in enumerate((6, 12, 24, 16)):
        for layer in range(layers):
            read = Sum(tuple(features)) if len(features) > 1 else features[0]
            inner = draft.group(f"{stage}.{layer}.inner", 128 * factor)
            grown = draft.group(f"{stage}.{layer}.grown", 32 * factor)
            draft.pointwise(read, area)
            draft.kernel(read, inner, area, 32)
            draft.kernel(inner, grown, 9 * area, 32)
            features.append(grown)
        if stage < 3:
            moved = draft.group(f"transition{stage}", sum(f.size for f in features) // 2)
            draft.kernel(Sum(tuple(features)), moved, area, 32)
            features, area = [moved], area / 4
    return draft


def vit(factor: int = 1) -> Draft:
    """ViT-B: 12 layers of heads × dims and a hidden width; the embedding is one group for all."""
    draft = Draft()
    tokens = 197.0
    model = draft.group("embedding", 768 * factor)
    for layer in range(12):
        heads, dims = draft.group(f"{layer}.heads", 12), draft.group(f"{layer}.dims", 64 * factor)
        inner = Product((heads, dims))
        for _ in range(3):
            draft.kernel(model, inner, tokens, 64)
        draft.charges.append(
            Charge(
                f"attention{layer}",
                (heads, dims),
                lambda h, d: 4e-3 + 2e-9 * tokens**2 * h * np.ceil(d / 16) * 16,
            )
        )
        draft.kernel(inner, model, tokens, 64)
        hidden = draft.group(f"{layer}.hidden", 3072 * factor)
        draft.kernel(model, hidden, tokens, 64)
        draft.kernel(hidden, model, tokens, 64)
    return draft


NETWORKS: dict[str, Callable[[int], Draft]] = {
    "resnet50": resnet50,
    "mobilenetv2": mobilenetv2,
    "densenet121": densenet121,
    "vit": vit,
}


def instance(network: str, widths: int, share: float) -> Problem:
    """A network with about `widths` candidate widths; widened where it has fewer channels than that."""
    channels = sum(NETWORKS[network](1).sizes.values())
    return NETWORKS[network](max(1, -(-widths // channels))).problem(widths, share)


@dataclass
class Linear:
    """The problem as a linear model: one binary per width, one variable per entry of a charge's table."""

    objective: np.ndarray
    binaries: int
    equalities: list[tuple[list[int], list[float], float]]
    use: tuple[list[int], list[float], float]


def linear(problem: Problem) -> Linear | None:
    """The linear model of a problem with one resource; None where it would be too large."""
    start, column = {}, 0
    for choice in problem.choices:
        start[choice.name] = column
        column += len(choice.widths)
    widths = {choice.name: choice.widths for choice in problem.choices}
    binaries, cells, costs = column, list[int](), list[float]()
    resource = problem.resources[0]
    room = resource.limit - resource.fixed
    rows = [([start[n] + k for k in range(len(w))], [1.0] * len(w), 1.0) for n, w in widths.items()]
    for charge in resource.charges:
        names = [n for n in dict.fromkeys(leaf.name for a in charge.axes for leaf in leaves(a)) if n in widths]
        shape = [len(widths[n]) for n in names]
        if column - binaries + float(np.prod(shape, dtype=float)) > CELLS:
            return None
        grid = {n: widths[n].reshape([-1 if i == a else 1 for i in range(len(names))]) for a, n in enumerate(names)}
        table = np.broadcast_to(charge.at(grid), shape)
        if len(names) == 1:
            cells += [start[names[0]] + k for k in range(shape[0])]
            costs += table.tolist()
            continue
        at = np.arange(column, column + table.size).reshape(shape)
        column += table.size
        cells += at.ravel().tolist()
        costs += table.ravel().tolist()
        for axis, name in enumerate(names):
            for k in range(shape[axis]):
                marginal = at.take(k, axis).ravel().tolist()
                rows.append(([*marginal, start[name] + k], [1.0] * len(marginal) + [-1.0], 0.0))
    objective = np.zeros(column)
    objective[:binaries] = np.concatenate([choice.value for choice in problem.choices])
    return Linear(objective, binaries, rows, (cells, costs, room))


def by_highs(problem: Problem, seconds: float) -> dict[str, float] | None:
    """Value and gap after at most `seconds` of HiGHS."""
    started = time.perf_counter()
    model = linear(problem)
    if model is None:
        return None
    columns = len(model.objective)
    indices = [i for row, _, _ in model.equalities for i in row]
    entries = [e for _, row, _ in model.equalities for e in row]
    pointers = np.cumsum([0, *(len(row) for row, _, _ in model.equalities)])
    right = np.array([target for _, _, target in model.equalities])
    equal = sparse.csr_array((entries, indices, pointers), shape=(len(right), columns))
    cells, costs, room = model.use
    use = sparse.coo_array((costs, (np.zeros(len(cells), dtype=int), cells)), shape=(1, columns)).tocsr()
    solved = milp(
        -model.objective,
        integrality=(np.arange(columns) < model.binaries).astype(int),
        bounds=Bounds(0.0, 1.0),
        constraints=[LinearConstraint(equal, right, right), LinearConstraint(use, -np.inf, room)],
        options={"time_limit": seconds, "mip_rel_gap": 0.0},
    )
    value = -float(solved.fun) if solved.x is not None else float("nan")
    bound = -float(solved.mip_dual_bound) if solved.mip_dual_bound is not None else float("inf")
    return {"value": value, "gap": (bound - value) / abs(bound), "seconds": time.perf_counter() - started}


def by_cp_sat(problem: Problem, seconds: float) -> dict[str, float] | None:
    """Value and gap after at most `seconds` of CP-SAT, one worker."""
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        return None
    started = time.perf_counter()
    model = linear(problem)
    if model is None:
        return None
    solver_model = cp_model.CpModel()
    columns = [solver_model.new_bool_var("") for _ in range(len(model.objective))]
    for row, factors, target in model.equalities:
        solver_model.add(
            cp_model.LinearExpr.weighted_sum([columns[i] for i in row], [int(f) for f in factors]) == int(target)
        )
    cells, costs, room = model.use
    unit = room / 1e7
    solver_model.add(
        cp_model.LinearExpr.weighted_sum([columns[i] for i in cells], [int(np.ceil(c / unit)) for c in costs]) <= 10**7
    )
    worth = float(sum(choice.value.max() for choice in problem.choices)) / 1e7
    gains = [int(np.floor(v / worth)) for v in model.objective[: model.binaries]]
    solver_model.maximize(cp_model.LinearExpr.weighted_sum(columns[: model.binaries], gains))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 1
    status = solver.solve(solver_model)
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    value = solver.objective_value * worth if found else float("nan")
    bound = solver.best_objective_bound * worth
    return {"value": value, "gap": (bound - value) / abs(bound), "seconds": time.perf_counter() - started}


def ours(problem: Problem, **options: Any) -> dict[str, float] | None:
    """Value, gap and seconds of one of halpc's solvers."""
    started = time.perf_counter()
    try:
        found: Selection = select(problem, **options)
    except HalpcError:
        return None
    assert problem.feasible(found.widths)
    return {"value": found.value, "gap": found.gap, "seconds": time.perf_counter() - started}


def solvers(seconds: float) -> dict[str, Callable[[Problem], dict[str, float] | None]]:
    """All solvers by the name in the table."""
    return {
        "joint": lambda p: ours(p, solver="joint"),
        "halp k=1": lambda p: ours(p, solver="halp", steps=1),
        "halp k=30": lambda p: ours(p, solver="halp", steps=30),
        "sp-lamp": lambda p: ours(p, solver="sp-lamp"),
        "HiGHS": lambda p: by_highs(p, seconds),
        "CP-SAT": lambda p: by_cp_sat(p, seconds),
    }


def run(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row per instance and solver."""
    for network in arguments.networks:
        for widths in arguments.widths:
            problem = instance(network, widths, arguments.share)
            total = sum(float(choice.value.max()) for choice in problem.choices)
            count = sum(len(choice.widths) for choice in problem.choices)
            for name, solve in solvers(arguments.seconds).items():
                if name not in (arguments.solvers or [name]):
                    continue
                result = solve(problem) or {
                    "value": float("nan"),
                    "gap": float("nan"),
                    "seconds": float("nan"),
                }
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
    lines = ["| network | groups | widths | solver | kept | gap | seconds |", "|---|--:|--:|---|--:|--:|--:|"]
    for row in rows:
        gap = "–" if not np.isfinite(row["gap"]) else f"{100 * row['gap']:.4f}%"
        kept = "–" if np.isnan(row["kept"]) else f"{100 * row['kept']:.3f}%"
        seconds = "–" if np.isnan(row["seconds"]) else f"{row['seconds']:.2f}"
        head = f"| {row['network']} | {row['groups']} | {row['widths']} | {row['solver']} "
        lines.append(f"{head}| {kept} | {gap} | {seconds} |")
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
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for row in run(arguments):
        rows.append(row)
        print(as_markdown([row]).splitlines()[-1], flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    about = {
        "format": "halpc.benchmark.solvers",
        "version": 1,
        "share": arguments.share,
        "machine": platform.processor(),
    }
    (arguments.output / "solvers.json").write_text(json.dumps({**about, "rows": rows}, indent=1))
    (arguments.output / "solvers.md").write_text(as_markdown(rows))


if __name__ == "__main__":
    main()
