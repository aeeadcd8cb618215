"""The latency table file: what is written is read, and what is damaged is refused or mended."""

from __future__ import annotations

import json
import logging
import multiprocessing
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from halpc.errors import OutputError, TableError
from halpc.ir.latency import Device
from halpc.ir.table import LatencyTable, NetworkSample, Sample, Signature, cache_path

DEVICE = Device("cpu", "Some CPU", "onnxruntime", "1.31", "cpu", "fp32", 1, {"optimisation": "all"})
CONV = Signature("Conv 3x3 56x56 +Relu")
POOL = Signature("MaxPool 2x2 56x56")


def written(path: Path) -> LatencyTable:
    table = LatencyTable.open(path, DEVICE)
    table.append(CONV, [Sample((64, 64), 1.5, 5), Sample((64, 48), 1.25, 5)])
    table.append(POOL, [Sample((64,), 0.125, 5)])
    table.append_network(NetworkSample("model", {"a": 64}, 3.5, {"conv": 1.5}, 20))
    return table


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    table = written(tmp_path / "t.jsonl")
    again = LatencyTable.load(tmp_path / "t.jsonl", DEVICE)
    assert again.device == DEVICE
    assert again.lookup(CONV) == table.lookup(CONV)
    assert again.lookup(CONV)[64, 48] == Sample((64, 48), 1.25, 5)
    assert again.kernels() == {CONV.key: CONV.about, POOL.key: POOL.about}
    assert again.networks("model") == (NetworkSample("model", {"a": 64}, 3.5, {"conv": 1.5}, 20),)
    assert len(again) == 4


def test_a_point_measured_again_is_the_mean_of_all_its_runs(tmp_path: Path) -> None:
    table = written(tmp_path / "t.jsonl")
    table.append(POOL, [Sample((64,), 0.25, 7)])
    table.append(POOL, [Sample((64,), 0.0625, 2)])
    together = (5 * 0.125 + 7 * 0.25 + 2 * 0.0625) / 14
    assert table.lookup(POOL)[64,] == Sample((64,), pytest.approx(together), 14)
    assert LatencyTable.load(tmp_path / "t.jsonl").lookup(POOL) == table.lookup(POOL)


def test_every_line_is_json_and_the_first_names_format_version_and_device(tmp_path: Path) -> None:
    written(tmp_path / "t.jsonl")
    first, *rest = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert (first["format"], first["version"], first["device"]) == ("halpc.latency", 2, DEVICE.as_json())
    assert len(rest) == 6


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_an_unfinished_last_line_is_ignored_and_mended(
    tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "t.jsonl"
    written(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with caplog.at_level(logging.WARNING):
        table = LatencyTable.load(path, DEVICE)
    lost = not table.networks("model")
    assert lost == (cut > 1)
    assert ("unfinished last line" in caplog.text) == lost
    table.append(POOL, [Sample((32,), 0.0625)])
    again = LatencyTable.load(path, DEVICE)
    assert again.lookup(POOL).keys() == {(64,), (32,)}
    assert len(again.lookup(CONV)) == 2
    assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize("kept", [1, 20, 45, 100])
def test_an_unfinished_header_is_written_again(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "t.jsonl"
    written(path)
    path.write_bytes(path.read_bytes()[:kept])
    table = LatencyTable.open(path, DEVICE)
    assert len(table) == 0
    table.append(POOL, [Sample((32,), 0.0625)])
    assert LatencyTable.load(path, DEVICE).lookup(POOL) == {(32,): Sample((32,), 0.0625)}


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        '{"kernel": "x", "widths": [64], "ms": -1.0, "runs": 1}',
        '{"kernel": "x", "widths": [64], "ms": NaN, "runs": 1}',
        '{"network": "m", "widths": {}, "ms": 0.0, "layers": {}, "runs": 1}',
        '{"kernel": "x", "widths": [64], "ms": "fast", "runs": 1}',
        '{"kernel": "x", "widths": 64, "ms": 1.0, "runs": 1}',
        '{"kernel": "x", "ms": 1.0, "runs": 1}',
        '{"network": "m", "widths": {}, "ms": 1.0, "layers": [], "runs": 1}',
        "[]",
        f'{{"kernel": "{CONV.key}", "widths": [64], "ms": 1.0, "runs": 1}}',
    ],
)
def test_damage_inside_is_refused_with_the_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "t.jsonl"
    written(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], line, *lines[4:]]) + "\n")
    with pytest.raises(TableError, match=r"t\.jsonl, line 5: .*damaged.*profile anew"):
        LatencyTable.load(path, DEVICE)


def test_a_kernel_that_a_runtime_leaves_out_takes_no_time(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    LatencyTable(DEVICE, path).append(CONV, [Sample((64, 64), 0.0)])
    assert LatencyTable.load(path, DEVICE).lookup(CONV)[64, 64].ms == 0


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    written(path)
    path.write_text(path.read_text().replace('"version": 2', '"version": 1', 1))
    with pytest.raises(TableError, match="version 1, this halpc reads version 2"):
        LatencyTable.load(path, DEVICE)


@pytest.mark.parametrize("content", [b"", b"\x08\x07\x12\x00onnx", b'{"format": "halpc.plan"}\n', b"{}\n"])
def test_a_file_that_is_no_table_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with pytest.raises(TableError, match=r"t\.jsonl"):
        LatencyTable.load(path, DEVICE)
    assert path.read_bytes() == content


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="cannot be read"):
        LatencyTable.load(tmp_path / "none.jsonl", DEVICE)


