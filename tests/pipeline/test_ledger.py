from __future__ import annotations

import errno
import fcntl
import json
import os
import pickle
import time

import pytest

from isosr_pipeline.engine.ledger import Ledger
from isosr_pipeline.engine.records import FILE
from isosr_pipeline.engine.region_set import RegionSet
from isosr_pipeline.engine.survey import Opening, survey
from isosr_pipeline.errors import (
    BusyError,
    HopelessError,
    OutputPathError,
    ResumeError,
    WorkFailedError,
)

PASSES = {"convert": 10, "level 1": 2}
MAKING = {"source": "a.tif", "parameters": {"chunk": [64, 64, 64]}}


def test_what_is_recorded_is_found_again(tmp_path):
    with Ledger(tmp_path, MAKING, PASSES) as ledger:
        ledger.record("convert", 0, {"bytes": 3})
        ledger.record("convert", 7, {"bytes": 4})
        ledger.record("level 1", 0, {"bytes": 5})
    with Ledger(tmp_path, MAKING, PASSES) as ledger:
        assert ledger.done == {"convert": {0, 7}, "level 1": {0}}
        assert list(ledger.results("convert")) == [{"bytes": 3}, {"bytes": 4}]
    found = survey(tmp_path)
    assert found is not None
    assert (found.done, found.total) == (3, 12)


def test_every_torn_end_costs_at_most_the_last_line(tmp_path):
    with Ledger(tmp_path, MAKING, PASSES) as ledger:
        for index in range(3):
            ledger.record("convert", index, {"bytes": index})
    whole = (tmp_path / FILE).read_bytes()
    for length in range(len(whole)):
        (tmp_path / FILE).write_bytes(whole[:length])
        kept = max(0, whole[:length].count(b"\n") - 2)
        with Ledger(tmp_path, MAKING, PASSES) as ledger:
            assert ledger.done["convert"] == set(range(kept))
            ledger.record("convert", 9, {"bytes": 9})
        with Ledger(tmp_path, MAKING, PASSES) as ledger:
            assert ledger.done["convert"] == {*range(kept), 9}


def test_another_input_or_parameter_is_refused_and_named(tmp_path):
    with Ledger(tmp_path, MAKING, PASSES):
        pass
    other = {"source": "a.tif", "parameters": {"chunk": [32, 32, 32]}}
    with pytest.raises(ResumeError, match=r"parameters\.chunk was \[64, 64, 64\] and is \[32"):
        Ledger(tmp_path, other, PASSES)


def test_a_second_process_is_kept_out(tmp_path):
    with Ledger(tmp_path, MAKING, PASSES), pytest.raises(BusyError, match="by another process"):
        Ledger(tmp_path, MAKING, PASSES)
    with Ledger(tmp_path, MAKING, PASSES) as ledger:
        ledger.remove()
    assert survey(tmp_path) is None


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OutputPathError, match=r"can't be locked \(No locks available\).*flock"):
        Ledger(tmp_path, MAKING, PASSES)


def test_zeros_that_a_power_cut_leaves_end_the_ledger(tmp_path):
    with Ledger(tmp_path, MAKING, PASSES) as ledger:
        for index in range(4):
            ledger.record("convert", index, {"bytes": index, "text": "x" * 100})
    whole = (tmp_path / FILE).read_bytes()
    lines = whole.splitlines(keepends=True)
    begin = sum(map(len, lines[:4]))
    # From the middle of one line to the middle of the next: both together look like one.
    gap = slice(begin + 90, begin + len(lines[4]) + 90)
    (tmp_path / FILE).write_bytes(whole[: gap.start] + bytes(len(lines[4])) + whole[gap.stop :])
    with Ledger(tmp_path, MAKING, PASSES) as ledger:
        assert ledger.done["convert"] == {0, 1}


def test_a_failure_is_recorded_until_the_region_is_done(tmp_path):
    now = time.time()
    with Ledger(tmp_path, MAKING, PASSES) as ledger:
        ledger.record_failure("convert", 3, 'the "slice" is \n torn')
        ledger.record("convert", 4, {"bytes": 1})
        ledger.record_failure("convert", 4, "its files are missing")
        assert ledger.done["convert"] == set()
    found = survey(tmp_path, now)
    assert found is not None
    assert [(f.region, f.message) for f in found.failures] == [
        (3, 'the "slice" is \n torn'),
        (4, "its files are missing"),
    ]
    with Ledger(tmp_path, MAKING, PASSES) as ledger:
        assert ledger.done["convert"] == set()
        ledger.record("convert", 3, {"bytes": 1})
        ledger.record("convert", 4, {"bytes": 1})
        assert len(list(ledger.results("convert"))) == 2, "once a region"
    found = survey(tmp_path, now)
    assert found is not None
    assert found.failures == []
    assert found.done == 2
    assert found.last == pytest.approx(now, abs=60)
    assert found.passes["convert"].rate(now - 10, now + 1) > 0


