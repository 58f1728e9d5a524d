from __future__ import annotations

import errno
import fcntl
import os

import pytest

from isosr_pipeline.engine.ledger import FILE, Ledger, count_done
from isosr_pipeline.errors import BusyError, OutputPathError, ResumeError

MAKING = {"source": "a.tif", "parameters": {"chunk": [64, 64, 64]}}


def test_what_is_recorded_is_found_again(tmp_path):
    with Ledger(tmp_path, MAKING, 10) as ledger:
        ledger.record("convert", 0, {"bytes": 3})
        ledger.record("convert", 7, {"bytes": 4})
        ledger.record("level 1", 0, {"bytes": 5})
    with Ledger(tmp_path, MAKING, 10) as ledger:
        assert ledger.done == {"convert": {0, 7}, "level 1": {0}}
        assert list(ledger.results("convert")) == [{"bytes": 3}, {"bytes": 4}]
    assert count_done(tmp_path) == (3, 10)


def test_every_torn_end_costs_at_most_the_last_line(tmp_path):
    with Ledger(tmp_path, MAKING, 10) as ledger:
        for index in range(3):
            ledger.record("convert", index, {"bytes": index})
    whole = (tmp_path / FILE).read_bytes()
    for length in range(len(whole)):
        (tmp_path / FILE).write_bytes(whole[:length])
        kept = max(0, whole[:length].count(b"\n") - 1)
        with Ledger(tmp_path, MAKING, 10) as ledger:
            assert ledger.done["convert"] == set(range(kept))
            ledger.record("convert", 9, {"bytes": 9})
        with Ledger(tmp_path, MAKING, 10) as ledger:
            assert ledger.done["convert"] == {*range(kept), 9}


def test_another_input_or_parameter_is_refused_and_named(tmp_path):
    with Ledger(tmp_path, MAKING, 10):
        pass
    other = {"source": "a.tif", "parameters": {"chunk": [32, 32, 32]}}
    with pytest.raises(ResumeError, match=r"parameters\.chunk was \[64, 64, 64\] and is \[32"):
        Ledger(tmp_path, other, 10)


def test_a_second_process_is_kept_out(tmp_path):
    with Ledger(tmp_path, MAKING, 10), pytest.raises(BusyError, match="by another process"):
        Ledger(tmp_path, MAKING, 10)
    with Ledger(tmp_path, MAKING, 10) as ledger:
        ledger.remove()
    assert count_done(tmp_path) == (0, 0)


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OutputPathError, match=r"can't be locked \(No locks available\).*flock"):
        Ledger(tmp_path, MAKING, 10)
