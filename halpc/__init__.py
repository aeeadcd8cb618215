"""halpc: prune a trained ONNX model to a latency budget, and prove it."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from halpc.compile import compile_model
    from halpc.errors import HalpcError
    from halpc.ir.report import Report
    from halpc.options import Options
    from halpc.units import Budget, parse_budget

__version__ = "0.1.0"
__all__ = ["Budget", "HalpcError", "Options", "Report", "compile_model", "parse_budget"]

# From 1.29 on onnxruntime reports over the network what it runs; a compiler of other people's models does not.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Budget": "halpc.units",
    "HalpcError": "halpc.errors",
    "Options": "halpc.options",
    "Report": "halpc.ir.report",
    "compile_model": "halpc.compile",
    "parse_budget": "halpc.units",
}


def __getattr__(name: str) -> Any:
    """Public names are imported on first use (PEP 562), since passes import halpc."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'halpc' has no attribute {name!r}")
