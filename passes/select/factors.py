"""Problem → factors: whole tables over group widths, and links that make a sum's width a variable of its own.

    charge with axes a, b                a table over (a, b)
    charge fed by concat(a, b, c, …)     links S₂ = a + b, S₃ = S₂ + c, … and a table over (S, out)
    charge on heads·dims                 a table over (heads, dims, out), or a link P = heads·dims

Sums that start alike share their prefix sums, so the layers of a dense block, each fed by one more group
than the last, become a chain. Whether the axes of several groups get variables or stay tables over their
leaves is the caller's choice (`compound`); the elimination plan says which is smaller.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from halpc.errors import HalpcError
from halpc.ir.dims import Dim, Leaf, Product, Sum, leaves, width
from halpc.ir.problem import Charge, Problem

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Operator: TypeAlias = Literal["+", "*"]


class TooLargeError(HalpcError):
    """Tables would outgrow the memory bound; internal to `select`, which then relaxes."""


@dataclass(frozen=True, slots=True)
class Link:
    """The variable `total` is `left ∘ right`.

    Attributes:
        left, right, total: the three variables.
        left_widths, right_widths: int64 per position, scaled and offset as they enter.
        totals: int64 per position of the total, ascending, all that can be reached.
        operator: `+` or `*`; a sum can be solved for either side.
    """

    left: int
    right: int
    total: int
    left_widths: Ints
    right_widths: Ints
    totals: Ints
    operator: Operator

    @property
    def scope(self) -> tuple[int, int, int]:
        """The three variables it ties."""
        return self.left, self.right, self.total

    @property
    def invertible(self) -> bool:
        """Whether one side follows from the other and the total."""
        return self.operator == "+"

    @property
    def pairs(self) -> int:
        """Entries of its index."""
        return len(self.left_widths) * len(self.right_widths)

    def index(self) -> Ints:
        """Position of the total, int64[n_left, n_right]."""
        return self.position(self.left_widths[:, None], self.right_widths)

    def position(self, left: Ints, right: Ints) -> Ints:
        """Where the total of two widths that can be reached is."""
        return np.searchsorted(self.totals, self.joined(left, right)).astype(np.int64)

    def joined(self, left: Ints, right: Ints) -> Ints:
        """Width of the total."""
        return _joined(self.operator, left, right)


@dataclass(frozen=True, slots=True)
class Table:
    """What one set of variables costs: per resource a float64 table over `scope` (ascending variables).

    `forbidden` marks combinations of infinite cost (their entries are zero in `costs`), None when there are none.
    """

    scope: tuple[int, ...]
    costs: dict[int, Floats]
    forbidden: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class Model:
    """The problem over variables 0 … n-1, the groups first, then the sums and products.

    Attributes:
        names: of the variables.
        widths: int64[n_v] per variable.
        values: float64[n_g] per group.
        tables: costs, at most one table per scope.
        links: what defines the variables that are no groups.
        constants: float64[resources], the fixed parts and the charges that touch no group.
        limits: float64[resources].
        magnitude: Σ max |value|, then per resource Σ max |cost| + |constant| + |limit|; for rounding bounds.
    """

    names: tuple[str, ...]
    widths: tuple[Ints, ...]
    values: tuple[Floats, ...]
    tables: tuple[Table, ...]
    links: tuple[Link, ...]
    constants: Floats
    limits: Floats
    magnitude: Floats

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of positions per variable."""
        return tuple(len(w) for w in self.widths)


@dataclass(frozen=True, slots=True)
class Term:
    """`scale · variable + offset`; variable None is the constant `offset`."""

    variable: int | None
    scale: int
    offset: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A charge over its variables before its table is computed; an axis is a Term, or stays over its leaves."""

    resource: int
    charge: Charge
    axes: tuple[Term | None, ...]
    scope: tuple[int, ...]


@dataclass(slots=True)
class Sketch:
    """Variables, links and scopes of a problem, before any table is computed."""

    problem: Problem
    names: list[str]
    widths: list[Ints]
    links: list[Link]
    entries: list[Entry]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of positions per variable."""
        return tuple(len(w) for w in self.widths)

    def table_entries(self) -> int:
        """Floats that the tables will hold."""
        scopes = {(entry.resource, entry.scope) for entry in self.entries}
        return sum(math.prod(len(self.widths[v]) for v in scope) for _, scope in scopes)


class _AliasedError(Exception):
    """An axis uses one variable on both sides of an operator; it has to stay over its leaves."""


