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
