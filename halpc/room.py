"""Memory that nobody needs any more, given back where a model takes much of it.

Graphs are cycles: their weights stay until Python happens to look for such. What is freed in parts of some megabytes
the C library keeps for later, where the next to come is a runtime with an allocator of its own.
"""

from __future__ import annotations

import ctypes
import gc
import os

MUCH = 1 << 25  # bytes of a model, from which on this is worth its time

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None  # glibc has it


def make_room(size_bytes: int) -> None:
    """Give back what is no longer needed of a model of so many bytes."""
    if size_bytes < MUCH:
        return
    gc.collect()
    if _trim is not None:
        _trim(0)
