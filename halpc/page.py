"""`report.html`: the report as one self-contained page, no scripts, no network."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from halpc.ir.report import GroupLine, Report, spell_price
from halpc.units import spell_bytes, spell_count, spell_ms

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}td,th{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:left}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.bar{background:#e8e8e8;height:.8rem;width:12rem}.bar i{display:block;background:#3b6ea5;height:100%}
.met{color:#1a7f37}.bad{color:#b42318}code{background:#f3f3f3;padding:0 .2rem}
"""


def render(report: Report) -> str:
    """HTML text."""
    verdict = {"met": "met", "over budget": "bad"}.get(report.status, "")
    status = "predicted, not measured" if report.status == "predicted" else report.status
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>halpc: {escape(report.model)}</title><style>{STYLE}</style>",
        f"<h1>{escape(report.model)}: budget <span class={verdict}>{escape(status)}</span></h1>",
        _table(("budget", ""), report.verdicts),
        _table(("", "before", "after"), _figures(report)),
        "<h2>How sure</h2>",
        _table(("what", "value"), _certainty(report)),
    ]
    if report.rounds:
        columns_ms = ("limit_ms", "predicted_ms", "measured_ms")
        rows = [
            (f"{r['round']:.0f}" if r["round"] else "written", *(spell_ms(r[k]) for k in columns_ms))
            for r in report.rounds
        ]
        columns = ("round", "limit", "predicted", "measured")
        parts += [f"<h2>Closed loop: {report.latency_name}</h2>", _table(columns, rows)]
    parts += ["<h2>Groups</h2>", _groups(report.groups)]
    parts += ["<h2>Stays whole</h2>", _table(("group", "why"), report.pinned.items())]
    parts += [
        "<h2>Device and versions</h2>",
        _table(("", ""), [(k, str(v)) for k, v in {**report.device, **report.versions}.items()]),
    ]
    return "\n".join(parts)


def _figures(report: Report) -> Iterable[tuple[str, str, str]]:
    before, after = report.baseline, report.result
    before_ms, after_ms = report.before_after_ms
    if before_ms is not None and after_ms is not None:
        kind = "" if after.latency_ms is not None else ", predicted"
        yield f"{report.latency_name}{kind}", spell_ms(before_ms), spell_ms(after_ms)
    yield "MACs", spell_count(before.macs), spell_count(after.macs)
    yield "parameters", spell_count(before.params), spell_count(after.params)
    yield "peak memory", spell_bytes(before.peak_memory), spell_bytes(after.peak_memory)
    if before.accuracy is not None and after.accuracy is not None:
        yield "top-1", f"{before.accuracy:.2%}", f"{after.accuracy:.2%}"


def _certainty(report: Report) -> Iterable[tuple[str, str]]:
    yield "importance kept", f"{report.importance_kept:.2%}"
    yield "certificate gap", "none" if report.gap is None else f"{report.gap:.4%}"
    yield "the bound is", report.bound_means
    if report.prices:
        yield "price paid, λ", ", ".join(spell_price(r, p) for r, p in report.prices.items()) + " (importance)"
    yield "slim against masked original", f"{report.verification['max_relative_error']:.2e} relative"
    if report.predicted_latency_ms is not None and report.result.latency_ms is not None:
        yield f"predicted {report.latency_name}", spell_ms(report.predicted_latency_ms)
    yield "latency", str(report.profiler.get("regime") or report.profiler.get("backend"))
    for note in report.notes:
        yield "note", note


def _groups(lines: Iterable[GroupLine]) -> str:
    rows = []
    for line in sorted(lines, key=lambda g: g.width / g.size):
        share = 100 * line.width / line.size
        following = "" if line.next_width is None else line.next_width
        of_price = "" if line.of_price is None else f"{line.of_price:.0%}"
        rows.append(
            f"<tr><td>{escape(line.name)}<td class=n>{line.size}<td class=n>{line.width}<td class=n>{line.step}"
            f"<td><div class=bar><i style='width:{share:.0f}%'></i></div>"
            f"<td class=n>{following}<td>{escape(line.buys)}<td>{escape(line.price)}<td class=n>{of_price}"
        )
    head = (
        "<tr><th>group<th class=n>before<th class=n>after<th class=n>step<th>kept<th class=n>next"
        "<th>would buy<th>at a price of<th class=n>of λ"
    )
    return f"<table>{head}{''.join(rows)}</table>"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    top = "".join(f"<th>{escape(h)}" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(c))}" for c in row) for row in rows)
    return f"<table><tr>{top}{body}</table>"
