"""What a person sees: progress on stderr, tables on stdout (rich)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from halpc import job
from halpc.casting import NATIVE
from halpc.inspection import Inspection
from halpc.ir.frontier import Point
from halpc.ir.latency import Comparison, Device
from halpc.ir.report import Report, spell_price
from halpc.units import spell_bytes, spell_count, spell_latency, spell_ms


class _Console(Console):
    """One that leaves it to `halpc.streams` what a reader that has gone means."""

    def on_broken_pipe(self) -> None:
        raise


# Names are no formatting, whatever they look like.
OUT = _Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 160)
ERR = Console(highlight=False, markup=False, emoji=False, stderr=True)
NO_GAP = 1e-8  # what a proof leaves to rounding
SHOWN = 40  # groups listed on the terminal


@contextmanager
def progress_bar(quiet: bool) -> Iterator[job.Progress]:
    """A bar per stage, with time left where a stage can tell; nothing where nobody looks."""
    if quiet or not ERR.is_terminal:
        yield job.silent
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=ERR, transient=True) as bar:
        tasks: dict[str, object] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total or None)
            bar.update(tasks[stage], completed=done, total=total or None)  # type: ignore[arg-type]

        yield advance


def _say(line: str) -> None:
    """One line; into a file or a pipe as it is, however long, so that it can be searched for and copied."""
    OUT.print(Text(line), soft_wrap=not OUT.is_terminal)


def show_report(report: Report, out: Path | None) -> None:
    """Every group, before and after, how sure that is, and where it went."""
    _show_groups(report)
    before, after = report.baseline, report.result
    table = Table(title=report.model, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column, justify in (("", "left"), ("before", "right"), ("after", "right"), ("change", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    before_ms, after_ms = report.before_after_ms
    if before_ms and after_ms:
        kind = "" if after.latency_ms else ", predicted"
        change = f"{before_ms / after_ms:.2f}x faster{kind}"
        table.add_row(report.latency_name, spell_ms(before_ms), spell_ms(after_ms), change)
    table.add_row("MACs", spell_count(before.macs), spell_count(after.macs), f"{_share(after.macs, before.macs)} left")
    table.add_row(
        "parameters",
        spell_count(before.params),
        spell_count(after.params),
        f"{_share(after.params, before.params)} left",
    )
    table.add_row(
        "memory",
        spell_bytes(before.peak_memory),
        spell_bytes(after.peak_memory),
        f"{_share(after.peak_memory, before.peak_memory)} left",
    )
    if before.size_bytes and after.size_bytes:
        table.add_row(
            "file",
            spell_bytes(before.size_bytes),
            spell_bytes(after.size_bytes),
            f"{_share(after.size_bytes, before.size_bytes)} left",
        )
    if before.accuracy is not None and after.accuracy is not None:
        change = f"{100 * (after.accuracy - before.accuracy):+.2f} points"
        table.add_row("top-1", f"{before.accuracy:.2%}", f"{after.accuracy:.2%}", change)
    OUT.print(table)
    for line in _sentences(report, out):
        _say(line)


def _show_groups(report: Report) -> None:
    """Why every group is as wide as it is: what one more step would have bought and cost, against the price paid."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("group", "before", "after", "step", "next", "would buy", "at a price of", "of λ"):
        table.add_column(column, justify="left" if column == "group" else "right", overflow="fold")
    for g in report.groups[:SHOWN]:
        following = "" if g.next_width is None else str(g.next_width)
        share = "" if g.of_price is None else f"{g.of_price:.0%}"
        table.add_row(Text(g.name), str(g.size), str(g.width), str(g.step), following, g.buys, g.price, share)
    OUT.print(table)
    if len(report.groups) > SHOWN:
        _say(f"and {len(report.groups) - SHOWN} more: report.html has them all")
    OUT.print()


def _share(after: float, before: float) -> str:
    return f"{after / max(before, 1):.1%}"


