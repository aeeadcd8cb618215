"""Branch and bound: what the fill leaves open to the bound is searched, and closed where that is proven.

At every price λ, a choice within the limits that is worth more than the best one known is among those whose
Lagrangian value V − λ·(C − limit) is above what that one is worth. Elimination's messages say, given the widths of
some groups, exactly how far the others can lead at λ. So choices grow group by group, in the reverse order of
elimination, each with its bound at several prices, and one is given up

    as bounded      where at one of the prices it cannot lead to more than what is known
    as dominated    where another, with the same widths next to what is still open, is worth no less and costs no more

until none is left, which proves that there is nothing better; or the last group is reached. Where more than a beam of
them are left, the least promising are dropped, and the greatest of their bounds is what remains of the gap.

Source: Land and Doig, "An automatic method of solving discrete programming problems", Econometrica 28 (1960); Nemhauser
and Ullmann, "Discrete dynamic programming and capital allocation", Management Science 15 (1969), for dominance.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from passes.select.dual import Dual, Visit, visited
from passes.select.elimination import Bucket, Elimination, Eliminator, inputs_of, others
from passes.select.factors import Floats, Ints
from passes.select.fill import fill

Positions: TypeAlias = NDArray[np.int32]

BEAMS = (1 << 8, 1 << 10, 1 << 12, 1 << 14, 1 << 16)  # partial choices held at most, in one search after the other
ROOM = 4  # times as many as are held before the most promising are picked
AROUND = (0.5, 0.8, 0.93, 1.0, 1.07, 1.25, 2.0)  # prices of the bounds, as shares of the dual's
APART = (0.8, 1.25)  # and of one price alone, where there are several
CLOSED = 1e-9  # relative gap that is no gap
AT_ONCE = 1 << 20  # bounds computed at a time
BESIDE = 8  # neighbours in the order of cost that a partial choice is compared with, where there are several resources
FILLED = 3  # choices at the end of a search that local moves start from
SECONDS = 10.0


def close(dual: Dual, oracle: Eliminator, best: Visit, room: int) -> tuple[Visit, float]:
    """The best choice there is, as far as could be seen, and a bound on what any is worth.

    Args:
        dual: minimised, with an exact oracle.
        best: the best choice known, within the limits.
        room: float64 numbers that all messages may take.
    """
    bound = max(dual.bound, best.value)
    prices = _prices(dual)[: room // max(oracle.order.memory, 1)]
    if bound <= _enough(best) or not prices:
        return best, bound
    search = _Search(dual, oracle, prices)
    deadline = min(dual.deadline, time.monotonic() + SECONDS)
    for beam in BEAMS:
        best, left = search.run(best, beam, deadline)
        bound = min(bound, max(left, _enough(best)))
        if bound <= _enough(best) or time.monotonic() > deadline:
            break
    return best, max(bound, best.value)


def _enough(best: Visit) -> float:
    """What a choice has to be worth to be called better."""
    return best.value + CLOSED * abs(best.value)


def _prices(dual: Dual) -> list[Floats]:
    """Prices to bound at, those that matter most first."""
    found = [dual.prices * share for share in sorted(AROUND, key=lambda share: abs(np.log(share)))]
    positive = np.flatnonzero(dual.prices)
    if len(positive) > 1:
        for number in positive:
            alone = np.arange(len(dual.prices)) == number
            found += [np.where(alone, dual.prices * share, dual.prices) for share in APART]
    return found


@dataclass(frozen=True, slots=True)
class _Partial:
    """Choices of which some variables are chosen.

    Attributes:
        at: int32[n, variables], positions, 0 where nothing is chosen yet.
        bounds: float64[prices, n], no completion is worth more within the limits.
        value: float64[n], of the groups chosen.
        costs: float64[resources, n], of the tables whose variables are all chosen.
    """

    at: Positions
    bounds: Floats
    value: Floats
    costs: Floats

    def __len__(self) -> int:
        return len(self.value)

    def take(self, which: Ints) -> _Partial:
        """Some of them."""
        return _Partial(self.at[which], self.bounds[:, which], self.value[which], self.costs[:, which])

    def joined(self, other: _Partial) -> _Partial:
        """These and others."""
        return _Partial(
            np.concatenate([self.at, other.at]), np.concatenate([self.bounds, other.bounds], axis=1),
            np.concatenate([self.value, other.value]), np.concatenate([self.costs, other.costs], axis=1),
        )  # fmt: skip

    def groups(self, count: int) -> Ints:
        """Positions of the first `count` variables, the groups: int64[n, count]."""
        return self.at[:, :count].astype(np.int64)

    @property
    def bound(self) -> Floats:
        """The least over all prices, float64[n]."""
        return np.asarray(self.bounds.min(axis=0), dtype=np.float64)


class _Search:
    """One problem at fixed prices; the messages are computed once."""

    def __init__(self, dual: Dual, oracle: Eliminator, prices: list[Floats]) -> None:
        self.dual, self.model, self.order, self.lookups = dual, oracle.model, oracle.order, oracle.lookups
        self.runs: list[Elimination] = [oracle.run(p) for p in prices]
        spare = (dual.limits - dual.constants)[dual.active]
        self.start = np.array(
            [run.best + float(p[dual.active] @ spare) + dual.slack(p) for p, run in zip(prices, self.runs, strict=True)]
        )
        self.first_message = len(self.order.scopes) - len(self.order.buckets)
        self.sequence = self._sequence()
        self.open = self._open()

    def _sequence(self) -> list[int]:
        """Numbers of the buckets, each after the one that its message went to, one branch after the other."""
        feeds: dict[int, list[int]] = {}
        fed: set[int] = set()
        for number, bucket in enumerate(self.order.buckets):
            feeds[number] = [n - self.first_message for n in bucket.inputs if n >= self.first_message]
            fed.update(feeds[number])
        waiting = [number for number in feeds if number not in fed]
        found: list[int] = []
        while waiting:
            found.append(waiting.pop())
            waiting += feeds[found[-1]]
        return found

    def _open(self) -> list[tuple[int, ...]]:
        """After each bucket of the sequence, the variables chosen by then that later buckets still ask for."""
        found: list[tuple[int, ...]] = []
        asked: set[int] = set()
        chosen_later: set[int] = set()
        for number in reversed(self.sequence):
            found.append(tuple(sorted(asked - chosen_later)))
            asked.update(self.order.buckets[number].scope)
            chosen_later.add(self.order.buckets[number].variable)
        return found[::-1]

    def run(self, best: Visit, beam: int, deadline: float) -> tuple[Visit, float]:
        """The best choice found, and the greatest bound of what was dropped (−inf where nothing was)."""
        enough, dropped = _enough(best), -np.inf
        at = np.zeros((1, len(self.model.sizes)), dtype=np.int32)
        partial = _Partial(at, self.start[:, None], np.zeros(1), self.dual.constants[:, None])
        for number, still_open in zip(self.sequence, self.open, strict=True):
            before, partial = partial, partial.take(np.arange(0))
            for grown in self._grown(before, number, enough):
                partial = partial.joined(grown)
                if len(partial) > ROOM * beam:
                    partial, lost = self._beamed(partial, still_open, beam)
                    dropped = max(dropped, lost)
                if time.monotonic() > deadline:
                    return best, max(dropped, float(before.bound.max()))
            partial, lost = self._beamed(partial, still_open, beam)
            dropped = max(dropped, lost)
            if not len(partial):
                return best, dropped
        found, missed = self._best_of(partial, best)
        return self._filled(partial, found, deadline), max(dropped, missed)

    def _filled(self, partial: _Partial, best: Visit, deadline: float) -> Visit:
        """The best that local moves make of it and of the most promising: the next search has less to look at."""
        most = partial.take(np.argsort(-partial.bound, kind="stable")[: FILLED - 1])
        for start in (best.position, *most.groups(len(best.position))):
            found = fill(self.dual.problem, start, self.dual.prices, bound=np.inf, deadline=deadline)
            if self.dual.within(found) and found.value > best.value:
                best = visited(self.dual.problem, found.position)
        return best

    def _beamed(self, partial: _Partial, still_open: tuple[int, ...], beam: int) -> tuple[_Partial, float]:
        """The most promising of those not dominated, and the greatest bound of the others."""
        partial = self._undominated(partial, still_open)
        if len(partial) <= beam:
            return partial, -np.inf
        order = np.argsort(-partial.bound, kind="stable")
        return partial.take(order[:beam]), float(partial.bound[order[beam]])

    def _grown(self, partial: _Partial, number: int, enough: float) -> Iterator[_Partial]:
        """One more variable chosen, in every way that may lead to more than `enough`; some at a time."""
        bucket, where = self.order.buckets[number], self.lookups[number]
        if where is not None and bucket.link is not None:  # the two others leave one way, which the bounds foresaw
            left, right = (partial.at[:, v] for v in others(self.model.links[bucket.link], bucket.variable))
            yield self._chosen(partial, bucket, where[left, right])
            return
        lines = self._lines(number)
        size = self.model.sizes[bucket.variable]
        step = 1 + AT_ONCE // (size * len(lines))
        for first in range(0, len(partial), step):
            some = partial.take(np.arange(first, min(first + step, len(partial))))
            bounds = np.stack([_regret(bucket, line, some.at, size) for line in lines]) + some.bounds[:, :, None]
            rows, chosen = np.nonzero(bounds.min(axis=0) > enough)
            yield self._chosen(replace(some.take(rows), bounds=bounds[:, rows, chosen]), bucket, chosen)

    def _lines(self, number: int) -> list[list[tuple[tuple[int, ...], Floats]]]:
        """Per price: what meets in the bucket, and what left it, negative."""
        bucket, model = self.order.buckets[number], self.model
        lines = []
        for run in self.runs:
            inputs = inputs_of(bucket, self.order, run.held, model.links, model.sizes)
            lines.append([*inputs, (bucket.scope, -run.held[self.first_message + number])])
        return lines

    def _chosen(self, partial: _Partial, bucket: Bucket, chosen: Ints) -> _Partial:
        """With the bucket's variable at `chosen`, and the costs of the tables that met in it."""
        model, value, costs = self.model, partial.value, partial.costs.copy()
        at = partial.at.copy()
        at[:, bucket.variable] = chosen
        if bucket.variable < len(model.values):
            value = value + model.values[bucket.variable][chosen]
        for number in bucket.inputs:
            if len(model.sizes) <= number < self.first_message:
                table = model.tables[number - len(model.sizes)]
                for resource, cost in table.costs.items():
                    costs[resource] += cost[tuple(at[:, v] for v in table.scope)]
        return _Partial(at, partial.bounds, value, costs)

    def _undominated(self, partial: _Partial, still_open: tuple[int, ...]) -> _Partial:
        """Without those that another is worth no less than, for no more, with the same widths next to what is open."""
        if len(partial) < 2:
            return partial
        state = np.zeros(len(partial), dtype=np.int64)
        for v in still_open:
            state = np.unique(state * self.model.sizes[v] + partial.at[:, v], return_inverse=True)[1]
        costs = partial.costs[self.dual.active]
        order = np.lexsort((-partial.value, *costs[::-1], state))
        state, value, costs = state[order], partial.value[order], costs[:, order]
        if len(costs) == 1:
            raised = value - value.min() + state * (2.0 * np.ptp(value) or 1.0)  # above all of the states before
            dominated = np.append(False, raised[1:] <= np.maximum.accumulate(raised)[:-1])
            dominated &= np.append(False, state[1:] == state[:-1])
        else:
            dominated = np.zeros(len(order), dtype=np.bool_)
            for off in range(1, min(BESIDE + 1, len(order))):
                same = (state[off:] == state[:-off]) & (value[off:] <= value[:-off])
                dominated[off:] |= same & np.all(costs[:, off:] >= costs[:, :-off], axis=0)
        return partial.take(order[~dominated])

    def _best_of(self, partial: _Partial, best: Visit) -> tuple[Visit, float]:
        """The best of whole choices that is within the limits, or the one known; and what one that rounding left out is
        worth: within the limits by the tables, not when its costs are added up anew.
        """
        active, missed = self.dual.active, -np.inf
        room = self.dual.limits[active] + CLOSED * self.model.magnitude[1:][active]
        groups = partial.groups(len(best.position))
        inside = np.flatnonzero(np.all(partial.costs[active] <= room[:, None], axis=0))
        for number in inside[np.argsort(-partial.value[inside], kind="stable")]:
            found = visited(self.dual.problem, groups[number])
            if found.value <= best.value:
                break
            if self.dual.within(found):
                return found, missed
            missed = max(missed, found.value)
        return best, missed


def _regret(bucket: Bucket, line: list[tuple[tuple[int, ...], Floats]], at: Positions, size: int) -> Floats:
    """How much less than the most each width of the bucket's variable leads to: float64[n, widths], at most 0."""
    total, every = np.zeros((len(at), size)), np.arange(size)
    for scope, array in line:
        there = tuple(every if v == bucket.variable else at[:, v, None] for v in scope)
        total = total + (array[there] if scope else float(array))
    return total
