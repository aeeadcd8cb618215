"""What is proportional to all of its axes, charged part by part: (a + b)·c = a·c + b·c.

Multiply-adds and parameters of a layer that is fed by a concatenation then tie its groups to the layer's own in pairs,
and need no sum as a variable of its own. Where every layer reads a few of those before it (HarDNet, hourglasses) that
takes far less to eliminate; where every layer reads all of them (DenseNet), the chain of sums does. So both are tried.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

from halpc.ir.cost import Proportional
from halpc.ir.dims import Dim, Leaf, Product, Sum
from halpc.ir.problem import Charge, Problem, Resource

MOST = 1 << 10  # parts of one charge


def in_parts(problem: Problem) -> Problem:
    """The same costs, up to rounding, with no sum among the axes of what is proportional to them."""
    return Problem(problem.choices, tuple(map(_resource, problem.resources)))


def _resource(resource: Resource) -> Resource:
    return replace(resource, charges=tuple(part for charge in resource.charges for part in _charges(charge)))


def _charges(charge: Charge) -> Iterator[Charge]:
    axes = [_parts(axis) for axis in charge.axes]
    if not isinstance(charge.cost, Proportional) or math.prod(map(len, axes)) > MOST:
        yield charge
        return
    for parts in itertools.product(*axes):
        yield Charge(charge.name, parts, charge.cost)


def _parts(dim: Dim) -> list[Dim]:
    """Dims without sums that add up to `dim`."""
    match dim:
        case Leaf():
            return [dim]
        case Sum(parts):
            return [found for part in parts for found in _parts(part)]
        case Product(factors):
            return [Product(parts) for parts in itertools.product(*map(_parts, factors))]
