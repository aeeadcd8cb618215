"""Budgets as people write them: `5ms`, `800us`, `60%`, `1.6x`, `120M`, `64MB`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from halpc.errors import UsageError

_TIME_MS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_COUNT = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_BYTES = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 1024.0, "mib": 1024.0**2, "gib": 1024.0**3}
_SUFFIXES = {
    "latency": (_TIME_MS, "5ms, 800us, 60% or 1.6x"),
    "macs": (_COUNT, "60%, 1.6x or 120M"),
    "params": (_COUNT, "50%, 2x or 2.8M"),
    "peak-memory": (_BYTES, "50%, 64MB or 64MiB"),
}
LEAST = 1e-12  # a number that anybody means
UNITS = {"latency": "ms", "macs": "MACs", "params": "parameters", "peak-memory": "bytes"}


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on one resource: a share of the baseline, or an amount in the resource's unit.

    Attributes:
        resource: `latency`, `macs`, `params` or `peak-memory`.
        share: of the baseline, or None.
        amount: in ms, MACs, parameters or bytes, or None.
        text: as it was written, without spaces.
    """

    resource: str
    share: float | None
    amount: float | None
    text: str

    def limit(self, baseline: float) -> float:
        """The limit in the resource's unit, given what the baseline costs."""
        return baseline * self.share if self.share is not None else float(self.amount or 0.0)


def parse_budget(resource: str, text: str) -> Budget:
    """A budget from what a person wrote.

    Raises:
        UsageError: no such resource, no number, an unknown unit, not above zero, or a share above the baseline.
    """
    if resource not in _SUFFIXES or not isinstance(text, str):
        raise UsageError(
            f"budget {resource!r}, {text!r}: expected one of {', '.join(_SUFFIXES)}, and text such as '60%'"
        )
    suffixes, examples = _SUFFIXES[resource]
    match = re.fullmatch(r"\s*([+-]?\d+(?:[.,]\d+)?(?:[eE][+-]?\d+)?)\s*(\S*)\s*", text)
    hint = f"--{resource} {text!r}: expected a budget such as {examples}"
    if match is None:
        raise UsageError(hint)
    if re.search(r",\d{3}$", match[1]):
        raise UsageError(f"{hint}; leave the comma out of thousands, and write a decimal point")
    number, suffix = float(match[1].replace(",", ".")), match[2].lower().replace("μ", "µ")  # Greek mu, micro sign
    if not LEAST < number < 1 / LEAST:
        raise UsageError(f"{hint}; it must be above zero, and finite")
    if suffix in ("%", "x"):
        share = number / 100 if suffix == "%" else 1 / number
        if share > 1:
            raise UsageError(f"{hint}; {text.strip()} is above the model as it is, there is nothing to do")
        return Budget(resource, share, None, match[1] + match[2])
    if not suffix and number < 1:
        raise UsageError(f"{hint}; as a share of the model as it is, that is {100 * number:g}%")
    if suffix not in suffixes or (resource == "latency" and not suffix):
        raise UsageError(f"{hint}; {match[2] or 'a number alone'!s} is no unit for it")
    return Budget(resource, None, number * suffixes[suffix], match[1] + match[2])


def parse_share(option: str, text: str) -> float:
    """`1%` or `0.01` as 0.01.

    Raises:
        UsageError: not a share between 0 and 1.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
    share = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"{option} {text!r}: expected a share such as 1% or 0.01")
    return share


def check_percentile(percent: float) -> None:
    """Raises a UsageError where there is no such percentile."""
    if not isinstance(percent, int | float):
        raise UsageError(f"--percentile {percent!r}: expected a number above 0 and up to 100")
    if not 0 < percent <= 100:
        raise UsageError(f"--percentile {percent:g}: expected a number above 0 and up to 100")


def parse_shape(text: str, option: str = "--shape") -> tuple[str, tuple[int, ...]]:
    """`input:1x3x224x224` as a name and sizes; a name may contain colons.

    Raises:
        UsageError: not of that form.
    """
    name, _, sizes = text.rpartition(":")
    if not name or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes):
        raise UsageError(f"{option} {text!r}: expected NAME:1x3x224x224 with sizes above zero")
    shape = tuple(int(n) for n in sizes.split("x"))
    if max(shape) >= 2**31:
        raise UsageError(f"{option} {text!r}: expected sizes below 2147483648")
    return name, shape


def parse_shapes(texts: Iterable[str], option: str = "--shape") -> dict[str, tuple[int, ...]]:
    """Sizes by input.

    Raises:
        UsageError: not of that form, or two shapes of one input.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, shape = parse_shape(text, option)
        if shapes.setdefault(name, shape) != shape:
            raise UsageError(f"{option} {text!r}: input {name!r} has another shape already, {shapes[name]}; give one")
    return shapes


def parse_values(texts: Iterable[str]) -> dict[str, float]:
    """`sr=16000` and the like: what an input always is; a name may contain equals signs.

    Raises:
        UsageError: not of that form, or two values of one input.
    """
    values: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            value = float({"true": "1", "false": "0"}.get(number.lower(), number))
        except ValueError as error:
            raise UsageError(f"--set {text!r}: expected NAME=NUMBER, as in sr=16000") from error
        if not name or not math.isfinite(value):
            raise UsageError(f"--set {text!r}: expected NAME=NUMBER, as in sr=16000")
        if values.setdefault(name, value) != value:
            raise UsageError(f"--set {text!r}: input {name!r} has another value already, {values[name]:g}; give one")
    return values


def spell_ms(ms: float) -> str:
    """A latency for people: three significant digits, in us, ms or s."""
    if ms < 1:
        return f"{ms * 1e3:.3g} us" if ms < 0.9995 else "1.00 ms"
    return f"{ms:.3g} ms" if ms < 999.5 else f"{ms / 1e3:.3g} s"


def spell_shares(shares: Sequence[float]) -> list[str]:
    """Shares in percent, with as many significant digits as tell different ones apart, four at least."""
    for digits in range(4, 17):
        spelled = [f"{100 * share:.{digits}g}%" for share in shares]
        if len(set(spelled)) == len(set(shares)):
            break
    return spelled


def spell_latency(percent: float) -> str:
    """`latency` where it is the median, else with its percentile."""
    return "latency" if percent == 50 else f"latency p{percent:g}"


def spell_over(ratio: float) -> str:
    """How far a ratio is above one, for people: `3.2%`, `0.04%`, never `0.0%`."""
    over = 100 * (ratio - 1)
    if over < 0.005:
        return "less than 0.01%"
    return f"{over:.1f}%" if over >= 0.095 else f"{over:.2f}%"


def spell_count(count: float) -> str:
    """A count for people: three significant digits with k, M, G or T."""
    for factor, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(count) >= factor:
            return f"{count / factor:.3g}{letter}"
    return f"{count:.0f}"


def spell_bytes(count: float) -> str:
    """Bytes for people, in decimal units."""
    return f"{spell_count(count).replace(' ', ' ') if count >= 1e3 else f'{count:.0f} '}B"


def spell_amount(resource: str, amount: float) -> str:
    """An amount of a resource for people; peak memory's name may say at which node."""
    kind = resource.partition(" ")[0]
    if kind == "latency":
        return spell_ms(amount)
    return spell_bytes(amount) if kind == "peak-memory" else f"{spell_count(amount)} {UNITS[kind]}"
