"""The exact model: whole tables, and the elimination order with the least work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from halpc.ir.dims import leaves
from halpc.ir.problem import Problem
from passes.select.dual import Dual, terms_of
from passes.select.elimination import Eliminator, Plan, plan
from passes.select.factors import Sketch, TooLargeError, sketch, tabulate
from passes.select.parts import in_parts

QUICK = 1 << 20  # additions in one elimination at which no better plan is looked for


@dataclass(frozen=True, slots=True)
class Limits:
    """How much memory and time `joint` may take.

    Attributes:
        entries: float64 numbers in all tables together (64 Mi are 512 MiB).
        work: additions in one elimination.
        seconds: for the prices, and again for the fill.
    """

    entries: int = 1 << 26
    work: int = 1 << 28
    seconds: float = 30.0


def exact_dual(problem: Problem, limits: Limits) -> tuple[Dual, Eliminator]:
    """The dual whose bound is that of the problem itself, and its oracle.

    Raises:
        TooLargeError: tables or elimination outgrow `limits`.
    """
    drawn, order = best_plan(problem, limits)
    model = tabulate(drawn)
    oracle = Eliminator(model, order)
    dual = Dual(problem, oracle, model.magnitude, model.constants, time.monotonic() + limits.seconds)
    dual.terms = max(dual.terms, terms_of(drawn.problem))
    return dual, oracle


def best_plan(problem: Problem, limits: Limits) -> tuple[Sketch, Plan]:
    """The encoding and order with the least work among those within `limits`, or the first of little work.

    Raises:
        TooLargeError: there is none.
    """
    found: list[tuple[Sketch, Plan]] = []
    for form, compound in _forms(problem):
        try:
            drawn = sketch(form, compound=compound, room=limits.entries)
        except TooLargeError:
            continue
        scopes = list(dict.fromkeys(entry.scope for entry in drawn.entries if entry.scope))
        if drawn.table_entries() > limits.entries:
            continue
        for by_fill in (False, True):
            order = plan(drawn.sizes, scopes, drawn.links, by_fill=by_fill)
            if order.work <= limits.work and order.memory <= limits.entries:
                found.append((drawn, order))
                if order.work <= QUICK:
                    return drawn, order
    if not found:
        raise TooLargeError("no elimination order fits the memory bound")
    return min(found, key=lambda pair: pair[1].work)


def _forms(problem: Problem) -> Iterator[tuple[Problem, int]]:
    """The problem as it is, then in parts, with every number of groups that a variable may be made of."""
    yield from ((problem, compound) for compound in _compounds(problem))
    parts = in_parts(problem)
    if any(len(a.charges) != len(b.charges) for a, b in zip(parts.resources, problem.resources, strict=True)):
        yield from ((parts, compound) for compound in _compounds(parts))


def _compounds(problem: Problem) -> tuple[int, ...]:
    """Which axes to try as variables: none, those of three groups or more, all of two or more."""
    names = {choice.name for choice in problem.choices}
    axes = [axis for resource in problem.resources for charge in resource.charges for axis in charge.axes]
    widest = max((len({leaf.name for leaf in leaves(axis)} & names) for axis in axes), default=0)
    return (widest,) if widest < 2 else tuple(sorted({1, 2, min(widest, 4)}))
