"""write: the output folder, whole or not at all.

Files are made under a temporary name beside the folder and moved in at the end, so that a full disk or an
interrupt leaves what was there before.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from halpc.apart import own
from halpc.errors import OutputError

SHOWN = 20  # letters of the output's name in that of the scratch folder, which must not be too long for a disk


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A scratch folder on the same disk as `out`, in the nearest folder above it that is there; gone afterwards.

    Raises:
        OutputError: `out` is or is inside a file, or may not be written.
    """
    try:
        if out.is_symlink() and not out.exists():
            raise OutputError(
                f"{out}: is a link to {os.readlink(out)}, which is not there; make it, or give -o another"
            )
        place = next(there for there in (out, *out.absolute().parents) if there.exists())
        if not place.is_dir():
            inside = "" if place == out else f"{place} "
            raise OutputError(f"{out}: {inside}is a file; give -o the name of a folder")
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name[:SHOWN]}-", suffix=".tmp", dir=place))
        own(folder)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}; give -o another folder") from error
    try:
        yield folder
    except OSError as error:
        where = error.filename or out
        raise OutputError(
            f"{where}: failed: {error.strerror or error}; nothing was changed in {out}; make room or mend"
            " what failed, or give -o another folder"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_place(path: Path, option: str) -> None:
    """That a file could be written at `path`.

    Raises:
        OutputError: it is a folder, or its folder does not exist or may not be written.
    """
    if path.is_dir():
        raise OutputError(f"{option} {path}: is a folder; give the name of a file in it")
    if not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"{option} {path}: cannot be written; give a file in a folder that exists and can be written")


def check_names(out: Path, names: Iterable[str]) -> None:
    """That files of these names can be put into `out`.

    Raises:
        OutputError: a folder is in one's place.
    """
    for name in names:
        if os.path.isdir(out / name):  # False, where Path.is_dir raises: of a name that is too long
            raise OutputError(
                f"{out / name}: is a folder, and a file would be written there; nothing was changed in {out};"
                " remove it, or give -o another folder"
            )


def publish(folder: Path, out: Path, ours: Iterable[str] = ()) -> None:
    """Move every file of the scratch folder into `out`, replacing what has the same name: all of them or none.

    Args:
        ours: names that are halpc's; a file of an earlier run that has one of them goes where this run wrote none.

    Raises:
        OutputError: as `check_names`.
    """
    files = sorted(folder.iterdir(), key=lambda f: f.name == "report.json")
    check_names(out, (file.name for file in files))
    out.mkdir(parents=True, exist_ok=True)
    for name in set(ours).difference(file.name for file in files):
        if not os.path.isdir(out / name):
            (out / name).unlink(missing_ok=True)
    for file in files:
        os.replace(file, out / file.name)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """A JSON file, flushed to the disk."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write(json_text(data) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def json_text(data: Any) -> str:
    """Any plain data as JSON, which has neither infinity nor NaN: they are null."""
    return json.dumps(_finite(data), indent=1, default=_plain, allow_nan=False)


def _finite(data: Any) -> Any:
    match data:
        case Mapping():
            return {name: _finite(value) for name, value in data.items()}
        case list() | tuple():
            return [_finite(value) for value in data]
        case float() | np.floating():
            return float(data) if math.isfinite(data) else None
        case _:
            return data


def _plain(value: Any) -> Any:
    """Numpy scalars and paths as plain JSON."""
    return value.item() if hasattr(value, "item") else str(value)
