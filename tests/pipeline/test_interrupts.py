from __future__ import annotations

import signal
import time

import pytest

from isosr_pipeline import interrupts


def test_signals_that_come_together_are_one_request(monkeypatch):
    told = []
    with interrupts.stop_requests(lambda: told.append(1)) as stopping:
        assert not stopping()
        # As a scheduler and a script that passes its signal on send it.
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stopping()
        monkeypatch.setattr(interrupts, "_SECONDS_OF_ONE_REQUEST", 0.0)
        time.sleep(0.01)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert told == [1]


def test_a_terminal_that_closes_is_a_request_however_often_it_says_so(monkeypatch, hangups):
    monkeypatch.setattr(interrupts, "_SECONDS_OF_ONE_REQUEST", 0.0)
    with interrupts.stop_requests() as stopping:
        signal.raise_signal(signal.SIGHUP)
        time.sleep(0.01)
        signal.raise_signal(signal.SIGHUP)
        assert stopping()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_a_terminal_that_closes_can_be_told_from_other_signals(hangups):
    with interrupts.stop_requests() as stopping, interrupts.noticing_hangup() as is_lost:
        signal.raise_signal(signal.SIGHUP)
        assert (stopping(), is_lost()) == (False, True)
        signal.raise_signal(signal.SIGTERM)
        assert stopping()


def test_under_nohup_a_terminal_may_close(hangups):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interrupts.stop_requests() as stopping:
        signal.raise_signal(signal.SIGHUP)
        assert not stopping()
        signal.raise_signal(signal.SIGTERM)
        assert stopping()
