from __future__ import annotations

import pytest

from isosr_pipeline.errors import BusyError, ResumeError
from isosr_pipeline.ledger import FILE, Ledger, count_done

MAKING = {"source": "a.tif", "parameters": {"chunk": [64, 64, 64]}}


def test_what_is_recorded_is_found_again(tmp_path):
    with Ledger(tmp_path, MAKING) as ledger:
        ledger.record("convert/0", {"bytes": 3})
        ledger.record("convert/7", {"bytes": 4})
    with Ledger(tmp_path, MAKING) as ledger:
        assert ledger.done == {"convert/0": {"bytes": 3}, "convert/7": {"bytes": 4}}
    assert count_done(tmp_path) == 2


def test_every_torn_end_costs_at_most_the_last_line(tmp_path):
    with Ledger(tmp_path, MAKING) as ledger:
        for index in range(3):
            ledger.record(f"convert/{index}", {"bytes": index})
    whole = (tmp_path / FILE).read_bytes()
    for length in range(len(whole)):
        (tmp_path / FILE).write_bytes(whole[:length])
        kept = max(0, whole[:length].count(b"\n") - 1)
        with Ledger(tmp_path, MAKING) as ledger:
            assert list(ledger.done) == [f"convert/{i}" for i in range(kept)]
            ledger.record("convert/9", {"bytes": 9})
        with Ledger(tmp_path, MAKING) as ledger:
            assert len(ledger.done) == kept + 1


def test_another_input_or_parameter_is_refused_and_named(tmp_path):
    with Ledger(tmp_path, MAKING):
        pass
    other = {"source": "a.tif", "parameters": {"chunk": [32, 32, 32]}}
    with pytest.raises(ResumeError, match=r"parameters\.chunk was \[64, 64, 64\] and is \[32"):
        Ledger(tmp_path, other)


def test_a_second_process_is_kept_out(tmp_path):
    with Ledger(tmp_path, MAKING), pytest.raises(BusyError, match="by another process"):
        Ledger(tmp_path, MAKING)
    with Ledger(tmp_path, MAKING) as ledger:
        ledger.remove()
    assert count_done(tmp_path) == 0
