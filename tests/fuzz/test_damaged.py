"""Damaged files: refused by name, or pruned soundly; never a traceback, never a bug that halpc finds in itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from halpc.errors import HalpcError, VerificationError
from passes.couple import couple
from passes.load import load
from passes.proto import proto_of
from passes.slim import plan_for, slim
from passes.verify import verify, verify_reading
from tests.fuzz.damage import damage
from tests.fuzz.grow import grow

SHORT, LONG, BATCH = 200, 5_000, 100


def damaged(seed: int, folder: Path) -> Path:
    """A network that was grown and damaged; some files are besides."""
    network, _ = grow(seed)
    rng = np.random.default_rng(seed)
    damage(network, rng)
    file = bytearray(network.SerializeToString())
    for _ in range(3 if rng.random() < 0.15 else 0):
        file[rng.integers(len(file))] = rng.integers(256)
    path = folder / "damaged.onnx"
    path.write_bytes(file)
    return path


def refusal(path: Path) -> HalpcError | None:
    """What is said of a file that is not taken: loaded, compared with what was read, halved and verified."""
    try:
        model = load(path)
        verify_reading(model, {})
        coupling = couple(model.twin)
        masks = {name: np.arange(group.size) < -(-group.size // 2) for name, group in coupling.free().items()}
        plan = plan_for(model, coupling, masks)
        verify(model, coupling, plan, proto_of(slim(model, coupling, plan), model.header), seeds=1)
    except HalpcError as error:
        return error
    return None


def check(seed: int, folder: Path) -> bool:
    """Whether the file is taken; where it is not, what is said is a line, and blames the file."""
    said = refusal(damaged(seed, folder))
    assert said is None or len(str(said).splitlines()) == 1, said
    assert not (isinstance(said, VerificationError) and "bug of halpc" in str(said)), said
    return said is None


@pytest.mark.parametrize("start", range(0, SHORT, BATCH))
def test_a_damaged_file_is_refused_or_pruned_soundly(start: int, tmp_path: Path) -> None:
    found = [check(seed, tmp_path) for seed in range(start, start + BATCH)]
    assert 0.05 < np.mean(found) < 0.95


@pytest.mark.slow
@pytest.mark.parametrize("start", range(SHORT, LONG, BATCH))
def test_more_damaged_files_are_refused_or_pruned_soundly(start: int, tmp_path: Path) -> None:
    for seed in range(start, start + BATCH):
        check(seed, tmp_path)
