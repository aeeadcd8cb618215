"""The timing cache: kept beside the latency tables, merged with what others stored, and never in the way of a build."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from profilers import trt, trt_engine
from profilers.trt_engine import Settings


class Cache:
    """`ITimingCache`: its entries are the letters of its bytes."""

    def __init__(self, data: bytes) -> None:
        self.entries = set(data.decode())

    def combine(self, other: Cache, ignore_mismatch: bool) -> bool:
        """Entries of another GPU or version have capitals."""
        fits = ignore_mismatch or "".join(other.entries).islower()
        self.entries |= other.entries if fits else set()
        return fits

    def serialize(self) -> bytes:
        return "".join(sorted(self.entries)).encode()


class Config:
    """`IBuilderConfig`, as far as timing caches go."""

    def __init__(self) -> None:
        self.cache: Cache | None = None

    def create_timing_cache(self, data: bytes) -> Cache | None:
        return None if data == b"damaged" else Cache(data)

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        fits = ignore_mismatch or not "".join(cache.entries).isupper()
        self.cache = cache if fits else self.cache
        return fits

    def get_timing_cache(self) -> Cache | None:
        return self.cache


def build(path: Path, entry: str, meanwhile: str = "") -> bytes:
    """A build that times `entry`, while somebody else stores `meanwhile`."""
    config = Config()

    def timed(network: Any, same: Any) -> bytes:
        assert config.cache is not None
        config.cache.entries.add(entry)
        if meanwhile:
            path.write_bytes(meanwhile.encode())
        return b"plan"

    bench: Any = SimpleNamespace(builder=SimpleNamespace(build_serialized_network=timed), network=None, said=[])
    return trt_engine.build(bench, config, Settings(cache=str(path)), "m")


def test_a_cache_grows_by_what_is_timed_here_and_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "new" / "t.timing"
    build(path, "a")
    build(path, "b", meanwhile="xy")
    assert path.read_bytes() == b"abxy"


def test_what_another_gpu_timed_is_dropped_for_good(tmp_path: Path) -> None:
    path = tmp_path / "t.timing"
    path.write_bytes(b"XY")
    build(path, "a")
    assert path.read_bytes() == b"a"


@pytest.mark.parametrize("broken", ["damaged", "folder", "closed"])
def test_a_cache_that_cannot_be_used_does_not_fail_the_build(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "t.timing"
    if broken == "damaged":
        path.write_bytes(b"damaged")
    elif broken == "folder":
        path.mkdir()
    else:
        (tmp_path / "file").write_bytes(b"")
        path = tmp_path / "file" / "t.timing"
    assert build(path, "a") == b"plan"


def test_the_cache_lies_where_halpc_keeps_what_it_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALPC_CACHE", str(tmp_path))
    profiler = trt.TensorRTProfiler()
    profiler._facts = {"gpu": {"name": "NVIDIA H100", "capability": "9.0", "cuda": "13.0"}, "version": "11.4.0"}
    found = profiler._cache()
    assert found is not None
    assert Path(found).parent == tmp_path
    assert "NVIDIA_H100" in Path(found).name