class Encoder:
    """Turns dims into variables, sharing equal prefixes."""

    def __init__(self, problem: Problem, room: int) -> None:
        self.room = room
        self.names = [choice.name for choice in problem.choices]
        self.widths = [choice.widths for choice in problem.choices]
        self.links: list[Link] = []
        self.position = {name: i for i, name in enumerate(self.names)}
        self.known: dict[tuple[Operator, Term, Term], int] = {}
        self.uses = Counter(
            leaf.name
            for resource in problem.resources
            for charge in resource.charges
            for axis in charge.axes
            for leaf in set(leaves(axis))
        )

    def term(self, dim: Dim) -> Term:
        """`dim` as one variable, scaled and offset; new variables and links as needed."""
        match dim:
            case Leaf(name, size):
                at = self.position.get(name)
                return Term(None, 0, size) if at is None else Term(at, 1, 0)
            case Sum(parts):
                return self._sum([self.term(part) for part in _flat(parts)])
            case Product(factors):
                return self._product([self.term(factor) for factor in factors])

    def _sum(self, terms: Sequence[Term]) -> Term:
        offset = sum(term.offset for term in terms)
        scales: Counter[int] = Counter()
        for term in terms:
            if term.variable is not None:
                scales[term.variable] += term.scale
        order = sorted(scales, key=lambda v: (-self.uses[self.names[v]], v))
        if not order:
            return Term(None, 0, offset)
        result = Term(order[0], scales[order[0]], 0)
        for variable in order[1:]:
            result = self._link("+", result, Term(variable, scales[variable], 0))
        return Term(result.variable, result.scale, result.offset + offset)

    def _product(self, terms: Sequence[Term]) -> Term:
        constant = math.prod(term.offset for term in terms if term.variable is None)
        result: Term | None = None
        for term in terms:
            if term.variable is not None:
                result = term if result is None else self._link("*", result, term)
        if result is None:
            return Term(None, 0, constant)
        return Term(result.variable, result.scale * constant, result.offset * constant)

    def _link(self, operator: Operator, left: Term, right: Term) -> Term:
        """The variable `left ∘ right`, made once per pair of terms."""
        if left.variable is None or right.variable is None or left.variable == right.variable:
            raise _AliasedError
        key = (operator, left, right)
        if key not in self.known:
            sides = self._values(left), self._values(right)
            totals = _totals(operator, *sides, self.room)
            sign = {"+": " + ", "*": "·"}[operator]
            self.known[key] = len(self.names)
            self.links.append(Link(left.variable, right.variable, len(self.names), *sides, totals, operator))
            self.names.append(f"{self.names[left.variable]}{sign}{self.names[right.variable]}")
            self.widths.append(totals)
        return Term(self.known[key], 1, 0)

    def _values(self, term: Term) -> Ints:
        assert term.variable is not None
        return self.widths[term.variable] * term.scale + term.offset


def _flat(parts: Sequence[Dim]) -> list[Dim]:
    """Parts of a sum with nested sums opened."""
    flat: list[Dim] = []
    for part in parts:
        flat.extend(_flat(part.parts) if isinstance(part, Sum) else [part])
    return flat


def _joined(operator: Operator, left: Ints, right: Ints) -> Ints:
    return left + right if operator == "+" else left * right


def _totals(operator: Operator, left: Ints, right: Ints, room: int) -> Ints:
    """The distinct totals of all pairs, ascending int64[n]."""
    if left.size * right.size > room:
        raise TooLargeError(f"{left.size} × {right.size} pairs")
    top = int(_joined(operator, left[-1:], right[-1:])[0])
    few, many = sorted((left, right), key=len)
    if top > max(16 * left.size * right.size, 1 << 20):
        return np.unique(_joined(operator, few[:, None], many))
    reached = np.zeros(top + 1, dtype=np.bool_)
    for one in few:
        reached[_joined(operator, one, many)] = True
    return np.flatnonzero(reached).astype(np.int64)


def sketch(problem: Problem, *, compound: int, room: int) -> Sketch:
    """Variables and scopes of `problem`; an axis of more than `compound` groups becomes a variable.

    Raises:
        TooLargeError: a sum or product has more than `room` pairs.
    """
    encoder = Encoder(problem, room)
    entries = [
        _entry(encoder, number, charge, compound)
        for number, resource in enumerate(problem.resources)
        for charge in resource.charges
    ]
    return Sketch(problem, encoder.names, encoder.widths, encoder.links, entries)