def _optimality(report: Report) -> str:
    if report.gap is None:
        return "no certificate"
    return f"at most {report.gap:.4%} below the optimum" if report.gap > NO_GAP else "the optimum, as is proven"


def _after(report: Report) -> str:
    choices = [r for r in report.rounds if r["round"]]
    rounds = max((int(r["round"]) for r in choices), default=0)
    return f"after {rounds} round(s), {len(choices)} choice(s) of widths"


def _sentences(report: Report, out: Path | None) -> Iterator[str]:
    yield ""
    for asked, used in report.verdicts:
        yield f"budget      {asked}: {used}"
    predicted, measured = report.predicted_latency_ms, report.result.latency_ms
    if predicted is not None and measured is not None:
        yield f"predicted   {spell_ms(predicted)}, measured {spell_ms(measured)} {_after(report)}"
    yield f"importance  {report.importance_kept:.1%} kept, {_optimality(report)} ({report.solver})"
    if report.prices:
        yield f"price paid  λ = {', '.join(spell_price(r, p) for r, p in report.prices.items())} (importance)"
    if predicted is None and measured is None:
        yield "latency     not measured, since no budget is on it; halpc bench compares both models"
    error, noise = report.verification["max_relative_error"], report.verification["tolerance"]
    yield f"verified    slim = masked original within {error:.1e} ({noise:.0e} is float noise)"
    selections, unseen = report.verification["selections"], report.verification["hidden_selections"]
    if selections:
        nodes, error = len({s["node"] for s in selections}), max(s["error"] for s in selections)
        yield f"            {nodes} node(s) that select: compared at what they read, within {error:.1e}"
    if unseen:
        yield f"            {unseen} node(s) that select inside If, Loop or Scan: each model chose for itself"
    if report.recovery is not None:
        before, after = report.recovery["error_before"], report.recovery["error_after"]
        yield f"recovered   output error {before:.3g} → {after:.3g} on held-back inputs"
    narrowed = sum(line.width < line.size for line in report.groups)
    if narrowed and report.recovery is None:
        yield "recovered   nothing, and accuracy may be lost: layers are refitted on --calibration inputs"
    counts = f"{narrowed} of {len(report.groups)} narrowed, {len(report.pinned)} pinned"
    yield f"groups      {counts} (halpc inspect says why)"
    if report.device["kind"] != "analytic":
        kind = "" if measured is not None else " (the table's)"
        yield f"device      {Device.from_json(report.device).spoken}{kind}"
    yield from (f"note        {note}" for note in report.notes)
    if out is not None:
        yield f"written     {out}/{', '.join(_written(report))}"


def _written(report: Report) -> list[str]:
    """The files of this run in the output folder."""
    deployed = [f"pruned.{report.precision}.onnx"] if report.precision not in NATIVE else []
    engine = [] if report.engine is None else ["model.engine"]
    engine += ["model.layers.json"] if report.engine is not None and report.engine["gpu"] else []
    return ["pruned.onnx", *deployed, *engine, "plan.json", "latency.json", "report.json", "report.html"]


def show_profile(found: Mapping[str, Any]) -> None:
    """What was measured, how well it predicts, and what it is for."""
    now, known = found["measured_now"], found["saved_by_table"]
    lines = {
        "model": f"{found['model']}: {spell_ms(found['baseline_ms'])} as it is",
        "device": Device.from_json(found["device"]).spoken,
        "table": f"{found['table']}: {found['samples']} samples of kernels and {found['networks']} whole networks;"
        f" {now} measured now, {known} there before; {found['seconds']:.3g} s",
        "prediction": f"of each network from the others: {_quality(found['fit'])}",
    }
    if "held_back" in found:
        lines["check"] = f"of networks that it has not seen: {_quality(found['held_back'])}"
    lines["next"] = (
        f"halpc compile {found['model']} --latency 60% --table {found['table']} (where this device is not:"
        " --accept-table-from-other-device)"
    )
    for name, line in lines.items():
        _say(f"{name:<12}{line}")


