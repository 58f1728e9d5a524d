"""What several files of tests of the pipeline share."""

from __future__ import annotations

import asyncio
import shutil
import threading
from contextlib import ExitStack, contextmanager
from functools import partial

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


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """Start Chromium that finds no other machine, with options that are given without dashes."""
    return partial(_chromium, tmp_path_factory)


@contextmanager
def _chromium(folders, *options):
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium here: install chromium and chromium-driver")
    chosen = webdriver.ChromeOptions()
    chosen.binary_location = chromium
    for option in (
        *("headless=new", "no-sandbox", "disable-dev-shm-usage", "no-first-run"),
        *("disable-background-networking", "disable-component-update"),
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"user-data-dir={folders.mktemp('profile')}",
        *options,
    ):
        chosen.add_argument(f"--{option}")
    # With its path given, selenium looks for no driver elsewhere.
    started = webdriver.Chrome(options=chosen, service=webdriver.ChromeService(driver))
    started.set_script_timeout(120)
    yield started
    if started.service.process.poll() is None:
        started.quit()
