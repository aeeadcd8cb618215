"""The latency table file: samples of kernels and of whole networks, measured on one device.

JSON lines, the first of which is the header; every other line is one record and may be appended at any time:

    {"format": "halpc.latency", "version": 2, "device": {"kind": "cpu", …}}
    {"kernel": "9f2c…", "about": "Conv 3x3 …"}                        what a kernel is, once
    {"kernel": "9f2c…", "widths": [64, 64], "ms": 0.123, "runs": 5}   one sample
    {"structure": "51aa…", "layers": [["Conv_0", "Conv", ["y"], 0.4, ["Conv_0", "Relu_1"]], …]}
    {"network": "51aa…", "widths": {…}, "ms": 3.2, "layers": {…}, "runs": 20}

A process that dies in mid-line costs that line only: readers skip it with a warning, and the next writer
cuts it off. Writers lock the file and write whole lines, so two may append to the same table. Tables of one
device may be joined end to end (`cat`): a header further down has to name the same device.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from halpc.errors import OutputError, TableError
from halpc.ir.latency import Device, LayerTime
from halpc.ir.tablefile import VERSION, append_lines, as_line, check_writable, header_record, read_header, whole_lines

log = logging.getLogger(__name__)

_LEAST_MS = 1e-7  # of a network, rounded to it; a kernel may have no time of its own where a runtime leaves it out
_MOST = 2.0**53  # a time, a width or a number of runs beyond this was never measured


@dataclass(frozen=True, slots=True)
class Signature:
    """What a kernel is to the runtime, widths left out: equal texts share one table.

    Attributes:
        about: operator, attributes, spatial size, batch, element type and what is fused, as a person reads
        it.
    """

    about: str

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that name it by content."""
        return hashlib.sha256(self.about.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured point of a kernel: `ms` is the mean of `runs` measurements at `widths`, a typical run each."""

    widths: tuple[int, ...]
    ms: float
    runs: int = 1


@dataclass(frozen=True, slots=True)
class NetworkSample:
    """One whole network measured in context.

    Attributes:
        network: key of the model and its groups.
        widths: width of every group.
        ms: of a typical run, end to end.
        layers: typical time of each named part, in ms; the rest of `ms` belongs to no part.
        runs: how many runs that is of.
    """

    network: str
    widths: Mapping[str, int]
    ms: float
    layers: Mapping[str, float]
    runs: int = 1


@dataclass(slots=True)
class LatencyTable:
    """Samples of one device, in memory and, where `path` is given, in a file that grows with every `append`.

    Attributes:
        device: what the samples were measured on.
        path: the file; None keeps the table in memory only.
        foreign: accepted from another device: it may be read, never appended to.
    """

    device: Device
    path: Path | None = None
    foreign: bool = False
    _about: dict[str, str] = field(default_factory=dict)
    _kernels: dict[str, dict[tuple[int, ...], Sample]] = field(default_factory=dict)
    _structures: dict[str, tuple[LayerTime, ...]] = field(default_factory=dict)
    _networks: dict[str, dict[tuple[tuple[str, int], ...], NetworkSample]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, device: Device, *, accept_other_device: bool = False) -> LatencyTable:
        """The table at `path`, or an empty one that will be written there.

        Raises:
            TableError: as `load`.
            OutputError: there is none, and none can be written there.
        """
        if path.exists() and (path.is_dir() or path.stat().st_size):
            return cls.load(path, device, accept_other_device=accept_other_device)
        check_writable(path)
        return cls(device, path)

    @classmethod
    def load(cls, path: Path, device: Device | None = None, *, accept_other_device: bool = False) -> LatencyTable:
        """Read a table; `device` is what this run is on, None where it has none (a build server).

        Raises:
            TableError: missing, damaged, of another version, or of another device and not accepted.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise TableError(f"{path}: cannot be read: {error.strerror or error}") from error
        lines = whole_lines(content, path)
        table = cls(read_header(next(lines, (1, b""))[1], path, device), path)
        if device is not None and (differences := table.device.differences(device)):
            _judge_device(path, differences, accept_other_device)
            table.foreign = True
        for number, line in lines:
            table._take_line(line, f"{path}, line {number}")
        return table

    @property
    def may_grow(self) -> bool:
        """Whether what is measured can be added: neither another device's, nor a file that may only be read."""
        try:
            if self.path is not None:
                check_writable(self.path)
        except OutputError:
            return False
        return not self.foreign

    def lookup(self, signature: Signature) -> Mapping[tuple[int, ...], Sample]:
        """Every sample of a kernel by its widths; empty when it was never measured."""
        return self._kernels.get(signature.key, {})

    def networks(self, network: str) -> tuple[NetworkSample, ...]:
        """Every whole-network sample of `network`, in the order measured."""
        return tuple(self._networks.get(network, {}).values())

    def structure(self, network: str) -> tuple[LayerTime, ...] | None:
        """What the runtime executes for `network` at full width; None when it was never profiled."""
        return self._structures.get(network)

    def append_structure(self, network: str, layers: Iterable[LayerTime]) -> None:
        """Keep what the runtime executes for a network, on disk before this returns."""
        rows = [[x.name, x.op, list(x.outputs), _rounded(x.time_ms), list(x.nodes)] for x in layers]
        self._add([{"structure": network, "layers": rows}])

    def kernels(self) -> Mapping[str, str]:
        """Key and description of every kernel that has samples."""
        return {key: self._about.get(key, key) for key in self._kernels}

    def __len__(self) -> int:
        """Number of samples, of kernels and networks."""
        return sum(map(len, self._kernels.values())) + sum(map(len, self._networks.values()))

    def require(self, signatures: Iterable[Signature]) -> None:
        """Say which kernels of a model the table lacks.

        Raises:
            TableError: at least one is missing.
        """
        missing = sorted({s.about for s in signatures if not self.lookup(s)})
        if missing:
            shown = "; ".join(missing[:3]) + (f"; and {len(missing) - 3} more" if len(missing) > 3 else "")
            raise TableError(
                f"{self.path or 'the table'} does not fit the model: {len(missing)} of its kernels were"
                f" never measured ({shown}). Run `halpc profile` with this model and shape on the device."
            )

    def append(self, signature: Signature, samples: Iterable[Sample]) -> None:
        """Add samples of one kernel, on disk before this returns."""
        records: list[dict[str, object]] = []
        if signature.key not in self._about:
            records.append({"kernel": signature.key, "about": signature.about})
        records += [
            {
                "kernel": signature.key,
                "widths": list(map(int, s.widths)),
                "ms": _rounded(s.ms),
                "runs": s.runs,
            }
            for s in samples
        ]
        self._add(records)

    def append_network(self, sample: NetworkSample) -> None:
        """Add one whole-network sample, on disk before this returns."""
        layers = {name: _rounded(ms) for name, ms in sample.layers.items()}
        widths = {name: int(size) for name, size in sample.widths.items()}
        self._add(
            [
                {
                    "network": sample.network,
                    "widths": widths,
                    "ms": _rounded(sample.ms),
                    "layers": layers,
                    "runs": sample.runs,
                }
            ]
        )

    def merge(self, other: LatencyTable) -> int:
        """Add what `other` has and this lacks; how many samples that were.

        Raises:
            TableError: the other table is of another device.
        """
        if differences := self.device.differences(other.device):
            raise TableError(f"{other.path}: tables of different devices do not merge: {'; '.join(differences)}")
        news = [
            (Signature(other._about[key]), sample)
            for key, samples in other._kernels.items()
            for widths, sample in samples.items()
            if widths not in self._kernels.get(key, {})
        ]
        for signature, sample in news:
            self.append(signature, [sample])
        networks = [
            sample
            for key, samples in other._networks.items()
            for point, sample in samples.items()
            if point not in self._networks.get(key, {})
        ]
        for network in networks:
            self.append_network(network)
        for key, layers in other._structures.items():
            if key not in self._structures:
                self.append_structure(key, layers)
        return len(news) + len(networks)

    def save(self, path: Path) -> None:
        """Write the whole table to `path`, replacing it at once.

        Raises:
            OutputError: the folder cannot be written.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text("".join(as_line(record) for record in self._records()), encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OutputError(f"{path}: the latency table cannot be written: {error.strerror or error}") from error

    def _records(self) -> Iterator[Mapping[str, object]]:
        yield header_record(self.device)
        for key, samples in self._kernels.items():
            yield {"kernel": key, "about": self._about.get(key, key)}
            for s in samples.values():
                yield {"kernel": key, "widths": list(s.widths), "ms": s.ms, "runs": s.runs}
        for network, layers in self._structures.items():
            rows = [[x.name, x.op, list(x.outputs), x.time_ms, list(x.nodes)] for x in layers]
            yield {"structure": network, "layers": rows}
        for points in self._networks.values():
            for n in points.values():
                yield {
                    "network": n.network,
                    "widths": n.widths,
                    "ms": n.ms,
                    "layers": n.layers,
                    "runs": n.runs,
                }

    def _add(self, records: list[dict[str, object]]) -> None:
        if self.foreign:
            raise TableError(f"{self.path}: the table is of another device; measuring here must not change it")
        for record in records:
            self._take(record)
        if self.path is not None and records:
            append_lines(self.path, self.device, "".join(map(as_line, records)))

    def _take_line(self, line: bytes, where: str) -> None:
        try:
            record = json.loads(line)
            if isinstance(record, dict) and "format" in record:
                self._join(line, where)
            else:
                self._take(record)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise TableError(
                f"{where}: the latency table is damaged ({_what(error)}). Restore or delete it and profile anew."
            ) from error

    def _join(self, line: bytes, where: str) -> None:
        """Another table begins here, of the same device or none that belongs here."""
        if differences := self.device.differences(read_header(line, where, None)):
            raise TableError(f"{where}: a table of another device was joined to this one: {'; '.join(differences)}")

    def _take(self, record: Mapping[str, object]) -> None:
        """Keep one record in memory; raises ValueError, KeyError or TypeError where it makes no sense."""
        if "about" in record:
            self._about[str(record["kernel"])] = str(record["about"])
        elif "kernel" in record:
            samples = self._kernels.setdefault(str(record["kernel"]), {})
            sample = _sample(record)
            if samples and len(next(iter(samples))) != len(sample.widths):
                raise ValueError(f"{len(sample.widths)} widths where other samples have {len(next(iter(samples)))}")
            known = samples.get(sample.widths)
            samples[sample.widths] = sample if known is None else _together(known, sample)
        elif "structure" in record:
            self._structures[str(record["structure"])] = _structure(record)
        else:
            network = _network(record)
            self._networks.setdefault(network.network, {})[tuple(sorted(network.widths.items()))] = network


def cache_path(device: Device, environ: Mapping[str, str]) -> Path:
    """Where the table of `device` is kept by default."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{device.backend} {device.name} {device.precision}".lower()).strip("-")
    return cache_folder(environ) / "tables" / f"{slug}-{device.key}.v{VERSION}.jsonl"


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where what was measured is kept: `$HALPC_CACHE`, else `halpc` in the XDG cache folder.

    Source: https://specifications.freedesktop.org/basedir-spec/latest/
    """
    base = environ.get("XDG_CACHE_HOME", "")
    home = Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()
    return Path(environ["HALPC_CACHE"]) if environ.get("HALPC_CACHE") else home / "halpc"


def _judge_device(path: Path, differences: list[str], accepted: bool) -> None:
    facts = "; ".join(differences)
    if not accepted:
        raise TableError(
            f"{path}: the table was measured on another device than this run's: {facts}."
            " Profile on this device, or pass --accept-table-from-other-device."
        )
    log.warning("%s: using a table of another device: %s", path, facts)


def _rounded(ms: float) -> float:
    return round(float(ms), 7)  # a tenth of a nanosecond


def _what(error: Exception) -> str:
    """What is wrong with a line, for people."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    if isinstance(error, UnicodeDecodeError | TypeError | AttributeError | RecursionError):
        return "it is no record of a table"
    return str(error)


