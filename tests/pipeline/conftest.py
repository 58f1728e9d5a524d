"""What several files of tests of the pipeline share."""

from __future__ import annotations

import asyncio
import shutil
import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import yaml
from plans import BRAIN, MAP_RATES, RATE, STEPS

from isosr_models.ot_cyclegan import OTCycleGAN
from isosr_pipeline.brain import read_brain
from isosr_pipeline.steps.plan import plan
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
def planned(tmp_path, client, cluster, monkeypatch):
    """Plan a brain with some sections changed, on the tests' own workers."""
    monkeypatch.setattr(f"{STEPS}.cluster_for", lambda *_, **__: cluster)
    monkeypatch.setattr(f"{STEPS}.measure_rate", lambda *_: RATE)
    monkeypatch.setattr(f"{STEPS}_map.measure_rates", lambda *_: MAP_RATES)
    # What is really free changes while tests run.
    usage = SimpleNamespace(disk_usage=lambda _path: SimpleNamespace(free=10**11))
    monkeypatch.setattr(f"{STEPS}.shutil", usage)
    voxels = np.random.default_rng(2).integers(0, 4000, (36, 70, 66), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "blurred.tif", voxels)

    def found(**changes):
        content = {key: dict(v) if isinstance(v, dict) else v for key, v in BRAIN.items()}
        for key, value in changes.items():
            # What another method trains with is all its own.
            is_merged = isinstance(value, dict) and "method" not in value
            content[key] = {**content.get(key, {}), **value} if is_merged else value
        path = tmp_path / "brain.yaml"
        path.write_text(yaml.safe_dump(content))
        return plan(read_brain(path))

    return found


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