def test_a_table_of_another_device_is_refused_naming_what_differs(tmp_path: Path) -> None:
    written(tmp_path / "t.jsonl")
    here = replace(DEVICE, threads=4, details={"optimisation": "basic"})
    with pytest.raises(TableError, match="threads 1, not 4; optimisation all, not basic") as caught:
        LatencyTable.load(tmp_path / "t.jsonl", here)
    assert "--accept-table-from-other-device" in str(caught.value)


def test_an_accepted_foreign_table_is_read_but_never_written(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    written(path)
    before = path.read_bytes()
    table = LatencyTable.load(path, replace(DEVICE, threads=4), accept_other_device=True)
    assert table.foreign
    assert len(table.lookup(CONV)) == 2
    with pytest.raises(TableError, match="another device"):
        table.append(POOL, [Sample((8,), 1.0)])
    assert path.read_bytes() == before


def test_without_a_device_here_the_table_tells_its_own(tmp_path: Path) -> None:
    written(tmp_path / "t.jsonl")
    table = LatencyTable.load(tmp_path / "t.jsonl")
    assert table.device == DEVICE
    assert not table.foreign


def test_require_names_the_kernels_that_were_never_measured(tmp_path: Path) -> None:
    table = written(tmp_path / "t.jsonl")
    table.require([CONV, POOL])
    with pytest.raises(TableError, match=r"1 of its kernels were never measured \(Gemm 512\)"):
        table.require([CONV, Signature("Gemm 512")])


def test_merge_adds_only_what_is_new(tmp_path: Path) -> None:
    table = written(tmp_path / "t.jsonl")
    other = LatencyTable(DEVICE)
    other.append(CONV, [Sample((64, 64), 2.0), Sample((64, 48), 1.0), Sample((8, 8), 0.5)])
    other.append_network(NetworkSample("model", {"a": 32}, 2.0, {}))
    assert table.merge(other) == 2
    assert {w: s.ms for w, s in table.lookup(CONV).items()} == {(64, 64): 1.5, (64, 48): 1.25, (8, 8): 0.5}
    assert len(LatencyTable.load(tmp_path / "t.jsonl").networks("model")) == 2
    with pytest.raises(TableError, match="do not merge"):
        table.merge(LatencyTable(replace(DEVICE, threads=8)))


def test_tables_of_one_device_may_be_joined_end_to_end(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a.jsonl"), LatencyTable.open(tmp_path / "b.jsonl", DEVICE)
    second.append(CONV, [Sample((8, 8), 0.5)])
    (tmp_path / "c.jsonl").write_bytes((tmp_path / "a.jsonl").read_bytes() + (tmp_path / "b.jsonl").read_bytes())
    both = LatencyTable.load(tmp_path / "c.jsonl", DEVICE)
    assert both.lookup(CONV) == {**first.lookup(CONV), **second.lookup(CONV)}
    assert len(both) == len(first) + 1


def test_save_writes_an_equal_table(tmp_path: Path) -> None:
    table = written(tmp_path / "t.jsonl")
    table.save(tmp_path / "sub" / "copy.jsonl")
    copy = LatencyTable.load(tmp_path / "sub" / "copy.jsonl", DEVICE)
    assert copy.lookup(CONV) == table.lookup(CONV)
    assert copy.networks("model") == table.networks("model")
    assert sorted(p.name for p in (tmp_path / "sub").iterdir()) == ["copy.jsonl"]


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    table = LatencyTable(DEVICE, tmp_path / "file" / "t.jsonl")
    with pytest.raises(OutputError, match="HALPC_CACHE"):
        table.append(POOL, [Sample((8,), 1.0)])


def _append_many(path: Path, worker: int) -> None:
    table = LatencyTable.open(path, DEVICE)
    for i in range(50):
        table.append(CONV, [Sample((worker, i), 1.0 + i)])


def test_two_processes_may_append_to_one_table(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append_many, args=(path, i)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    table = LatencyTable.load(path, DEVICE)
    assert set(table.lookup(CONV)) == {(worker, i) for worker in range(2) for i in range(50)}
    assert path.read_text().count("halpc.latency") == 1


def test_the_cache_path_names_the_device_by_content(tmp_path: Path) -> None:
    path = cache_path(DEVICE, {"HALPC_CACHE": str(tmp_path)})
    assert path.parent == tmp_path / "tables"
    assert path.name == f"onnxruntime-some-cpu-fp32-{DEVICE.key}.v2.jsonl"
    assert path != cache_path(replace(DEVICE, threads=2), {"HALPC_CACHE": str(tmp_path)})
    assert cache_path(DEVICE, {"XDG_CACHE_HOME": "/x"}) == Path("/x/halpc/tables") / path.name
    assert cache_path(DEVICE, {}) == Path.home() / ".cache" / "halpc" / "tables" / path.name


def test_a_disk_that_takes_only_a_part_is_an_error_and_no_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table, path = written(tmp_path / "t.jsonl"), tmp_path / "t.jsonl"
    before, (soft, hard) = path.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (before + 10, hard))
    try:
        with pytest.raises(OutputError, match=r"t\.jsonl: the latency table cannot be written"):
            table.append(POOL, [Sample((32,), 0.1, 5)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size == before + 10
    assert len(LatencyTable.load(path, DEVICE)) == 4
    assert "unfinished last line" in caplog.text
