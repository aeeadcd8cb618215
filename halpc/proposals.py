"""Choices to measure next: at first by the latency model, then near what was measured, by what that lets expect.

Once something was measured the latency model is trusted for differences only: measured choices are changed a little, to
what all measurements together let expect (`halpc/expectation.py`), as close to the limit as expectations and noise have
shown to pay. What the best of them leaves of the limit is spent in single groups.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from halpc.choosing import admissible, choose, limits_of
from halpc.errors import InfeasibleError
from halpc.evidence import Trial, best_sure
from halpc.expectation import Expectation, best_aims, outlook
from halpc.ir.problem import Selection
from halpc.job import Job, Widths
from halpc.trials import MOST_CALLS, known_by
from passes.latency.networks import at_once

AIMS: Final = (0.98, 0.955, 0.93)  # shares of the limit that are selected for first: what looks cheap takes longer
HIGHEST_AIM: Final = 0.99  # and later, at most
TOLERANCE: Final = 0.005  # how far from the aim the expected latency may be, as a share of the limit
STARTS, TRIES = 2, 6  # measured choices to start from, and selections from each, until one is expected to fit
THOUGHT_S: Final = 5.0  # after which no more choices are compared
NEAR: Final = 0.1  # a choice this close to the budget is changed, not chosen anew
_SAME: Final = 1e-9  # share of a latency that is no difference


@dataclass(frozen=True, slots=True)
class Guess:
    """A choice not measured yet, and its expected latency over the limit."""

    selection: Selection
    share: float

    @property
    def key(self) -> Widths:
        """What the choice is known by."""
        return known_by(self.selection.widths)

    def off(self, aim: float) -> float:
        """How far the share is from an aim, as a logarithm."""
        return abs(math.log(self.share / aim))


def first(job: Job) -> list[Guess]:
    """Choices by the latency model alone.

    Raises:
        InfeasibleError: no choice of widths fits.
    """
    limit, whole_ms = limits_of(job)["latency"], job.costs["latency"].at({})

    def optimum(aim: float, deadline: float) -> list[Guess]:
        choose(job, {"latency": aim * limit})
        return [Guess(job.selection, job.costs["latency"].at(job.selection.widths) / limit)]

    as_it_is = (1 + _SAME,)  # 100% is the model as it is, however a limit on its latency rounds
    return _gathered(AIMS[: _side_by_side(job)] if limit != whole_ms else as_it_is, optimum)


def later(job: Job) -> list[Guess]:
    """Choices that are expected to fit, as far as is known: for every aim the best of those expected to come near it.

    Raises:
        InfeasibleError: no choice of widths fits, and none was measured that does.
    """
    trials, most = list(job.trials.values()), _side_by_side(job)
    aims = best_aims(trials, HIGHEST_AIM, MOST_CALLS, most)
    found = _gathered(aims, lambda aim, deadline: list(_candidates(job, aim, deadline)))
    kept = best_sure(trials)
    if len(found) == most or kept is None:
        return found
    steps = _single_steps(job, kept, {guess.key for guess in found})
    return [*found, *islice(steps, most - len(found))]


def _single_steps(job: Job, kept: Trial, taken: Collection[Widths]) -> Iterator[Guess]:
    """Choices that are wider in one group than the best that surely met the budget; what gains most on average first.

    Args:
        taken: choices that will be measured anyway.
    """
    correct_at(job, kept)
    cost, known = job.costs["latency"], {*job.trials, *taken}
    expectation = Expectation(cost, list(job.trials.values()))
    for widths in _wider(job, kept, expectation):
        if known_by(widths) in known:
            continue
        try:
            choose(job, {"latency": cost.at(widths) * (1 + _SAME)}, widths)
        except InfeasibleError:  # beyond another budget
            continue
        guess = Guess(job.selection, expectation.at(job.selection.widths))
        if guess.key not in known and guess.selection.value > kept.selection.value:
            known.add(guess.key)
            yield guess


def _wider(job: Job, kept: Trial, expectation: Expectation) -> list[dict[str, int]]:
    """Widths of one group more than `kept` has, as long as they are expected to fit; by what they gain on average."""
    own, likely = kept.selection.widths, outlook(list(job.trials.values()), MOST_CALLS)
    deadline = time.monotonic() + THOUGHT_S
    found: list[tuple[float, dict[str, int]]] = []
    for choice in admissible(job):
        worth = dict(zip(choice.widths.tolist(), choice.value.tolist(), strict=True))
        for size in (size for size in worth if size > own[choice.name]):
            widths = {**own, choice.name: size}
            share = expectation.at(widths)
            if not 0 < share <= 1 or time.monotonic() > deadline:
                break
            found.append(((worth[size] - worth[own[choice.name]]) * float(likely.chances(share)), widths))
    return [widths for gain, widths in sorted(found, key=lambda step: -step[0]) if gain > 0]


def _gathered(aims: Sequence[float], propose: Callable[[float, float], list[Guess]]) -> list[Guess]:
    """One choice per aim, no two alike; fewer where that would take long.

    Args:
        propose: choices for an aim, not to be looked for beyond a moment of the monotonic clock.

    Raises:
        InfeasibleError: there is none for the first aim.
    """
    found: dict[Widths, Guess] = {}
    deadline = time.monotonic() + THOUGHT_S
    for aim in aims:
        if found and time.monotonic() > deadline:
            break
        try:
            others = [guess for guess in propose(aim, deadline) if guess.key not in found]
        except InfeasibleError:
            if not found:
                raise
            break
        near = [guess for guess in others if guess.off(aim) <= TOLERANCE]
        if others:
            guess = max(near, key=lambda g: g.selection.value) if near else min(others, key=lambda g: g.off(aim))
            found[guess.key] = guess
    return list(found.values())


def _side_by_side(job: Job) -> int:
    """How many choices are measured at a time: as many as there are first aims, where memory bears them."""
    return max(1, min(len(AIMS), at_once(job.model) - 2))  # the baseline and an earlier choice are measured beside them


def _candidates(job: Job, aim: float, deadline: float) -> Iterator[Guess]:
    """New choices near measured ones, worth more than what surely met the budget; from the deadline on a single one.

    The latency model is scaled to what the choice took that is started from; and the limit moved, where what was
    measured of all choices says that the new one would miss the aim.
    """
    trials, given, refused = list(job.trials.values()), False, None
    expectation = Expectation(job.costs["latency"], trials)
    sure = best_sure(trials)
    least = -math.inf if sure is None else sure.selection.value
    for start in _starts(trials, aim):
        correct_at(job, start)
        limit = start.evidence.limit_ms
        near = start.selection.widths if abs(math.log(start.evidence.share)) < NEAR else None
        target, low, high = aim * limit, 0.0, math.inf
        for _ in range(TRIES):
            if given and time.monotonic() > deadline:
                return
            try:
                choose(job, {"latency": target}, near)
            except InfeasibleError as error:
                refused = error
                break
            guess = Guess(job.selection, expectation.at(job.selection.widths))
            if not 0 < guess.share < math.inf:  # too far from all that was measured to expect anything
                break
            fits = guess.share <= 1 or sure is None
            if fits and guess.key not in job.trials and guess.selection.value > least:
                given = True
                yield guess
                if guess.off(aim) <= TOLERANCE:
                    break
            low, high = (target, high) if guess.share < aim else (low, target)
            target = math.sqrt(low * high) if low > 0 and high < math.inf else target * aim / guess.share
    if not given and not any(t.evidence.met for t in trials):
        raise refused or InfeasibleError("no other choice", budget=aim, floor=math.inf, resource="latency")


def _starts(trials: Sequence[Trial], aim: float) -> list[Trial]:
    """The measured choices that came closest to the aim, and the best that surely met the budget."""
    by_distance = sorted(trials, key=lambda t: abs(math.log(t.evidence.share / aim)))
    starts = by_distance[:STARTS]
    sure = best_sure(trials)
    return starts if sure is None or sure in starts else [*starts, sure]


def correct_at(job: Job, trial: Trial) -> None:
    """Scale the latency model to what a choice took."""
    taken_ms = trial.evidence.share * trial.evidence.limit_ms
    job.costs["latency"] = job.costs["latency"].corrected(trial.selection.widths, taken_ms)
