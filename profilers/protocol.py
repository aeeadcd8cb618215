"""The `Profiler` protocol, defined in `halpc.ir.profiler` where stages can see it too."""

from __future__ import annotations

from halpc.ir.profiler import ASIDE, Feeds, Model, Profiler

__all__ = ["ASIDE", "Feeds", "Model", "Profiler"]
