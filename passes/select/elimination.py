"""Variable elimination: the exact maximum of a sum of tables, one variable at a time.

    eliminate x:   m(rest) = max_x Σ f(x, rest)          a plain bucket
                   m(y, z) = Σ f(x = z − y, …)           x tied by a link: looked up, not maximised

The order is chosen once per problem by simulated elimination (least joint table, or
least fill-in, whichever plan is the smaller); a run at given prices then is a fixed list of numpy calls.

Source: Dechter, "Bucket elimination", Artificial Intelligence 113 (1999); Koster et al. for min-fill.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from passes.select.dual import Answer
from passes.select.factors import Floats, Ints, Link, Model

Scope: TypeAlias = tuple[int, ...]

SMALL = 1 << 17  # joint tables up to this many floats are built whole; larger ones value by value


@dataclass(frozen=True, slots=True)
class Bucket:
    """One elimination: which factors meet, and what scope their message has.

    Attributes:
        variable: what is eliminated.
        link: number of the link that determines it from two others, None when it is maximised.
        dense: numbers of further links on it, which enter as tables of 0 and −inf.
        inputs: numbers of the factors (unaries, tables, then messages of earlier buckets) that hold it.
        joint: ascending variables of all that meets, itself included.
    """

    variable: int
    link: int | None
    dense: tuple[int, ...]
    inputs: tuple[int, ...]
    joint: Scope

    @property
    def scope(self) -> Scope:
        """Variables of the message."""
        return tuple(v for v in self.joint if v != self.variable)


@dataclass(frozen=True, slots=True)
class Plan:
    """An elimination order with its price: `work` additions a run, `memory` floats held at once."""

    scopes: tuple[Scope, ...]
    buckets: tuple[Bucket, ...]
    work: int
    memory: int


def plan(sizes: Sequence[int], scopes: Sequence[Scope], links: Sequence[Link], *, by_fill: bool) -> Plan:
    """Elimination order for factors over `scopes` (every variable gets a unary factor in front)."""
    return _Planner(sizes, scopes, links, by_fill).run()


class _Planner:
    """Simulated elimination: which variable next, and what it would cost."""

    def __init__(self, sizes: Sequence[int], scopes: Sequence[Scope], links: Sequence[Link], by_fill: bool):
        self.sizes, self.by_fill = sizes, by_fill
        self.links = dict(enumerate(links))
        self.scopes: list[Scope] = [*((v,) for v in range(len(sizes))), *scopes]
        self.alive: dict[int, Scope] = dict(enumerate(self.scopes))
        self.near: dict[int, set[int]] = {v: set() for v in range(len(sizes))}
        for scope in [*scopes, *(link.scope for link in links)]:
            self._join(scope)
        self.tied: dict[int, set[int]] = {v: set() for v in range(len(sizes))}
        for number, link in enumerate(links):
            for v in link.scope:
                self.tied[v].add(number)
        self.holding: dict[int, set[int]] = {v: set() for v in range(len(sizes))}
        for number, scope in self.alive.items():
            for v in scope:
                self.holding[v].add(number)

    def run(self) -> Plan:
        buckets: list[Bucket] = []
        work, memory = 0, sum(math.prod(self.sizes[v] for v in scope) for scope in self.scopes)
        scores = {v: self._score(v) for v in self.near}
        while scores:
            variable = min(scores, key=lambda v: (scores[v], v))
            touched = self.near[variable].union(*(self.near[v] for v in self.near[variable]))
            bucket = self._eliminate(variable)
            buckets.append(bucket)
            message = math.prod(self.sizes[v] for v in bucket.scope)
            memory += message + (0 if bucket.link is None else self.links[bucket.link].pairs)
            work += message if bucket.link is not None else message * self.sizes[variable]
            del scores[variable]
            scores.update({v: self._score(v) for v in touched if v in scores})
        return Plan(tuple(self.scopes), tuple(buckets), work, memory)

    def _determining(self, variable: int) -> int | None:
        for number in sorted(self.tied[variable]):
            if self.links[number].invertible or self.links[number].total == variable:
                return number
        return None

    def _score(self, variable: int) -> tuple[float, float]:
        neighbours = self.near[variable]
        size = sum(math.log(self.sizes[v]) for v in neighbours)
        if self._determining(variable) is None:
            size += math.log(self.sizes[variable])
        present = sum(len(neighbours & self.near[v]) for v in neighbours) // 2
        fill = len(neighbours) * (len(neighbours) - 1) // 2 - present
        return (fill, size) if self.by_fill else (size, fill)

    def _eliminate(self, variable: int) -> Bucket:
        link = self._determining(variable)
        dense = tuple(sorted(self.tied[variable] - {link}))
        inputs = tuple(sorted(self.holding[variable]))
        joint = tuple(sorted({variable, *self.near[variable]}))
        for number in self.tied[variable].copy():
            for v in self.links[number].scope:
                self.tied[v].discard(number)
        for number in inputs:
            for v in self.alive.pop(number):
                self.holding[v].discard(number)
        bucket = Bucket(variable, link, dense, inputs, joint)
        self.alive[len(self.scopes)] = bucket.scope
        for v in bucket.scope:
            self.holding[v].add(len(self.scopes))
        self.scopes.append(bucket.scope)
        for v in self.near.pop(variable):
            self.near[v].discard(variable)
        self._join(bucket.scope)
        return bucket

    def _join(self, scope: Scope) -> None:
        """Every variable of a scope becomes a neighbour of the others."""
        for v in scope:
            self.near[v].update(scope)
            self.near[v].discard(v)


@dataclass(frozen=True, slots=True)
class Elimination:
    """A finished run: `best`, the greatest sum (−inf when every choice is forbidden), and all that was `held`.

    `held` has one table per scope of the plan: what went in, then the messages in the order of the buckets.
    """

    best: float
    held: tuple[Floats, ...]


def eliminate(
    order: Plan,
    factors: Sequence[Floats],
    links: Sequence[Link],
    sizes: Sequence[int],
    lookups: Sequence[Ints | None],
) -> Elimination:
    """Every bucket of the plan, for `factors` (one per scope of the plan's inputs); `lookups` are those of the plan."""
    held = list(factors)
    best = 0.0
    for bucket, where in zip(order.buckets, lookups, strict=True):
        inputs = inputs_of(bucket, order, held, links, sizes)
        if where is None:
            message = _maximum(bucket, inputs, sizes)
        else:
            message = _substitute(bucket, links[bucket.link or 0], where, inputs, sizes)
        held.append(message)
        if not bucket.scope:
            best += float(message)
    return Elimination(best, tuple(held))


def maximise(
    order: Plan,
    factors: Sequence[Floats],
    links: Sequence[Link],
    sizes: Sequence[int],
    lookups: Sequence[Ints | None],
) -> tuple[float, Ints]:
    """The greatest sum of `factors` and where: position per variable, meaningless when every choice is forbidden."""
    done = eliminate(order, factors, links, sizes, lookups)
    return done.best, _backtrack(order, done.held, links, sizes, lookups)


def inputs_of(
    bucket: Bucket, order: Plan, held: Sequence[Floats], links: Sequence[Link], sizes: Sequence[int]
) -> list[tuple[Scope, Floats]]:
    """All that meets in a bucket: factors and messages, and further links on its variable as tables of 0 and −inf."""
    inputs = [(order.scopes[number], held[number]) for number in bucket.inputs]
    return inputs + [(_ascending(links[number]), _dense(links[number], sizes)) for number in bucket.dense]


def lookups(order: Plan, links: Sequence[Link], sizes: Sequence[int]) -> list[Ints | None]:
    """Per bucket where its link puts its variable, None where it has none; the same at all prices."""
    return [None if b.link is None else _lookup(links[b.link], b.variable, sizes) for b in order.buckets]


def _ascending(link: Link) -> Scope:
    return tuple(sorted(link.scope))


def _dense(link: Link, sizes: Sequence[int]) -> Floats:
    """A link as a table of 0 where it holds and −inf elsewhere, axes ascending."""
    holds = link.index()[:, :, None] == np.arange(sizes[link.total])
    table = np.where(holds, 0.0, -np.inf)
    return np.ascontiguousarray(table.transpose(np.argsort(link.scope)))


def _lookup(link: Link, variable: int, sizes: Sequence[int]) -> Ints:
    """Position of `variable` for each pair of the link's two others (in link order), −1 where impossible."""
    index = link.index()
    if variable == link.total:
        return index
    other = sizes[link.right] if variable == link.left else sizes[link.left]
    where = np.full((other, sizes[link.total]), -1, dtype=np.int64)
    index = index if variable == link.left else index.T
    here, there = np.indices(index.shape)
    where[there, index] = here
    return where


def others(link: Link, variable: int) -> tuple[int, int]:
    """The two other variables of a link, in its order."""
    first, second = (v for v in link.scope if v != variable)
    return first, second


def _shaped(array: NDArray[Any], scope: Iterable[int], joint: Scope, sizes: Sequence[int]) -> NDArray[Any]:
    """`array` over ascending `scope`, with axes of size 1 put in so that it broadcasts over `joint`."""
    present = set(scope)
    return array.reshape([sizes[v] if v in present else 1 for v in joint])


def _maximum(bucket: Bucket, inputs: Sequence[tuple[Scope, Floats]], sizes: Sequence[int]) -> Floats:
    axis = bucket.joint.index(bucket.variable)
    arrays = [_shaped(array, scope, bucket.joint, sizes) for scope, array in inputs]
    arrays.sort(key=lambda array: array.size)
    if math.prod(sizes[v] for v in bucket.joint) <= SMALL:
        joint: Floats = arrays[0]
        for array in arrays[1:]:
            joint = joint + array
        message: Floats = np.maximum.reduce(np.broadcast_to(joint, [sizes[v] for v in bucket.joint]), axis=axis)
        return message
    best = np.full([sizes[v] for v in bucket.scope], -np.inf)
    for position in range(sizes[bucket.variable]):
        layers = [array.take(position, axis) for array in arrays]
        whole = layers[0]
        for layer in layers[1:]:
            whole = whole + layer
        np.maximum(best, whole, out=best)
    return best


def _substitute(
    bucket: Bucket, link: Link, where: Ints, inputs: Sequence[tuple[Scope, Floats]], sizes: Sequence[int]
) -> Floats:
    """The message of a variable that its link determines: every factor looked up where the link points."""
    scope = bucket.scope
    pair = others(link, bucket.variable)
    if pair[0] > pair[1]:
        where = where.T
    there = _shaped(np.ascontiguousarray(where), pair, scope, sizes)
    message = np.where(there < 0, -np.inf, 0.0)
    for factor_scope, array in inputs:
        if factor_scope == (bucket.variable,):
            message = message + array[there]
            continue
        at = tuple(
            there if v == bucket.variable else _shaped(np.arange(sizes[v]), (v,), scope, sizes) for v in factor_scope
        )
        message = message + array[at]
    return np.ascontiguousarray(np.broadcast_to(message, [sizes[v] for v in scope]))


def _backtrack(
    order: Plan,
    held: Sequence[Floats],
    links: Sequence[Link],
    sizes: Sequence[int],
    tied: Sequence[Ints | None],
) -> Ints:
    position = np.zeros(len(sizes), dtype=np.int64)
    for bucket, where in zip(reversed(order.buckets), reversed(tied), strict=True):
        if where is not None and bucket.link is not None:
            first, second = others(links[bucket.link], bucket.variable)
            position[bucket.variable] = where[position[first], position[second]]
            continue
        line = np.zeros(sizes[bucket.variable])
        for scope, array in inputs_of(bucket, order, held, links, sizes):
            line = line + array[tuple(slice(None) if v == bucket.variable else position[v] for v in scope)]
        position[bucket.variable] = int(np.argmax(line))
    return position


class Eliminator:
    """Maximises `weight · Σ value − Σ price · cost` of a model exactly, at any prices."""

    def __init__(self, model: Model, order: Plan) -> None:
        self.model, self.order = model, order
        self.lookups = lookups(order, model.links, model.sizes)

    def __call__(self, prices: Floats, weight: float = 1.0) -> Answer:
        """The maximum (−inf when all is forbidden) and where."""
        model = self.model
        factors = self._factors(prices, weight)
        best, position = maximise(self.order, factors, model.links, model.sizes, self.lookups)
        return Answer(best, position[: len(model.values)])

    def run(self, prices: Floats) -> Elimination:
        """All tables and messages at `prices`."""
        return eliminate(self.order, self._factors(prices, 1.0), self.model.links, self.model.sizes, self.lookups)

    def _factors(self, prices: Floats, weight: float) -> list[Floats]:
        """In the order of the plan's scopes: values per group, zeros per sum or product, the model's tables."""
        model = self.model
        values = [value * weight for value in model.values]
        values += [np.zeros(n) for n in model.sizes[len(values) :]]
        return values + [reward(table.costs, table.forbidden, prices) for table in model.tables]


def reward(costs: Mapping[int, Floats], forbidden: NDArray[np.bool_] | None, prices: Floats) -> Floats:
    """−Σ price · cost, −inf where forbidden: float64 of the table's shape."""
    total: Floats | None = None
    for resource, cost in costs.items():
        part = cost * -prices[resource]
        total = part if total is None else total + part
    assert total is not None
    return total if forbidden is None else np.where(forbidden, -np.inf, total)