def _quality(prediction: Mapping[str, Any]) -> str:
    """Errors of a prediction in one line."""
    text = (
        f"off by {prediction['median_error']:.1%} (median), nine in ten by less than {prediction['p90_error']:.1%},"
        f" R² {prediction['r2']:.4f} ({prediction['plans']} networks)"
    )
    now = prediction.get("now")
    if now is None:
        return text
    return (
        f"{text}; the machine is at {1 / prediction['speed']:.1%} of the speed it was profiled at; with what changed"
        f" taken out {now['median_error']:.1%}, {now['p90_error']:.1%}, {now['r2']:.4f}"
    )


def show_inspection(found: Inspection) -> None:
    """Groups by the MACs they carry, then what stays whole and why."""
    OUT.print(f"{found.model.path}: {spell_count(found.total_macs)} MACs, {spell_count(found.total_params)} parameters")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("group", "width", "MACs", "parameters", "layers, or why it stays whole"):
        table.add_column(
            column, justify="left" if column[0] in "gl" else "right", no_wrap=column == "group", overflow="fold"
        )
    for row in found.rows:
        layers = ", ".join(row.layers[:6]) + (f" and {len(row.layers) - 6} more" if len(row.layers) > 6 else "")
        text = Text(f"stays whole: {row.pin}", style="dim") if row.pin else Text(layers)
        table.add_row(Text(row.name), str(row.size), spell_count(row.macs), spell_count(row.params), text)
    OUT.print(table)
    for layer, reason in found.whole.items():
        _say(f"{layer} stays whole: {reason}")
    for note in found.notes:
        _say(note)


def show_sweep(points: Sequence[Point], out: Path) -> None:
    """One line per budget."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("budget", "", "predicted", "measured", "speedup", "MACs left", "importance", "gap", "top-1"):
        table.add_column(column, justify="right" if column else "left")
    for point in points:
        found = point.outcome
        if found is None:
            table.add_row(point.budget, point.status, *[""] * 7)
            continue
        before, after = found.baseline, found.result
        table.add_row(
            point.budget,
            point.status,
            spell_ms(found.predicted_latency_ms) if found.predicted_latency_ms else "",
            spell_ms(after.latency_ms) if after.latency_ms else "",
            f"{before.latency_ms / after.latency_ms:.2f}x" if before.latency_ms and after.latency_ms else "",
            _share(after.macs, before.macs),
            f"{found.importance_kept:.1%}",
            "" if found.gap is None else f"{found.gap:.3%}",
            "" if after.accuracy is None else f"{after.accuracy:.2%}",
        )
    OUT.print(table)
    drawn = ["sweep.svg"] if (out / "sweep.svg").is_file() else []
    _say(f"written     {out}/{', '.join(['sweep.json', *drawn])}{_folders(points)}")


def _folders(points: Sequence[Point]) -> str:
    """How many budgets have a folder with a model."""
    written = sum(point.written for point in points)
    if not written:
        return "; no model"
    return f" and a folder per budget{f' that has a model: {written} of {len(points)}' * (written < len(points))}"


def show_comparison(comparison: Comparison) -> None:
    """Models side by side with their intervals; a verdict only where the intervals allow one."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    latency, interval = spell_latency(comparison.percent), f"{comparison.confidence:.0%} interval"
    for column in ("model", latency, interval, "speedup", interval, ""):
        table.add_column(column, justify="left" if column in ("model", "") else "right")
    for c in comparison.contenders:
        table.add_row(
            c.name,
            spell_ms(c.latency_ms),
            " to ".join(map(spell_ms, c.interval_ms)),
            f"{c.speedup:.3f}x",
            " to ".join(f"{v:.3f}" for v in c.speedup_interval),
            c.verdict,
        )
    OUT.print(table)
    runs = [len(c.timing.samples_ms) for c in comparison.contenders]
    _say(f"measured on {comparison.device.spoken}: {min(runs)} to {max(runs)} runs of each, in turns")
