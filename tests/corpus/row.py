"""The nouns of the corpus: a network, its inputs, and the ways in which it is exported."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

VARIANT = re.compile(
    r"(?P<exporter>ts|dynamo)(?P<opset>\d+)"
    r"(?P<unfolded>-unfolded)?(?P<dynamic>-dynbatch|-dynsize)?(?:\+(?P<after>[a-z0-9-]+))?"
)
EXPORTERS = {"ts": "torchscript", "dynamo": "dynamo"}


@dataclass(frozen=True, slots=True)
class Input:
    """One graph input; `axes` names each axis by a letter: N batch, C channels, H W D L sizes."""

    shape: tuple[int, ...]
    axes: str
    name: str = "x"
    below: int = 0
    """Above zero: an int64 input with values in [least, below)."""
    least: int = 0
    fixed: str = "C"
    """Axes that stay static even in a dynamic export."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to export: `ts17`, `ts11-unfolded`, `dynamo18-dynbatch`, `ts17-dynsize+qdq` …"""

    exporter: str
    opset: int
    folded: bool = True
    dynamic: str = ""
    """"" static, "batch" the batch axis, "size" batch and image size or sequence length."""
    after: str = ""
    """What `afterwards.py` does to the file: a quantisation or a conversion to float16."""

    @classmethod
    def parse(cls, text: str) -> Variant:
        match = VARIANT.fullmatch(text)
        if match is None:
            raise ValueError(f"variant {text!r}: expected e.g. ts17, ts11-unfolded, dynamo18-dynbatch")
        return cls(
            exporter=EXPORTERS[match["exporter"]],
            opset=int(match["opset"]),
            folded=match["unfolded"] is None,
            dynamic=(match["dynamic"] or "-dyn").removeprefix("-dyn"),
            after=match["after"] or "",
        )

    def __str__(self) -> str:
        exporter = next(short for short, long in EXPORTERS.items() if long == self.exporter)
        unfolded = "" if self.folded else "-unfolded"
        dynamic = f"-dyn{self.dynamic}" if self.dynamic else ""
        after = f"+{self.after}" if self.after else ""
        return f"{exporter}{self.opset}{unfolded}{dynamic}{after}"


@dataclass(frozen=True, slots=True)
class Row:
    """A network of the corpus. `build` imports its library itself, so that a missing one costs one row."""

    library: str
    name: str
    family: str
    build: Callable[[], torch.nn.Module]
    inputs: tuple[Input, ...]
    variants: tuple[str, ...]

    def file(self, variant: Variant) -> str:
        return f"{self.library}-{self.name}-{variant}.onnx"


def image(size: int | tuple[int, int], channels: int = 3, name: str = "x") -> tuple[Input, ...]:
    """One NCHW image."""
    height, width = (size, size) if isinstance(size, int) else size
    return (Input((1, channels, height, width), "NCHW", name),)


def volume(size: tuple[int, int, int], channels: int) -> tuple[Input, ...]:
    """One NCDHW volume or video."""
    return (Input((1, channels, *size), "NCDHW"),)


def signal(length: int, channels: int) -> tuple[Input, ...]:
    """One NCL signal."""
    return (Input((1, channels, length), "NCL"),)


def tokens(length: int, vocabulary: int, name: str = "input_ids") -> tuple[Input, ...]:
    """One sequence of token ids."""
    return (Input((1, length), "NL", name, below=vocabulary),)
