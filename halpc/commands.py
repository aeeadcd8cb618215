"""What each command does, from parsed arguments to an exit code. Stages are imported when they are needed."""

from __future__ import annotations

import argparse
from typing import Any

from halpc.arguments import RESOURCES, options_of
from halpc.errors import OverBudgetError, UsageError
from halpc.streams import printed
from halpc.units import parse_budget, parse_shapes, parse_share, parse_values, spell_ms, spell_over, spell_shares


def compile(args: argparse.Namespace) -> int:
    """Prune one model to its budgets."""
    from halpc.compile import compile_model
    from halpc.show import progress_bar, show_report
    from halpc.sweep import fastest_within

    if args.max_drop is not None and any(getattr(args, r) is not None for r in RESOURCES):
        raise UsageError("--max-drop stands in place of a budget: leave out --latency, --macs, --params, --peak-memory")
    with progress_bar(quiet=args.quiet or args.json) as progress:
        if args.max_drop is not None:
            report = fastest_within(options_of(args, ()), "latency", parse_share("--max-drop", args.max_drop), progress)
        else:
            report = compile_model(options_of(args), progress)
    out = None if args.dry_run else args.output
    with printed(out):
        if args.json:
            _print(report.as_json())
        elif not args.quiet:
            show_report(report, out)
    if report.status == "over budget":
        raise OverBudgetError(_over(report))
    return 0


def sweep(args: argparse.Namespace) -> int:
    """One profile, many budgets."""
    from halpc.show import progress_bar, show_sweep
    from halpc.sweep import refuse_all_missed, shares
    from halpc.sweep import sweep as run

    given = [r for r in RESOURCES if getattr(args, r) is not None]
    if bool(given) == (args.points is not None) or len(given) > 1:
        raise UsageError("sweep: give one list of budgets (--latency 90%,75%,60%) or --points N")
    resource = given[0] if given else "latency"
    texts = getattr(args, resource).split(",") if given else shares(args.points)
    budgets = tuple(dict.fromkeys(parse_budget(resource.replace("_", "-"), text) for text in texts))
    with progress_bar(quiet=args.quiet or args.json) as progress:
        points = run(options_of(args, budgets), progress)
    with printed(args.output):
        if args.json:
            _print([p.as_json() for p in points])
        elif not args.quiet:
            show_sweep(points, args.output)
    refuse_all_missed(points)
    return 0


def inspect(args: argparse.Namespace) -> int:
    """Groups, what they carry, and what is pinned."""
    from halpc.inspection import check_graph, save_graph
    from halpc.show import show_inspection

    if args.graph is not None:
        check_graph(args.graph)
    found = _inspected(args)
    if args.graph is not None:
        save_graph(found, args.graph)
    with printed(args.graph):
        if args.json:
            _print(found.as_json())
        else:
            show_inspection(found)
    return 0


def explain(args: argparse.Namespace) -> int:
    """Why a layer is pinned, or why two are tied."""
    from halpc.inspection import explain as sentences

    lines = sentences(_inspected(args), args.layer, args.other)
    with printed():
        if args.json:
            _print(lines)
        else:
            print("\n".join(lines))
    return 0


def _inspected(args: argparse.Namespace) -> Any:
    from halpc.inspection import inspect as look

    shapes, values = parse_shapes(args.shape), parse_values(args.values)
    return look(args.model, shapes, args.batch, tuple(args.freeze), args.allow_renormalisation, values)


def profile(args: argparse.Namespace) -> int:
    """Measure a latency table into a file."""
    from halpc.measuring import measure_table
    from halpc.show import progress_bar, show_profile

    if args.check and args.quiet and not args.json:
        raise UsageError(
            "--check says how well plans are predicted, and -q says nothing: leave one out, or give --json"
        )
    with progress_bar(quiet=args.quiet or args.json) as progress:
        found = measure_table(args, progress)
    with printed(args.output):
        if args.json:
            _print(found)
        elif not args.quiet:
            show_profile(found)
    return 0


def bench(args: argparse.Namespace) -> int:
    """Compare models, measured interleaved."""
    from halpc.measuring import compare
    from halpc.show import show_comparison

    comparison = compare(args)
    with printed():
        if args.json:
            _print(comparison.as_json())
        else:
            show_comparison(comparison)
    return 0


def schedule(args: argparse.Namespace) -> int:
    """Targets that fall geometrically, one per pruning step."""
    from passes.select.halp import schedule as targets

    budget = parse_budget("latency", args.latency)
    if budget.share is None:
        raise UsageError("schedule: give the last target as a share of the baseline, such as 55% or 1.8x")
    shares = targets(1.0, budget.share, args.steps)
    with printed():
        if args.json:
            _print([float(share) for share in shares])
        else:
            print("\n".join(spell_shares(shares)))
    return 0


def _over(report: Any) -> str:
    """By how much the model is over its budget, or the engine that was built of it for a range of shapes."""
    limit, took, what = report.budget["latency"]["limit"], report.result.latency_ms, ""
    if took <= limit:
        took, what = report.engine["latency_ms"], "model.engine: "
    return f"{what}measured {spell_ms(took)}, {spell_over(took / limit)} over the budget of {spell_ms(limit)}"


def _print(data: Any) -> None:
    from passes.write import json_text

    print(json_text(data))
