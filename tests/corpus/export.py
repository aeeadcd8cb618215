"""`python -m tests.corpus.export --out DIR`: one ONNX file per row and variant.

Files that exist are kept. A network that fails costs nothing but itself: the reason goes to
FAILURES.json, what was written to INDEX.json. Every row's first variant comes before any second.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from tests.corpus import torchvision_operators
from tests.corpus.afterwards import AFTERWARDS
from tests.corpus.check import check
from tests.corpus.randomise import example, randomise, seed
from tests.corpus.row import Row, Variant
from tests.corpus.table import ROWS
from tests.corpus.write import flat, write

log = logging.getLogger("tests.corpus")


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    resource.setrlimit(resource.RLIMIT_AS, (options.limit_gb << 30,) * 2)
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)  # it has no ONNX counterpart
    torchvision_operators.ready()
    options.out.mkdir(parents=True, exist_ok=True)
    _forget(options.out)
    for row, variant in _work(options):
        path = options.out / row.file(variant)
        if not path.exists():
            _attempt(row, variant, path, options.limit_s)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.corpus.export", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--only", nargs="+", default=["*"], help="patterns on file names, e.g. 'timm-res*' '*dynamo*'")
    parser.add_argument("--exporter", choices=["torchscript", "dynamo"], help="instead of each row's own variants")
    parser.add_argument("--opset", type=int, default=17, help="with --exporter")
    parser.add_argument("--dynamic-batch", action="store_true", help="with --exporter")
    parser.add_argument("--first", action="store_true", help="each row's first variant only")
    parser.add_argument("--limit-gb", type=int, default=12, help="give up on a network that wants more memory")
    parser.add_argument("--limit-s", type=int, default=240, help="give up on a network after so many seconds")
    return parser


def _work(options: argparse.Namespace) -> Iterator[tuple[Row, Variant]]:
    """What to export, in order of breadth."""
    dynamic = "batch" if options.dynamic_batch else ""
    given = options.exporter and Variant(options.exporter, options.opset, dynamic=dynamic)
    chosen = [[given] if given else [Variant.parse(text) for text in row.variants] for row in ROWS]
    for rank in list(zip_longest(*chosen))[: 1 if options.first else None]:
        for row, variant in zip(ROWS, rank, strict=True):
            if variant is not None and any(
                fnmatch.fnmatch(row.file(variant), f"{pattern}*") for pattern in options.only
            ):
                yield row, variant


def _attempt(row: Row, variant: Variant, path: Path, limit_s: int) -> None:
    """Export and check one file; record it or the reason why there is none."""
    started = time.perf_counter()
    draft = path.with_suffix(f".{os.getpid()}.part")
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(limit_s)
    try:
        facts = export(row, variant, draft)
    except (Exception, SystemExit) as error:  # any library may raise anything; the reason is kept
        reason = f"{type(error).__name__}: {error}".strip()[:600]
        _record(path.parent / "FAILURES.json", path.name, {"reason": reason})
        log.warning("%s FAILED %s", path.name, reason.splitlines()[0][:200])
        return
    else:
        draft.rename(path)
    finally:
        signal.alarm(0)
        draft.unlink(missing_ok=True)
    seconds = round(time.perf_counter() - started, 2)
    _record(path.parent / "INDEX.json", path.name, {"file": path.name, **facts, "export_s": seconds})
    _record(path.parent / "FAILURES.json", path.name, None)
    log.info("%s %.1f MB, %.1f s", path.name, facts["bytes"] / 1e6, seconds)


def export(row: Row, variant: Variant, path: Path) -> dict[str, Any]:
    """Build, randomise, write, convert and check one network."""
    seed(row)
    model = row.build()
    randomise(model, row.inputs)
    write(model, row.inputs, variant, path)
    if variant.after:
        AFTERWARDS[variant.after](path, row.inputs)
    feeds = example(row.inputs)
    with torch.no_grad():
        expected = flat(model(*feeds))
    return {
        "network": row.name,
        "library": row.library,
        "family": row.family,
        "exporter": variant.exporter,
        "folded": variant.folded,
        "dynamic": variant.dynamic,
        "afterwards": variant.after,
        **check(path, row.inputs, list(feeds), expected),
    }


def _out_of_time(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError("export took too long")


def _forget(folder: Path) -> None:
    """Drop what the records say of files that are gone and of rows that the table no longer has."""
    table = {row.file(Variant.parse(text)) for row in ROWS for text in row.variants}
    index, failures = folder / "INDEX.json", folder / "FAILURES.json"
    for name in _entries(index):
        if not (folder / name).exists():
            _record(index, name, None)
    for name in _entries(failures):
        if name not in table:
            _record(failures, name, None)


def _entries(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _record(path: Path, key: str, value: dict[str, Any] | None) -> None:
    """Set (or, with None, drop) one entry of a JSON object in a file."""
    entries = _entries(path)
    if value is None:
        entries.pop(key, None)
    else:
        entries[key] = value
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")
    draft.rename(path)


if __name__ == "__main__":
    raise SystemExit(main())