def test_a_ledger_of_another_version_is_refused(tmp_path):
    header = {"format": 1, "making": MAKING, "total": 3}
    (tmp_path / FILE).write_text(json.dumps(header) + "\n")
    with pytest.raises(ResumeError, match=r"format 1.*with the version that began it"):
        Ledger(tmp_path, MAKING, PASSES)
    assert survey(tmp_path) is None


def test_a_torn_line_is_no_trouble_to_those_who_watch(tmp_path):
    with Ledger(tmp_path, MAKING, PASSES) as ledger:
        ledger.record("convert", 0, {"bytes": 3})
        found = survey(tmp_path)
        assert found is not None
        assert found.opening is not None
        assert found.opening.runs()
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"pass":"convert","region":1,"ti')
    found = survey(tmp_path)
    assert found is not None
    assert found.done == 1


def test_who_fills_a_store_can_be_told_on_its_own_machine_only(tmp_path):
    opening = Opening(time.time(), "elsewhere", os.getpid())
    assert opening.runs() is None
    with Ledger(tmp_path, MAKING, PASSES):
        found = survey(tmp_path)
    assert found is not None
    assert found.opening is not None
    # A process that has this number now, and is younger, is another one.
    assert Opening(1e9, found.opening.host, os.getpid()).runs() is False


def test_a_ledger_that_was_removed_or_replaced_is_noticed(tmp_path):
    store = tmp_path / "out.zarr"
    store.mkdir()
    with Ledger(store, MAKING, PASSES) as ledger:
        ledger.require_there()
        store.rename(tmp_path / "moved")
        with pytest.raises(WorkFailedError, match=r"out\.zarr was removed or replaced"):
            ledger.require_there()
        store.mkdir()
        with Ledger(store, MAKING, PASSES), pytest.raises(WorkFailedError, match="replaced"):
            ledger.require_there()


def test_a_million_regions_take_little_memory():
    regions = RegionSet()
    for index in (0, 999_999, 5, 5):
        regions.add(index)
    regions.discard(5)
    regions.discard(2_000_000)
    assert regions == {0, 999_999}
    assert len(regions) == 2
    assert len(pickle.dumps(regions)) < 3e6


def test_hopeless_errors_travel():
    error = pickle.loads(pickle.dumps(HopelessError("no memory")))  # noqa: S301
    assert type(error) is HopelessError
    assert str(error) == "no memory"


SECONDS = "isosr_pipeline.engine.ledger._SECONDS_BETWEEN_SYNCS"


@pytest.fixture
def syncs(monkeypatch) -> list[int]:
    """How long the file was each time that it was synced."""
    sizes: list[int] = []
    fsync = os.fsync

    def count(number: int) -> None:
        sizes.append(os.fstat(number).st_size)
        fsync(number)

    monkeypatch.setattr(os, "fsync", count)
    return sizes


def test_a_record_is_synced_when_that_is_due_though_no_other_comes(tmp_path, monkeypatch, syncs):
    monkeypatch.setattr(SECONDS, 3600.0)
    with Ledger(tmp_path, MAKING, PASSES) as ledger:
        ledger.sync()
        before = len(syncs)
        ledger.record("convert", 0, {"bytes": 3})
        ledger.sync_if_due()
        assert len(syncs) == before
        monkeypatch.setattr(SECONDS, 0.0)
        ledger.sync_if_due()
        assert syncs[before:] == [(tmp_path / FILE).stat().st_size]
        ledger.sync_if_due()
        assert len(syncs) == before + 1, "what is synced is not synced again"


def test_what_was_recorded_is_synced_when_the_ledger_is_closed(tmp_path, monkeypatch, syncs):
    monkeypatch.setattr(SECONDS, 3600.0)
    with Ledger(tmp_path, MAKING, PASSES) as ledger:
        ledger.sync()
        ledger.record("convert", 0, {"bytes": 3})
    assert syncs[-1] == (tmp_path / FILE).stat().st_size


def test_a_record_that_the_disk_does_not_keep_is_taken_back(tmp_path, monkeypatch):
    def refuse(_number: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(SECONDS, 0.0)
    with Ledger(tmp_path, MAKING, PASSES) as ledger:
        size = (tmp_path / FILE).stat().st_size
        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="Input/output"):
            ledger.record("convert", 0, {"bytes": 3})
        assert (tmp_path / FILE).stat().st_size == size
        assert ledger.done["convert"] == set()
