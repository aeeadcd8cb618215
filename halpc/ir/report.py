"""The report: what was asked, what came out, what was measured where, and why each group is as wide as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from halpc.units import spell_amount, spell_latency, spell_over

FORMAT, VERSION = "halpc.report", 1
PRICED = {"latency": (1.0, "ms"), "macs": (1e6, "M MACs"), "params": (1e6, "M parameters"), "peak-memory": (1e6, "MB")}
_NOTHING: Final = 1e-12  # of a resource, in its unit


@dataclass(frozen=True, slots=True)
class Figures:
    """One model's figures; None where nothing was measured.

    Attributes:
        latency_ms: measured end to end at the percentile asked for.
        latency_spread_ms: half the interquartile range of those measurements.
        macs: multiply-accumulates at the analysed shapes.
        params: entries of weights.
        peak_memory: bytes of weights and of the most activations that live at once, at the analysed shapes.
        size_bytes: of the ONNX file.
        accuracy: top-1 on the inputs given with --evaluate.
    """

    macs: float
    params: float
    peak_memory: float
    latency_ms: float | None = None
    latency_spread_ms: float | None = None
    size_bytes: int | None = None
    accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class GroupLine:
    """One group's widths and why it stopped there: what one latency step more would buy, and at which price.

    Attributes:
        size, width: channels before and after.
        step: latency-aware group size, channels.
        next_width: the first admissible width where the next step ends; None where the group is as wide as may be.
        next_gain: importance that it would add.
        next_cost: resource → what it would cost, in the resource's unit.
        next_price: resource → importance per unit of it, where it costs any.
        next_asked: importance that the same costs buy elsewhere at the report's prices; None without prices.
    """

    name: str
    size: int
    width: int
    step: int
    layers: tuple[str, ...]
    next_width: int | None = None
    next_gain: float | None = None
    next_cost: Mapping[str, float] = field(default_factory=dict)
    next_price: Mapping[str, float] = field(default_factory=dict)
    next_asked: float | None = None

    @property
    def buys(self) -> str:
        """What the next width would buy and cost, for people."""
        if self.next_gain is None:
            return "as wide as it may be"
        costs = [spell_amount(resource, cost) for resource, cost in self.next_cost.items() if cost]
        return f"{self.next_gain:.3g} for {' and '.join(costs) or 'nothing'}"

    @property
    def price(self) -> str:
        """Importance per unit of cost, for people."""
        return ", ".join(spell_price(resource, price) for resource, price in self.next_price.items())

    @property
    def of_price(self) -> float | None:
        """The marginal price as a share of the prices paid: below one, the step was not worth its cost."""
        if self.next_gain is None or not self.next_asked or self.next_asked < 0:
            return None
        return self.next_gain / self.next_asked


def spell_price(resource: str, price: float) -> str:
    """A price of a resource for people, in importance per unit."""
    amount, unit = PRICED[resource.partition(" ")[0]]
    return f"{price * amount:.3g} per {unit}"


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that `report.json` and the terminal summary say.

    Attributes:
        status: `met`, `over budget`, `dry run`, or `predicted` where latency was limited and could not be measured. An
            engine that is over the budget makes it `over budget`.
        budget: resource → limit, unit and what was written.
        baseline, result: figures before and after.
        predicted_latency_ms: the model's prediction for the result before it was measured, or where nothing was.
        predicted_baseline_ms: its prediction for the baseline, where nothing was measured.
        importance_kept: share of the importance that the budget bought.
        gap: relative certificate gap of the last selection.
        bound_means: what the certificate is a bound of.
        prices: resource → Lagrange multiplier λ, importance per unit; one per budget (peak memory: per node that
            limits it), none where the solver has none.
        verification: the oracle's judgement.
        recovery: what recovery did, or None.
        groups: every free group.
        pinned: group name → why it stays whole.
        rounds: predicted and measured latency of every choice of the closed loop, with the number of its round; 0 is
            what is written, measured again.
        stage_seconds: wall time per stage.
        profiler: backend and regime, and samples measured against reused.
        device: what was measured on, or what the table was from which latency was predicted.
        precision: that it is deployed at.
        engine: what is known of the engine beside the model: version, GPU, size, its layers' real precisions, what it
            takes itself (None: its shapes are others than were measured), and what the builder warned of; None where
            none was built.
        versions: of halpc and the libraries that matter.
        notes: sentences that a reader must not miss.
    """

    status: str
    model: str
    budget: Mapping[str, Any]
    baseline: Figures
    result: Figures
    predicted_latency_ms: float | None
    importance_kept: float
    gap: float | None
    bound_means: str
    verification: Mapping[str, Any]
    recovery: Mapping[str, Any] | None
    prices: Mapping[str, float]
    groups: tuple[GroupLine, ...]
    pinned: Mapping[str, str]
    rounds: tuple[Mapping[str, float], ...]
    stage_seconds: Mapping[str, float]
    profiler: Mapping[str, Any]
    device: Mapping[str, Any]
    versions: Mapping[str, str]
    solver: str
    notes: tuple[str, ...] = ()
    precision: str = "fp32"
    engine: Mapping[str, Any] | None = None
    predicted_baseline_ms: float | None = None

    @property
    def before_after_ms(self) -> tuple[float | None, float | None]:
        """Latency of baseline and result, measured, else predicted, else None."""
        if self.baseline.latency_ms is not None and self.result.latency_ms is not None:
            return self.baseline.latency_ms, self.result.latency_ms
        return self.predicted_baseline_ms, self.predicted_latency_ms

    @property
    def verdicts(self) -> tuple[tuple[str, str], ...]:
        """Every budget: what was asked and what that is, and how much of it is used."""
        return tuple((self._asked(name), self._used(name)) for name in self.budget)

    def _asked(self, resource: str) -> str:
        limit = self.budget[resource]
        name = self.latency_name if resource == "latency" else resource
        return f"{name} {limit['asked']} = {spell_amount(resource, limit['limit'])}"

    def _used(self, resource: str) -> str:
        found = {"latency": self.result.latency_ms, "macs": self.result.macs, "params": self.result.params,
                 "peak-memory": self.result.peak_memory}[resource]  # fmt: skip
        if found is None:
            predicted = self.budget[resource]["predicted"]
            share = predicted / self.budget[resource]["limit"]
            return f"predicted {spell_amount(resource, predicted)}, {share:.1%} of it, not measured"
        if found < _NOTHING:
            return "met, there is none"
        used = found / self.budget[resource]["limit"]
        return f"met, {used:.1%} of it used" if used <= 1 else f"MISSED by {spell_over(used)}"

    @property
    def latency_name(self) -> str:
        """`latency` where it is the median, else with the percentile that was measured."""
        return spell_latency(self.profiler.get("percentile", 50.0))

    def as_json(self) -> dict[str, Any]:
        """The file's content."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}
