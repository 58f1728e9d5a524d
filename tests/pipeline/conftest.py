"""What several files of tests of the pipeline share."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack, contextmanager

import pytest

from isosr_models.ot_cyclegan import OTCycleGAN
from isosr_pipeline.viewing.layers import open_scene
from isosr_pipeline.viewing.server import ViewServer


@pytest.fixture
def steps(monkeypatch):
    """Record for each step whether it was one with frozen normalisation."""
    taken: list[bool] = []
    step = OTCycleGAN.step

    def recorded(self, crops):
        taken.append(self.norm_frozen)
        return step(self, crops)

    monkeypatch.setattr(OTCycleGAN, "step", recorded)
    return taken


@pytest.fixture
def served():
    """Serve volumes to a browser until the test ends."""
    with ExitStack() as stack:

        def serve(store, restored=None, trust=None, layout="beside"):
            server = ViewServer(open_scene(store, restored, trust), layout)
            stack.enter_context(_running(server))
            return server

        yield serve


@contextmanager
def _running(server):
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.run(stop)))
    thread.start()
    yield
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()
