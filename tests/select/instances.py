"""Small random problems, and judges that share no code with the solvers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from halpc.errors import InfeasibleError
from halpc.ir.dims import Dim, Leaf, Product, Sum
from halpc.ir.problem import Charge, Choice, Problem, Resource

KINDS = ("integers", "floats", "ties", "zeros", "stairs", "falling")


def lookup(table):
    """A cost function that reads a table at its widths."""
    return lambda *axes: table[axes]


def random_table(rng, shape, kind):
    """float64 of `shape`: costs of one kind, never negative."""
    if kind == "zeros":
        return np.where(rng.random(shape) < 0.6, 0.0, rng.integers(1, 9, shape)).astype(float)
    if kind == "ties":
        return rng.integers(0, 3, shape).astype(float)
    if kind == "floats":
        return rng.random(shape) * 0.7 + 0.1
    grid = np.ones(shape)
    for axis, n in enumerate(shape):
        line = np.ceil(np.arange(n) / 3) + 1.0
        grid = grid * (line[::-1] if kind == "falling" else line).reshape(
            [-1 if a == axis else 1 for a in range(len(shape))]
        )
    if kind in ("stairs", "falling"):
        return grid * rng.uniform(0.5, 2.0)
    return rng.integers(0, 20, shape).astype(float)


def random_choice(rng, name, options, vanish):
    """A group with up to `options` widths, sometimes only one, sometimes with width 0."""
    size = int(rng.integers(2, 8))
    count = int(rng.integers(1, min(options, size) + 1))
    widths = np.sort(rng.choice(np.arange(0 if vanish else 1, size + 1), count, replace=False))
    scores = np.sort(np.round(rng.random(size) * 4, int(rng.integers(0, 3))))[::-1].copy()
    value = np.concatenate([[0.0], np.cumsum(scores)])[widths]
    if rng.random() < 0.2:
        value = np.round(rng.random(count) * 5, 1)
    return Choice(name, widths.astype(np.int64), value, int(rng.integers(1, 4)), scores), size


def random_axis(rng, groups):
    """A leaf, a sum, a product, a nested one, or a constant."""
    pick = [groups[i] for i in rng.permutation(len(groups))]
    form = rng.random()
    if form < 0.6 or len(pick) < 2:
        return pick[0]
    if form < 0.75:
        return Sum(tuple(pick[: int(rng.integers(2, 5))]))
    if form < 0.85:
        return Product((pick[0], pick[1]))
    if form < 0.90:
        return Product((Leaf("const", 2), pick[0]))
    if form < 0.95:
        return Sum((Sum((pick[0], pick[1])), Leaf("const", 3), pick[0]))
    return Product((Sum((pick[0], pick[1])), pick[-1]))


def random_problem(seed, *, groups=5, options=4, resources=1, compound=True, tight=None):
    """A problem whose limits lie somewhere between what its cheapest and dearest choices cost, or just outside."""
    rng = np.random.default_rng(seed)
    made = [random_choice(rng, f"g{i}", options, rng.random() < 0.2) for i in range(int(rng.integers(1, groups + 1)))]
    choices = tuple(choice for choice, _ in made)
    dims: list[Dim] = [Leaf(choice.name, size) for choice, size in made]
    budgets = []
    for r in range(resources):
        kind = KINDS[int(rng.integers(len(KINDS)))]
        charges = []
        for c in range(int(rng.integers(1, 2 * len(dims) + 1))):
            count = int(rng.integers(1, 3))
            axes = tuple(
                random_axis(rng, dims) if compound else dims[int(rng.integers(len(dims)))] for _ in range(count)
            )
            table = random_table(rng, tuple(axis.size + 1 for axis in axes), kind)
            charges.append(Charge(f"c{c}", axes, lookup(table)))
        fixed = float(rng.choice([0.0, 1.0, 0.3]))
        free = Resource(f"r{r}", "u", np.inf, fixed, tuple(charges))
        samples = [free.spent({c.name: int(rng.choice(c.widths)) for c in choices}) for _ in range(30)]
        share = rng.uniform(-0.1, 1.05) if tight is None else tight
        limit = min(samples) + share * (max(samples) - min(samples))
        limit = float(np.floor(limit)) if kind in ("integers", "ties", "zeros") else float(limit)
        if rng.random() < 0.2:
            limit = float(samples[0])
        budgets.append(Resource(f"r{r}", "u", limit, fixed, tuple(charges)))
    return Problem(choices, tuple(budgets))


def every_choice(problem) -> Iterator[dict[str, int]]:
    """All widths there are."""
    for widths in itertools.product(*(choice.widths.tolist() for choice in problem.choices)):
        yield {choice.name: w for choice, w in zip(problem.choices, widths, strict=True)}


def brute_force(problem):
    """(best value or None, least cost per resource) over every choice."""
    best, least = None, np.full(len(problem.resources), np.inf)
    for widths in every_choice(problem):
        spent = np.array([resource.spent(widths) for resource in problem.resources])
        least = np.minimum(least, spent)
        if all(spent <= [resource.limit for resource in problem.resources]):
            value = problem.value(widths)
            best = value if best is None else max(best, value)
    return best, least


def outcome(solve, problem):
    """What a solver returns, or the InfeasibleError it raises."""
    try:
        return solve(problem)
    except InfeasibleError as error:
        return error


def check_every_budget_is_kept(solve, problem, judged=None):
    """A feasible answer no better than the optimum of `judged` (the problem itself), or a refusal that has a reason."""
    best, _ = brute_force(judged or problem)
    found = outcome(solve, problem)
    if isinstance(found, InfeasibleError):
        assert best is None or "--solver joint" in str(found)
        return
    assert problem.feasible(found.widths)
    assert found.value <= best
