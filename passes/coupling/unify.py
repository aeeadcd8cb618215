"""Solving dimension equations by unification, as type inference does.

A *variable* stands for an axis or a piece of one. It is free (a leaf), or bound to a sum or a product of
variables; free variables that are equated become one. Equating refines:

    leaf with anything     the leaf is bound to it
    sum with sum           both are cut at the union of their boundaries
    product with product   both are factored along the union of their prefix products
    sum with product       the product is cut at the sum's boundaries: (a + b)·c = a·c + b·c

What cannot be refined is pinned, with the reason: a pinned channel stays, so every equation over it holds.
A bound variable is strictly larger than its pieces (no pieces of size 0, no factors of size 1), so a leaf
cannot occur inside a variable of its own size: comparing sizes is the whole occurs check.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

from halpc.ir.dims import Dim, Leaf, Product, Sum

Form = tuple[Literal["sum", "product"], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class PinReason:
    """Why channels may not go: a sentence, and the node it comes from."""

    reason: str
    culprit: str = ""

    def __str__(self) -> str:
        return f"{self.reason} ({self.culprit})" if self.culprit else self.reason


class _ClashError(Exception):
    """Two forms have no common refinement."""


class Unifier:
    """Variables and what is known of them. Variables are integers that index into the lists."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._size: list[int] = []
        self._form: list[Form | None] = []
        self._pins: dict[int, PinReason] = {}
        self._why = PinReason("")

    # ---- building -----------------------------------------------------------------------------

    def leaf(self, size: int) -> int:
        """A fresh free variable of `size` channels."""
        self._parent.append(len(self._parent))
        self._size.append(size)
        self._form.append(None)
        return len(self._parent) - 1

    def sum(self, parts: Sequence[int]) -> int:
        """A variable that is `parts` one after another."""
        parts = [p for p in parts if self._size[p] > 0]
        if not parts:
            return self.leaf(0)
        if len(parts) == 1:
            return parts[0]
        whole = self.leaf(sum(self._size[p] for p in parts))
        self._form[whole] = ("sum", tuple(parts))
        return whole

    def product(self, factors: Sequence[int]) -> int:
        """A variable that folds `factors`, the last one changing fastest."""
        factors = [f for f in factors if self._size[f] != 1]
        if not factors:
            return self.leaf(1)
        if len(factors) == 1:
            return factors[0]
        whole = self.leaf(math.prod(self._size[f] for f in factors))
        self._form[whole] = ("product", tuple(factors))
        return whole

    def size(self, v: int) -> int:
        """Channels of a variable."""
        return self._size[v]

    # ---- asking -------------------------------------------------------------------------------

    def find(self, v: int) -> int:
        """The representative of everything `v` was equated with."""
        root = v
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[v] != root:
            self._parent[v], v = root, self._parent[v]
        return root

    def leaves(self, v: int) -> set[int]:
        """Representatives of the free variables that `v` is made of."""
        found: set[int] = set()
        seen: set[int] = set()
        stack = [v]
        while stack:
            rep = self.find(stack.pop())
            if rep in seen:
                continue
            seen.add(rep)
            form = self._form[rep]
            if form is None:
                found.add(rep)
            else:
                stack.extend(form[1])
        return found

    def pinned(self, v: int) -> PinReason | None:
        """Why the free variable `v` is pinned, or None."""
        return self._pins.get(self.find(v))

    def scales(self, v: int) -> bool:
        """Whether the kept width of `v` is a fixed share of it whatever the sizes of its pinned factors are."""
        factors = self._flat(v, "product")
        return all(self._form[f] is None or all(self.pinned(leaf) for leaf in self.leaves(f)) for f in factors)

    def resolve(self, names: dict[int, str], memo: dict[int, Dim], v: int) -> Dim:
        """`v` as a dim over leaves named by `names` (representative → name); `memo` is shared between calls."""
        rep = self.find(v)
        if rep in memo:
            return memo[rep]
        form = self._form[rep]
        if form is None:
            dim: Dim = Leaf(names[rep], self._size[rep])
        elif form[0] == "sum":
            dim = Sum(tuple(self.resolve(names, memo, p) for p in self._flat(rep, "sum")))
        else:
            dim = Product(tuple(self.resolve(names, memo, f) for f in self._flat(rep, "product")))
        memo[rep] = dim
        return dim

    # ---- constraining -------------------------------------------------------------------------

    def pin(self, v: int, why: PinReason) -> None:
        """Keep every channel of `v`."""
        for leaf in self.leaves(v):
            self._pins.setdefault(leaf, why)

    def equate(self, a: int, b: int, why: PinReason) -> None:
        """Make `a` and `b` the same axis; where that cannot be, pin what is in the way because of `why`."""
        self._why = why
        queue = deque([(a, b)])
        while queue:
            x, y = (self.find(v) for v in queue.popleft())
            if x == y:
                continue
            try:
                queue.extend(self._refine(x, y))
            except _ClashError as clash:
                reason = PinReason(f"{why.reason}: {clash}", why.culprit)
                self.pin(x, reason)
                self.pin(y, reason)

    def _refine(self, x: int, y: int) -> Iterable[tuple[int, int]]:
        """Equate two representatives; gives the smaller equations that follow from it."""
        if self._size[x] != self._size[y]:
            raise _ClashError(f"{self._size[x]} channels against {self._size[y]}")
        fx, fy = self._form[x], self._form[y]
        if fx is None or fy is None:
            self._bind(x, y) if fx is None else self._bind(y, x)
            return ()
        if fx[0] == fy[0] == "sum":
            return self._align_sums(x, y)
        if fx[0] == fy[0] == "product":
            return self._align_products(x, y)
        return self._align_sum_product(x, y) if fx[0] == "sum" else self._align_sum_product(y, x)

    def _bind(self, leaf: int, to: int) -> None:
        self._parent[leaf] = to
        why = self._pins.pop(leaf, None)
        if why is not None:
            self.pin(to, why)

    def _become(self, v: int, form: Form) -> None:
        """Give a variable a (finer) form; a pin on it moves to its pieces."""
        self._form[v] = form
        why = self._pins.pop(v, None)
        if why is not None:
            self.pin(v, why)

    def _merge(self, keep: int, gone: int) -> None:
        """Two bound variables whose pieces have been equated are one."""
        self._parent[gone] = keep
        self._form[gone] = None

    def _flat(self, v: int, kind: str) -> list[int]:
        """The parts (or factors) of `v` with nested forms of the same kind spliced in."""
        flat: list[int] = []
        stack = [self.find(v)]
        while stack:
            rep = self.find(stack.pop())
            form = self._form[rep]
            if form is not None and form[0] == kind:
                stack.extend(reversed(form[1]))
            else:
                flat.append(rep)
        return flat

    # ---- sums ---------------------------------------------------------------------------------

    def _align_sums(self, x: int, y: int) -> list[tuple[int, int]]:
        pairs = self._walk(deque(self._flat(x, "sum")), deque(self._flat(y, "sum")))
        self._merge(x, y)
        return pairs

    def _walk(self, left: deque[int], right: deque[int]) -> list[tuple[int, int]]:
        """Pair off two runs of pieces, cutting the longer one at every boundary of the other."""
        pairs: list[tuple[int, int]] = []
        while left and right:
            a, b = self.find(left.popleft()), self.find(right.popleft())
            if a == b:
                continue
            if self._is_sum(a) or self._is_sum(b):
                left.extendleft(reversed(self._flat(a, "sum")))
                right.extendleft(reversed(self._flat(b, "sum")))
                continue
            if self._size[a] > self._size[b]:
                a, rest = self._split(a, self._size[b])
                left.appendleft(rest)
            elif self._size[b] > self._size[a]:
                b, rest = self._split(b, self._size[a])
                right.appendleft(rest)
            pairs.append((a, b))
        return pairs

    def _is_sum(self, v: int) -> bool:
        form = self._form[v]
        return form is not None and form[0] == "sum"

    def _split(self, v: int, at: int) -> tuple[int, int]:
        """Cut `v` into its first `at` channels and the others."""
        v = self.find(v)
        form = self._form[v]
        if form is None:
            halves = self.leaf(at), self.leaf(self._size[v] - at)
        elif form[0] == "sum":
            halves = self._split_sum(v, at)
        else:
            halves = self._split_product(v, at)
        self._become(v, ("sum", halves))
        return halves

    def _split_sum(self, v: int, at: int) -> tuple[int, int]:
        head: list[int] = []
        parts = self._flat(v, "sum")
        for i, part in enumerate(parts):
            size = self._size[part]
            if at < size:
                rest = parts[i:]
                if at:
                    first, second = self._split(part, at)
                    head.append(first)
                    rest = [second, *parts[i + 1 :]]
                return self.sum(head), self.sum(rest)
            head.append(part)
            at -= size
        raise _ClashError(f"no boundary {at} channels past the end")

    def _split_product(self, v: int, at: int) -> tuple[int, int]:
        """outer·inner cut at a multiple of `inner` cuts `outer`; elsewhere the block that is cut stands alone.

        (q + 1 + r)·inner, cut inside the middle block, is q·inner + inner[:k] and inner[k:] + r·inner. A block that
        stands alone is all of it there is in the sum, so it stays: as a factor it may be part of other equations.
        """
        first, *others = self._flat(v, "product")
        inner = self.product(others)
        blocks, inside = divmod(at, self._size[inner])
        head: list[int] = []
        tail: list[int] = []
        if blocks:
            before, first = self._split(first, blocks)
            head.append(self._repeat(before, inner))
        if inside:
            if self._size[first] > 1:
                first, after = self._split(first, 1)
                tail.append(self._repeat(after, inner))
            self.pin(first, self._why)
            start, end = self._split(inner, inside)
            head.append(start)
            tail.insert(0, end)
        else:
            tail.append(self._repeat(first, inner))
        return self.sum(head), self.sum(tail)

    def _repeat(self, blocks: int, inner: int) -> int:
        """blocks·inner; a single block is `inner` itself, and stays."""
        if self._size[blocks] == 1:
            self.pin(blocks, self._why)
        return self.product([blocks, inner])

    # ---- products -----------------------------------------------------------------------------

    def _align_products(self, x: int, y: int) -> list[tuple[int, int]]:
        return list(self.fold(self._flat(x, "product"), self._flat(y, "product"), self._why, merged=(x, y)))

    def fold(
        self, left: list[int], right: list[int], why: PinReason, merged: tuple[int, int] | None = None
    ) -> list[tuple[int, int]]:
        """Equations that follow from Π left = Π right, run by run between common prefix products.

        A run without a common refinement is pinned, the others are not touched by that.
        """
        equations: list[tuple[int, int]] = []
        clean = True
        for run_l, run_r in self._runs(left, right):
            try:
                equations += self._align_run(run_l, run_r)
            except _ClashError as clash:
                clean = False
                for v in (*run_l, *run_r):
                    self.pin(v, PinReason(f"{why.reason}: {clash}", why.culprit))
        if merged and clean:
            self._merge(*merged)
        return equations

    def _runs(self, left: list[int], right: list[int]) -> Iterable[tuple[list[int], list[int]]]:
        """Cut two factor lists at their common prefix products."""
        left = [v for v in left if self._size[v] != 1]
        right = [v for v in right if self._size[v] != 1]
        i = j = 0
        while i < len(left) and j < len(right):
            run_l, run_r = [left[i]], [right[j]]
            a, b = self._size[left[i]], self._size[right[j]]
            i, j = i + 1, j + 1
            while a != b:
                if a < b and i < len(left):
                    a *= self._size[left[i]]
                    run_l.append(left[i])
                    i += 1
                elif b < a and j < len(right):
                    b *= self._size[right[j]]
                    run_r.append(right[j])
                    j += 1
                else:
                    break
            yield run_l, run_r
        if i < len(left) or j < len(right):
            yield left[i:], right[j:]

    def _align_run(self, left: list[int], right: list[int]) -> list[tuple[int, int]]:
        if len(left) == 1 and len(right) == 1:
            return [(left[0], right[0])]
        if len(left) == 1 or len(right) == 1:
            return [(self.product(left), self.product(right))]
        totals = [math.prod(self._size[v] for v in side) for side in (left, right)]
        if totals[0] != totals[1]:
            raise _ClashError(f"{totals[0]} entries against {totals[1]}")
        prefixes = sorted({p for side in (left, right) for p in accumulate((self._size[v] for v in side), int.__mul__)})
        if any(b % a for a, b in pairwise(prefixes)):
            sizes = ["·".join(str(self._size[v]) for v in side) for side in (left, right)]
            raise _ClashError(f"{sizes[0]} and {sizes[1]} have no common factors")
        return list(zip(self._factor_all(left, prefixes), self._factor_all(right, prefixes), strict=True))

    def _factor_all(self, factors: list[int], prefixes: list[int]) -> list[int]:
        """`factors` factored further so that their prefix products are exactly `prefixes`."""
        done: list[int] = []
        before = 1
        for factor in factors:
            end = before * self._size[factor]
            for prefix in (p for p in prefixes if before < p < end):
                outer, factor = self._factor(factor, prefix // before)
                done.append(outer)
                before = prefix
            done.append(factor)
            before = end
        return done

    def _factor(self, v: int, outer: int) -> tuple[int, int]:
        """Write `v` as (`outer` entries) · (the rest)."""
        v = self.find(v)
        form = self._form[v]
        inner = self._size[v] // outer
        if form is None:
            pair = self.leaf(outer), self.leaf(inner)
        elif form[0] == "product":
            factors = self._flat(v, "product")
            prefixes = sorted({*accumulate((self._size[f] for f in factors), int.__mul__), outer})
            if any(b % a for a, b in pairwise(prefixes)):
                raise _ClashError(f"{self._size[v]} channels do not fold as {outer}·{inner} here")
            fine = self._factor_all(factors, prefixes)
            split = prefixes.index(outer) + 1
            pair = self.product(fine[:split]), self.product(fine[split:])
        else:
            pair = self._factor_sum(v, inner)
        self._become(v, ("product", pair))
        return pair

    def _factor_sum(self, v: int, inner: int) -> tuple[int, int]:
        """A sum whose pieces are all multiples of `inner` is (sum of the multiples) · inner."""
        outers: list[int] = []
        inners: list[int] = []
        for part in self._flat(v, "sum"):
            times, rest = divmod(self._size[part], inner)
            if rest:
                raise _ClashError(f"a piece of {self._size[part]} channels is no multiple of {inner}")
            pair = (self.leaf(1), part) if times == 1 else self._factor(part, times)
            outers.append(pair[0])
            inners.append(pair[1])
        for other in inners[1:]:
            self.equate(inners[0], other, self._why)
        return self.sum(outers), inners[0]

    # ---- sum against product --------------------------------------------------------------------

    def _align_sum_product(self, x: int, y: int) -> list[tuple[int, int]]:
        """Cut the product `y` at the boundaries of the sum `x`."""
        pairs = self._walk(deque(self._flat(x, "sum")), deque([y]))
        if self.find(y) != self.find(x):
            self._merge(x, self.find(y))
        return pairs
