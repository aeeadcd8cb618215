"""Copies: a graph too entangled to eliminate becomes one that is not, and its maximum can only rise.

Where a bucket's joint table would outgrow the bound, the variable is split: some of its tables get a copy
of it, and the demand that the copies agree is dropped. Every choice of the problem is one of the relaxed
problem (all copies equal), so the relaxed maximum bounds the true one.

Source: Dechter and Rish, "Mini-buckets", JACM 50 (2003); Choi, Chavira, Darwiche, "Node splitting", UAI 2007.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from passes.select.elimination import Bucket, Plan, Scope, plan
from passes.select.factors import Link, TooLargeError

SPLITS = 500  # copies made at most


@dataclass(slots=True)
class Split:
    """Scopes in which some variables are copies.

    Attributes:
        scopes: per table its variables, in the order of the table's axes (not ascending once renamed).
        links: with renamed variables.
        owner: per variable the one it is a copy of; itself where it is none.
    """

    scopes: list[Scope]
    links: list[Link]
    owner: list[int]

    def ascending(self) -> list[Scope]:
        """The scopes as the planner wants them."""
        return [tuple(sorted(scope)) for scope in self.scopes]


def split_to_fit(
    sizes: Sequence[int],
    scopes: Sequence[Scope],
    links: Sequence[Link],
    *,
    joint: int,
    work: int,
    memory: int,
) -> tuple[Split, Plan]:
    """Split variables until no joint table exceeds `joint` entries and a plan fits `work` and `memory`.

    Where nothing is left to split, `work` may be exceeded, `memory` never.

    Raises:
        TooLargeError: some table alone is too large.
    """
    found = Split(list(scopes), list(links), list(range(len(sizes))))
    for _ in range(SPLITS):
        now = [sizes[owner] for owner in found.owner]
        order = plan(now, found.ascending(), found.links, by_fill=False)
        large = next((b for b in order.buckets if _joint(b, now) > joint), None)
        if large is None and order.work <= work and order.memory <= memory:
            return found, order
        if large is None:
            joint //= 4
        if joint < 1 or (large is not None and not _divide(found, order, large, now, joint)):
            break
    if order.memory <= memory:
        return found, order  # no finer split: slower than asked for, yet within memory
    raise TooLargeError("tables stay too large after splitting")


def _joint(bucket: Bucket, sizes: Sequence[int]) -> int:
    return math.prod(sizes[v] for v in (bucket.scope if bucket.link is not None else bucket.joint))


def _divide(found: Split, order: Plan, bucket: Bucket, sizes: Sequence[int], joint: int) -> bool:
    """Give all but one part of a bucket's factors a copy of its variable; False when it cannot be parted."""
    parts = _parts(found, order, bucket, sizes, joint)
    for tables, ties in parts[1:]:
        copy = len(found.owner)
        found.owner.append(found.owner[bucket.variable])
        for table in tables:
            found.scopes[table] = tuple(copy if v == bucket.variable else v for v in found.scopes[table])
        for tie in ties:
            found.links[tie] = _renamed(found.links[tie], bucket.variable, copy)
    return len(parts) > 1


def _parts(
    found: Split, order: Plan, bucket: Bucket, sizes: Sequence[int], joint: int
) -> list[tuple[set[int], set[int]]]:
    """The bucket's factors in parts whose joint tables fit: (tables, links) that hold its variable."""
    pieces: list[tuple[Scope, set[int], set[int]]] = [
        (found.links[number].scope, set(), {number})
        for number in ({bucket.link} if bucket.link is not None else set()) | set(bucket.dense)
    ]
    for number in bucket.inputs:
        tables, ties = _ancestry(order, number, len(sizes))
        tables = {t for t in tables if bucket.variable in found.scopes[t]}
        ties = {t for t in ties if bucket.variable in found.links[t].scope}
        if tables or ties:
            pieces.append((order.scopes[number], tables, ties))
    pieces.sort(key=lambda piece: -math.prod(sizes[v] for v in piece[0]))
    parts: list[tuple[set[int], set[int], set[int]]] = []
    for scope, tables, ties in pieces:
        for whole, part_tables, part_ties in parts:
            if math.prod(sizes[v] for v in whole | set(scope)) <= joint:
                whole.update(scope)
                part_tables.update(tables)
                part_ties.update(ties)
                break
        else:
            parts.append((set(scope), set(tables), set(ties)))
    return [(tables, ties) for _, tables, ties in parts]


def _ancestry(order: Plan, number: int, variables: int) -> tuple[set[int], set[int]]:
    """The tables and links that a factor was made of."""
    first_message = len(order.scopes) - len(order.buckets)
    tables: set[int] = set()
    ties: set[int] = set()
    stack = [number]
    while stack:
        at = stack.pop()
        if at >= first_message:
            bucket = order.buckets[at - first_message]
            stack.extend(bucket.inputs)
            ties.update(bucket.dense if bucket.link is None else (*bucket.dense, bucket.link))
        elif at >= variables:
            tables.add(at - variables)
    return tables, ties


def _renamed(link: Link, old: int, new: int) -> Link:
    left, right, total = (new if v == old else v for v in link.scope)
    return replace(link, left=left, right=right, total=total)
