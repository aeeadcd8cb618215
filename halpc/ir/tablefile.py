"""The lines of a latency table file: whole lines appended under a lock, a torn last line mended.

What the records mean is in `table.py`; here they are text.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final

from halpc.errors import OutputError, TableError
from halpc.ir.latency import Device

try:
    import fcntl
except ImportError:  # a system without POSIX locks: appending is still whole lines
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

FORMAT: Final = "halpc.latency"
VERSION: Final = 2
_PREFIX: Final = f'{{"format": "{FORMAT}", "version": '


def append_lines(path: Path, device: Device, lines: str) -> None:
    """Append whole lines to the table at `path` under a lock, with the header where it is new.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file, _locked(file):
            _mend(file, path)
            new = os.fstat(file.fileno()).st_size == 0
            left = memoryview(((as_line(header_record(device)) if new else "") + lines).encode())
            while left:  # a disk that is nearly full takes a part, and says so at the next
                left = left[file.write(left) :]
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error


def check_writable(path: Path) -> None:
    """That a table may be written, or added to.

    Raises:
        OutputError: no folder can be made for it, or nothing may be written there.
    """
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if (there != path and not there.is_dir()) or not os.access(there, os.W_OK):
        raise _unwritable(path, "permission denied" if there.is_dir() or there == path else f"{there} is no folder")


def _unwritable(path: Path, why: str) -> OutputError:
    return OutputError(
        f"{path}: the latency table cannot be written: {why}."
        " Give --table (`halpc profile`: -o) another file, or set HALPC_CACHE to a folder that can."
    )


@contextlib.contextmanager
def _locked(file: IO[bytes]) -> Iterator[None]:
    if fcntl is not None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)  # the kernel releases it when the process dies
    try:
        yield
    finally:
        if fcntl is not None:
            fcntl.flock(file.fileno(), fcntl.LOCK_UN)


def _mend(file: IO[bytes], path: Path) -> None:
    """Cut off a last line that a dying writer left unfinished."""
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - 1))
    if size == 0 or file.read(1) == b"\n":
        return
    file.seek(0)
    content = file.read()
    keep = content.rfind(b"\n") + 1
    if not content.startswith(_PREFIX.encode()[: len(content)]):
        raise TableError(f"{path}: is not a latency table, and is left as it is")
    if _parses(content[keep:]):
        file.write(b"\n")
        return
    log.warning("%s: cutting off an unfinished last line", path)
    os.ftruncate(file.fileno(), keep)


def whole_lines(content: bytes, path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines; an unfinished last one is left out with a warning."""
    lines = content.split(b"\n")
    last = lines.pop()
    yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    if last and _parses(last):
        yield len(lines) + 1, last
    elif last and lines:
        log.warning("%s: ignoring an unfinished last line (a run was interrupted)", path)
    elif last:
        yield 1, last


def _parses(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def read_header(line: bytes, path: Path | str, device: Device | None) -> Device:
    """The device that the header names."""
    if not line:
        raise TableError(f"{path}: is empty, and nothing can be measured into it here. Make one with `halpc profile`.")
    if not _parses(line):
        if device is not None and line and _PREFIX.encode().startswith(line[: len(_PREFIX)]):
            log.warning("%s: ignoring an unfinished header (a run was interrupted)", path)
            return device
        raise TableError(f"{path}: is not a latency table: its first line is no header. Make one with `halpc profile`.")
    header = json.loads(line)
    if header.get("format") != FORMAT:
        raise TableError(f"{path}: expected a file of format {FORMAT}, found {header.get('format')!r}")
    if header.get("version") != VERSION:
        raise TableError(
            f"{path}: the table has version {header.get('version')!r}, this halpc reads version {VERSION}."
            " Profile again, or use the halpc that wrote it."
        )
    try:
        return Device.from_json(header.get("device"))
    except TableError as error:
        raise TableError(f"{path}: the header is damaged: {error}") from error


def header_record(device: Device) -> dict[str, object]:
    return {"format": FORMAT, "version": VERSION, "device": device.as_json()}


def as_line(record: Mapping[str, object]) -> str:
    return json.dumps(record, ensure_ascii=True, allow_nan=False) + "\n"
