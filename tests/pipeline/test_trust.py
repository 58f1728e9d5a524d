"""The trust map: what explains the measured volume is clean, and what was painted in lights up."""

from __future__ import annotations

import json

import numpy as np
import pytest

from isosr_models.model_folder import save_model
from isosr_pipeline.blur.axial import FWHM_PER_SIGMA
from isosr_pipeline.errors import InputError, ResumeError
from isosr_pipeline.geometry import Box
from isosr_pipeline.settings import RestoreSettings, TrustSettings
from isosr_pipeline.simulation.volume import Acquisition, simulate
from isosr_pipeline.steps.restore import restore
from isosr_pipeline.steps.train import train
from isosr_pipeline.steps.trust import map_beside, trust
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.training.settings import RichardsonLucySettings

SIZE = 0.5
WIDTHS = Acquisition()
FWHM = (WIDTHS.axial_fwhm_um**2 - WIDTHS.lateral_fwhm_um**2) ** 0.5
"""Of what is left along z between the truth and what is measured, in µm."""

GIVEN = TrustSettings(axial_fwhm=FWHM, device="cpu")


@pytest.fixture(scope="module", params=[1, 3], ids=["all planes", "every third plane"])
def simulated(request):
    return simulate("neurites", (96, 64, 72), Acquisition(z_step=request.param), seed=3)


@pytest.fixture
def measured(make_store, simulated):
    return make_store(simulated.image, voxel_size=simulated.image_voxel_size)


def scores(path):
    volume = Volume(path)
    return volume.read(0, Box.whole(volume.shape[1:]))


def test_what_explains_the_measured_volume_is_clean(cluster, make_store, measured, simulated):
    restored = make_store(simulated.truth, voxel_size=simulated.truth_voxel_size)
    found = trust(measured.path, restored.path, "identity", GIVEN, cluster)
    print(found)
    assert 0
