"""Local fill: what the prices leave of the budget is spent by moving one or two groups at a time.

For the current widths, the ledger holds what every other width of every group would change, alone. Two
groups that share no charge change additively; for those that do, the second difference of the shared
charges is added. A move may be up, down, or a swap; the best that fits is made, until none is left. The
same moves lead an infeasible choice back under its limits.

With prices λ, a move's reduced gain is ΔV − λ·ΔC. Additive pairs can only gain if neither part loses more
than the best of the others plus what the unspent budget is worth, so only few options need pairing.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from halpc.ir.problem import Problem
from passes.select.dual import Visit, visited
from passes.select.factors import Floats, Ints
from passes.select.ledger import Ledger, Line, Move

REFUSED = 50  # moves in a row that looked as if they fitted and did not
PAIRED = 512  # options that may be paired with each other in one round
NEAR = 256  # options per group that a pair of neighbours is looked through for


def fill(problem: Problem, start: Ints, prices: Floats, *, bound: float, deadline: float) -> Visit:
    """The best choice that moves of one or two groups lead to from `start`, feasible if any move makes it so."""
    ledger = Ledger(problem, start)
    refused = 0
    while refused < REFUSED and time.monotonic() < deadline:
        if np.all(ledger.spare() >= 0) and ledger.at.value >= bound:
            break
        move = _single(ledger) or _additive_pair(ledger, prices) or _adjacent_pair(ledger, prices, deadline)
        if move is None and not _nearer(ledger):
            break
        if move is not None:
            refused = 0 if ledger.make(move) else refused + 1
    return ledger.at


def _nearer(ledger: Ledger) -> bool:
    """Where a limit is broken and no move mends it, the single move after which the worst is broken least."""
    if np.all(ledger.spare() >= 0):
        return False
    finite = np.isfinite(ledger.limits)
    unit = np.maximum(np.abs(ledger.limits[finite]), 1e-300)
    now = -ledger.spare()[finite] / unit
    after = now[:, None] + ledger.costs[finite] / unit[:, None]
    broken = np.maximum(after, 0.0).sum(axis=0)
    best = int(np.argmin(broken))
    if not broken[best] < np.maximum(now, 0.0).sum() * (1 - 1e-12):
        return False
    g, to = ledger.option(best)
    position = ledger.at.position.copy()
    position[g] = to
    ledger.stand(visited(ledger.problem, position), {g})
    return True


def _threshold(ledger: Ledger) -> float:
    """What a move has to gain: something, or anything at all while a limit is broken."""
    return -np.inf if np.any(ledger.spare() < 0) else 1e-13 * max(1e-300, abs(ledger.at.value))


def _single(ledger: Ledger) -> Move | None:
    fits = np.all(ledger.costs <= ledger.spare()[:, None], axis=0) & (ledger.gains > _threshold(ledger))
    numbers = np.flatnonzero(fits)
    order = numbers[np.argsort(-ledger.gains[numbers], kind="stable")]
    for number in order:
        move = Move((ledger.option(int(number)),), float(ledger.gains[number]))
        if move.to not in ledger.banned:
            return move
    return None


def _candidates(ledger: Ledger, prices: Floats) -> Ints:
    """Options that a gaining additive pair can be made of, at most PAIRED, the least losing first."""
    reduced = ledger.gains - prices @ np.where(np.isfinite(ledger.costs), ledger.costs, 0.0)
    reduced = np.where(np.isfinite(ledger.costs).all(axis=0), reduced, -np.inf)
    spare = ledger.spare()
    worth = float(prices @ np.where(np.isfinite(spare), spare, 0.0)) + max(0.0, float(reduced.max(initial=0.0)))
    keep = np.flatnonzero((reduced >= -worth) if np.all(spare >= 0) else np.isfinite(reduced))
    return keep[np.argsort(-reduced[keep], kind="stable")][:PAIRED]


def _additive_pair(ledger: Ledger, prices: Floats) -> Move | None:
    keep = _candidates(ledger, prices)
    if len(keep) < 2:
        return None
    gains = ledger.gains[keep][:, None] + ledger.gains[keep][None, :]
    groups = ledger.group[keep]
    fits = (groups[:, None] < groups[None, :]) & (gains > _threshold(ledger))
    for cost, spare in zip(ledger.costs[:, keep], ledger.spare(), strict=True):
        fits &= cost[:, None] + cost[None, :] <= spare
    apart = np.ones((len(ledger.shared), len(ledger.shared)), dtype=np.bool_)
    for g, others in enumerate(ledger.shared):
        apart[g, list(others)] = False
    fits &= apart[np.ix_(groups, groups)]
    return _first(ledger, np.where(fits, gains, -np.inf), keep, keep)


def _first(ledger: Ledger, gains: Floats, rows: Ints, columns: Ints) -> Move | None:
    """The greatest entry whose move is not banned."""
    while True:
        best = int(np.argmax(gains))
        i, j = divmod(best, gains.shape[1])
        if gains[i, j] == -np.inf:
            return None
        first, second = ledger.option(int(rows[i])), ledger.option(int(columns[j]))
        move = Move((first, second), float(gains[i, j]))
        if move.to not in ledger.banned:
            return move
        gains[i, j] = -np.inf


def _adjacent_pair(ledger: Ledger, prices: Floats, deadline: float) -> Move | None:
    """The best pair among groups that share a charge, from exact tables of both widths."""
    best: Move | None = None
    near = [_near(ledger, g, prices) for g in range(len(ledger.shared))]
    for g, others in enumerate(ledger.shared):
        for h, lines in others.items():
            if h < g or time.monotonic() > deadline:
                continue
            more = _threshold(ledger) if best is None else max(best.gain, _threshold(ledger))
            best = _pair_of(ledger, near[g], near[h], lines, more) or best
    return best


def _near(ledger: Ledger, g: int, prices: Floats) -> Ints:
    """The options of a group, the least losing at `prices` where there are very many."""
    numbers = np.arange(ledger.start[g], ledger.start[g + 1])
    if len(numbers) <= NEAR:
        return numbers
    reduced = ledger.gains[numbers] - prices @ np.nan_to_num(ledger.costs[:, numbers], posinf=1e300)
    return numbers[np.sort(np.argsort(-reduced, kind="stable")[:NEAR])]


def _pair_of(ledger: Ledger, rows: Ints, columns: Ints, lines: list[Line], more: float) -> Move | None:
    """The best pair of options of two groups that gains more than `more`."""
    gains = ledger.gains[rows][:, None] + ledger.gains[columns][None, :]
    able = gains > more
    if not able.any():
        return None
    cost = ledger.costs[:, rows][:, :, None] + ledger.costs[:, columns][:, None, :]
    with np.errstate(invalid="ignore"):
        for line in lines:
            cost[line.resource] += _beyond(ledger, line, rows, columns)
        able &= np.all(cost <= ledger.spare()[:, None, None], axis=0)
    return _first(ledger, np.where(able, gains, -np.inf), rows, columns)


def _beyond(ledger: Ledger, line: Line, rows: Ints, columns: Ints) -> Floats:
    """What both changes together cost beyond the sum of both alone: float64[rows, columns]."""
    widths: dict[str, Any] = {}
    for g in line.groups:
        choice = ledger.problem.choices[g]
        widths[choice.name] = choice.widths[ledger.at.position[g]]
    for numbers, shape in ((rows, (-1, 1)), (columns, (1, -1))):
        choice = ledger.problem.choices[ledger.group[numbers[0]]]
        widths[choice.name] = ledger.widths[numbers].reshape(shape)
    alone = [line.change[np.searchsorted(line.options, numbers)] for numbers in (rows, columns)]
    return np.asarray(line.charge.at(widths) - line.now - alone[0][:, None] - alone[1][None, :], dtype=np.float64)
