"""Measured points: one JSON object per line, appended as they are made, so that an interrupted run goes on.

Latency and accuracy of a point are taken by two programs (`compare`, then `finetune`) and stand in two files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]
KEY = ("network", "score", "method", "budget")
RESULTS = Path(__file__).parent / "results"
LATENCY, ACCURACY = "latency.jsonl", "accuracy.jsonl"
TUNED = {"pruned": "tuned.jsonl", "recovered": "tuned-recovered.jsonl"}
MODELS = Path("models")
NETWORKS = ("resnet18", "mobilenetv2", "resnet56")
BASELINE = {"score": "", "method": "unpruned", "budget": ""}


@dataclass(frozen=True, slots=True)
class Store:
    """A file of rows."""

    path: Path

    def rows(self) -> list[Row]:
        """Every row so far."""
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def has(self, row: Row) -> bool:
        """Whether the point of `row` is there."""
        return name_of(row) in {name_of(r) for r in self.rows()}

    def add(self, row: Row) -> None:
        """Append, and say so."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(json.dumps({k: v for k, v in row.items() if k not in ("widths", "device")}), flush=True)


def name_of(row: Row) -> str:
    """The point's name, also as a file name."""
    return "_".join(str(row[k]).replace("/", "by") for k in KEY)