def _entry(encoder: Encoder, resource: int, charge: Charge, compound: int) -> Entry:
    axes: list[Term | None] = []
    scope: set[int] = set()
    for axis in charge.axes:
        groups = {encoder.position[leaf.name] for leaf in leaves(axis) if leaf.name in encoder.position}
        term = _variable_term(encoder, axis) if len(groups) > compound else None
        axes.append(term)
        scope |= groups if term is None else set() if term.variable is None else {term.variable}
    return Entry(resource, charge, tuple(axes), tuple(sorted(scope)))


def _variable_term(encoder: Encoder, axis: Dim) -> Term | None:
    try:
        return encoder.term(axis)
    except _AliasedError:
        return None


def tabulate(plan: Sketch) -> Model:
    """Compute every table of a sketch; tables of one scope are added up."""
    problem = plan.problem
    constants = np.array([resource.fixed for resource in problem.resources], dtype=np.float64)
    costs: dict[tuple[int, ...], dict[int, Floats]] = {}
    for entry in plan.entries:
        table = evaluate(plan, entry)
        if entry.scope:
            held = costs.setdefault(entry.scope, {})
            held[entry.resource] = held[entry.resource] + table if entry.resource in held else table
        else:
            constants[entry.resource] += float(table)
    tables = tuple(table_of(scope, by_resource) for scope, by_resource in costs.items())
    limits = np.array([resource.limit for resource in problem.resources], dtype=np.float64)
    values = tuple(np.asarray(choice.value, dtype=np.float64) for choice in problem.choices)
    return Model(
        tuple(plan.names), tuple(plan.widths), values, tables, tuple(plan.links),
        constants, limits, _magnitude(values, tables, constants, limits),
    )  # fmt: skip


def evaluate(plan: Sketch, entry: Entry) -> Floats:
    """The charge over its whole scope: float64 of the scope's sizes.

    Raises:
        HalpcError: a cost is not a number.
    """
    shape = tuple(len(plan.widths[v]) for v in entry.scope)
    table = evaluate_at(plan, entry, [np.arange(n) for n in shape])
    if np.isnan(table).any() or np.isneginf(table).any():
        raise no_number(entry)
    return np.ascontiguousarray(np.broadcast_to(table, shape))


def no_number(entry: Entry) -> HalpcError:
    """A cost function that gives NaN or −inf."""
    return HalpcError(f"cost of {entry.charge.name!r} is not a number at some widths")


def evaluate_at(plan: Sketch, entry: Entry, positions: Sequence[Ints]) -> Floats:
    """The charge at some positions of each variable of its scope: float64 that broadcasts to their grid."""
    grid: dict[int, Ints] = {}
    for axis, (v, at) in enumerate(zip(entry.scope, positions, strict=True)):
        grid[v] = plan.widths[v][at].reshape([-1 if i == axis else 1 for i in range(len(positions))])
    by_name = {plan.names[v]: array for v, array in grid.items()}
    arrays = [
        np.asarray(_axis_widths(axis, term, by_name, grid), dtype=np.int64)
        for axis, term in zip(entry.charge.axes, entry.axes, strict=True)
    ]
    return np.asarray(entry.charge.cost(*arrays), dtype=np.float64)


def _axis_widths(axis: Dim, term: Term | None, by_name: dict[str, Ints], grid: dict[int, Ints]) -> Ints | int:
    if term is None:
        widths: Ints | int = width(axis, by_name)
        return widths
    return term.offset if term.variable is None else grid[term.variable] * term.scale + term.offset


def table_of(scope: tuple[int, ...], costs: dict[int, Floats]) -> Table:
    """A table whose infinite entries are marked as forbidden."""
    forbidden: NDArray[np.bool_] | None = None
    for resource, cost in costs.items():
        infinite = np.isinf(cost)
        if infinite.any():
            forbidden = infinite if forbidden is None else forbidden | infinite
            costs[resource] = np.where(infinite, 0.0, cost)
    return Table(scope, costs, forbidden)


def _magnitude(values: Sequence[Floats], tables: Sequence[Table], constants: Floats, limits: Floats) -> Floats:
    finite = np.where(np.isfinite(limits), np.abs(limits), 0.0)
    magnitude = np.concatenate([[sum(float(np.abs(v).max()) for v in values)], np.abs(constants) + finite])
    for table in tables:
        for resource, cost in table.costs.items():
            magnitude[1 + resource] += float(np.abs(cost).max(initial=0.0))
    return magnitude
