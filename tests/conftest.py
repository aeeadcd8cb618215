"""Every test starts with halpc's loggers as imported and with an empty latency cache of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("busy", suppress_health_check=[HealthCheck.too_slow])  # how busy a machine is proves nothing
settings.load_profile("busy")

LEVELS = {name: logging.getLogger(name).level for name in ("", "halpc", "passes", "profilers")}


@pytest.fixture(autouse=True)
def fresh(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command line sets log levels for its process; tests share one process."""
    _reset_levels()  # what a fixture of a whole module did, too
    cache: Path = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("HALPC_CACHE", str(cache))
    yield
    _reset_levels()


def _reset_levels() -> None:
    for name, level in LEVELS.items():
        logging.getLogger(name).setLevel(level)