def _number(value: object, name: str, *, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= _MOST:
        raise ValueError(f"{name} is {value!r}")
    return value


def _sample(record: Mapping[str, object]) -> Sample:
    widths = record["widths"]
    if not isinstance(widths, list):
        raise ValueError(f"widths are {widths!r}")
    sizes = tuple(int(_number(w, "a width", least=0)) for w in widths)
    return Sample(sizes, _number(record["ms"], "ms", least=0), int(_number(record["runs"], "runs", least=1)))


def _structure(record: Mapping[str, object]) -> tuple[LayerTime, ...]:
    rows = record["layers"]
    if not isinstance(rows, list):
        raise ValueError("layers must be a list")
    return tuple(
        LayerTime(str(name), str(op), tuple(map(str, outputs)), _number(ms, "ms", least=0), tuple(map(str, nodes)))
        for name, op, outputs, ms, nodes in rows
    )


def _network(record: Mapping[str, object]) -> NetworkSample:
    widths, layers = record["widths"], record["layers"]
    if not isinstance(widths, dict) or not isinstance(layers, dict):
        raise ValueError("widths and layers must be objects")
    return NetworkSample(
        str(record["network"]),
        {str(name): int(_number(size, "a width", least=0)) for name, size in widths.items()},
        _number(record["ms"], "ms", least=_LEAST_MS),
        {str(name): _number(ms, "a layer's ms", least=0) for name, ms in layers.items()},
        int(_number(record["runs"], "runs", least=1)),
    )


def _together(a: Sample, b: Sample) -> Sample:
    runs = a.runs + b.runs
    return Sample(a.widths, (a.ms * a.runs + b.ms * b.runs) / runs, runs)
