from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
from distributed import Client, LocalCluster

from isosr_pipeline.geometry import Zyx
from isosr_pipeline.settings import EvaluateSettings
from isosr_pipeline.steps.evaluate import evaluate
from isosr_pipeline.store.volume import Volume

CUBE = 24
CUBES = 27
APART = 24


@pytest.fixture
def reads(monkeypatch):
    """Sizes of what is read at once, in voxels; workers are threads here."""
    found = []
    read = Volume.read

    def counted(self, channel, box, *level):
        data = read(self, channel, box, *level)
        found.append(data.size)
        return data

    monkeypatch.setattr(Volume, "read", counted)
    monkeypatch.setattr("isosr_pipeline.steps.evaluate.BLOCK", CUBE)
    monkeypatch.setattr("isosr_pipeline.evidence.cubes.MOST_CUBES", CUBES)
    monkeypatch.setattr("isosr_pipeline.foreground.MOST_VOXELS", (3 * CUBE) ** 3)
    monkeypatch.setattr("isosr_pipeline.blur.beads._TILE", Zyx(16, 32, 32))
    return found


def _spots(edge):
    """Noise, and spots on a lattice, wider along z than across."""
    at = (np.arange(edge) + 0.5) % APART - APART / 2
    z, y, x = (np.exp(-0.5 * (at / sigma) ** 2) for sigma in (1.5, 1.0, 1.0))
    light = 2000 * z[:, None, None] * y[:, None] * x
    return np.random.default_rng(3).poisson(100 + light).astype(np.uint16)


def test_of_a_volume_eight_times_as_large_no_more_is_read(reads, make_store):
    """Neither at once nor in all: spectra, drift and spots come from as many cubes."""
    most, all_of_them = [], []
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as threads,
        Client(threads) as client,
    ):
        for edge in (3 * CUBE, 6 * CUBE):
            store = make_store(_spots(edge), chunk=(24, 24, 24), shard=(72, 72, 72)).path
            reads.clear()
            settings = EvaluateSettings(spots=True)
            found = evaluate(store, store, settings, lambda: nullcontext(client))
            assert found.spots.count > 10
            most.append(max(reads))
            all_of_them.append(sum(reads))
    assert most[1] <= most[0]
    # Cubes within a volume have neighbours on all sides, from which spots of theirs are read.
    assert all_of_them[1] <= 2 * all_of_them[0]
