"""`halp`: HALP's augmented knapsack, in k steps.

    items       per group, its channels by falling importance, chunked by the latency step of its layers
    worth       Σ importance of the chunk
    weight      c_j = T(p_prev, j) − T(p_prev, j−1), the neighbours at their current widths p
    knapsack    max Σ worth, Σ weight ≤ capacity, chunk j only after chunk j−1 of its group
    steps       targets fall geometrically from the cost now to the budget; weights are read anew at each

Where the paper is silent, this is how it was completed:
  - The narrowest admissible width of a group is no item: it stays. The capacity is what is left above that.
  - Chunks end at admissible widths, and where the group stands now.
  - Costs become integers by rounding up in units of 1/8192 of what is to be divided.
  - A negative weight widens the table by as much, so that it can be spent before it is earned.
  - Frozen neighbours can leave a solve above its target (non-monotone costs, shrinking inputs that make a
    kernel slower). The solve is then repeated at the new widths, with a tighter target if nothing moved;
    if that ends above the budget, the cheapest choice there is replaces it.
  - Several budgets, of which the paper has one, are kept as `frozen.within_all` says.
  - The knapsack is not always optimal: a chunk enters an entry of the table only on its own merit, and only where
    all chunks before it stand. It is kept as it is: this is the baseline.

So chunks must not be smaller than the staircase's tiles. The first channel of a tile has the whole tile's weight
and the worth of one channel; those behind it, free of charge, are not seen when it is judged. It enters everywhere in
the table of the first group, where nothing competes, and hardly anywhere in those of later groups, whose channels
behind it then may not enter either. At group size 1 early groups therefore stay whole and late ones are emptied. It
is neither the order among equals nor rounding: the same items with the best prefix per group (`knapsack`) lose nothing
to tiles (benchmarks/solvers.py, "finest" against "finest, exact"). The paper groups channels by the latency step.

Source: Shen et al., "HALP: Hardware-Aware Latency Pruning", arXiv 2110.10811, equations 2–6 and algorithm 1;
"Structural Pruning via Latency-Saliency Knapsack", arXiv 2210.06659. From the mathematics, not the code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from halpc.errors import UsageError
from halpc.ir.problem import Choice, Problem, Resource, Selection, Widths
from passes.select.factors import Floats, Ints
from passes.select.frozen import CELLS, contributions, score_curve, whole_units, within_all
from passes.select.joint import cheapest
from passes.select.outcome import selection

Knapsack: TypeAlias = Callable[[Sequence[Floats], Sequence[Ints], int], list[int]]

ROUNDS = 40  # solves in one step until its target is met


@dataclass(frozen=True, slots=True)
class Items:
    """One group's chunks: chunk j leads from `widths[j-1]` to `widths[j]`.

    Attributes:
        widths: int64[chunks + 1]; the first is the narrowest admissible width, always kept.
        worth: float64[chunks].
    """

    widths: Ints
    worth: Floats


def halp(
    problem: Problem, *, steps: int = 1, start: Widths | None = None, knapsack: Knapsack | None = None
) -> Selection:
    """Widths by HALP in `steps` steps from `start` (default: unpruned); groups only shrink.

    Args:
        knapsack: in place of `augmented_knapsack`, for comparisons.

    Raises:
        InfeasibleError: no choice fits the limits.
        UsageError: no steps, or start widths that are not admissible.
    """
    started = time.perf_counter()
    begin = start_widths(problem, start)

    def within(one: Problem) -> dict[str, int]:
        (resource,), widths = one.resources, dict(begin)
        for target in schedule(resource.spent(widths), resource.limit, steps):
            widths = _reach(one, resource, widths, target, knapsack or augmented_knapsack)
        return widths if one.feasible(widths) else cheapest(one)

    widths = within_all(problem, "halp", begin, within)
    return selection(problem, widths, solver="halp", started=started)


def schedule(start: float, target: float, steps: int) -> list[float]:
    """`steps` targets that fall geometrically from `start` to `target`, the last exactly `target`.

    Raises:
        UsageError: fewer than one step.
    """
    if steps < 1:
        raise UsageError(f"--steps {steps}: expected at least 1")
    if target >= start or start <= 0 or target <= 0:
        return [target] * steps
    return [start * (target / start) ** (step / steps) for step in range(1, steps)] + [target]


def start_widths(problem: Problem, start: Widths | None) -> dict[str, int]:
    """Current width per group; the widest admissible where `start` says nothing."""
    widths = {choice.name: int(choice.widths[-1]) for choice in problem.choices}
    for choice in problem.choices:
        wanted = (start or {}).get(choice.name)
        if wanted is None:
            continue
        if wanted not in choice.widths:
            raise UsageError(f"start width {wanted} of group {choice.name!r} is not admissible")
        widths[choice.name] = int(wanted)
    return widths


def _reach(
    problem: Problem, resource: Resource, widths: dict[str, int], target: float, knapsack: Knapsack
) -> dict[str, int]:
    """Solve at the current widths until the cost read anew is within `target`."""
    aim = target
    for _ in range(ROUNDS):
        spent = resource.spent(widths)
        if spent <= target:
            break
        found = solve(problem, resource, widths, aim, knapsack)
        if found == widths:
            aim -= max(spent - target, 0.02 * abs(target))
        widths = found
    return widths


def solve(problem: Problem, resource: Resource, widths: Widths, target: float, knapsack: Knapsack) -> dict[str, int]:
    """One augmented knapsack with costs frozen at `widths`; a target out of reach keeps the least."""
    items = [group_items(choice, widths[choice.name]) for choice in problem.choices]
    columns = contributions(problem, resource, widths)
    costs = [
        column[np.searchsorted(choice.widths, item.widths)]
        for choice, column, item in zip(problem.choices, columns, items, strict=True)
    ]
    capacity = target - resource.spent(widths) - sum(float(cost[0]) for cost in costs)
    refunds = sum(float(-np.minimum(np.diff(cost), 0.0).sum()) for cost in costs)
    unit = (max(capacity, 0.0) + refunds) / CELLS or max(abs(target), 1e-300) / CELLS
    weights = [np.diff(whole) for whole in whole_units([cost - cost[0] for cost in costs], unit)]
    chosen = knapsack([item.worth for item in items], weights, max(0, int(capacity / unit + 1e-9)))
    return {c.name: int(item.widths[n]) for c, item, n in zip(problem.choices, items, chosen, strict=True)}


def group_items(choice: Choice, current: int) -> Items:
    """Chunks of `choice.step` channels up to the current width, ending at admissible widths."""
    widths = choice.widths[choice.widths <= current]
    kept = [int(widths[0])]
    for width in widths[1:].tolist():
        if width // choice.step > kept[-1] // choice.step or width == current:
            kept.append(width)
    ends = np.array(kept, dtype=np.int64)
    curve = score_curve(choice.scores, choice.value, choice.widths)
    return Items(ends, np.diff(curve[np.searchsorted(choice.widths, ends)]))


def augmented_knapsack(worth: Sequence[Floats], weights: Sequence[Ints], capacity: int) -> list[int]:
    """How many chunks of each group to keep: algorithm 1, on integer weights that may be negative.

    best[c] is the most that is kept at a cost of at most c, kept[g, c] how many chunks of g it has. Chunk j
    enters best[c] from best[c − w_j], only if that entry holds exactly the j − 1 chunks before it.
    """
    refund = sum(int(-np.minimum(weight, 0).sum()) for weight in weights)
    room = capacity + 2 * refund  # entry c is a cost of c − refund
    entry = np.arange(room + 1)
    best = np.where(entry >= refund, 0.0, -np.inf)
    kept = np.zeros((len(worth), room + 1), dtype=np.int32)
    for group, (gains, group_weights) in enumerate(zip(worth, weights, strict=True)):
        row = kept[group]
        for chunk, (gain, weight) in enumerate(zip(gains, group_weights, strict=True)):
            origin = entry - weight
            source = np.clip(origin, 0, room)
            with_chunk = best[source] + gain
            enters = (origin >= 0) & (origin <= room) & (row[source] == chunk) & (with_chunk > best)
            best = np.where(enters, with_chunk, best)
            row[enters] = chunk + 1
    chosen: list[int] = []
    left = capacity + refund
    for row, group_weights in zip(kept[::-1], reversed(weights), strict=True):
        count = int(row[left])
        chosen.append(count)
        left -= int(group_weights[:count].sum())
    return chosen[::-1]
