from __future__ import annotations

import numpy as np
import pytest

from isosr_pipeline.blur.noise import NoiseModel, estimate_noise
from isosr_pipeline.simulation.volume import SCENES, Acquisition, simulate


@pytest.mark.parametrize("scene", SCENES)
def test_the_noise_of_photons_is_told_whatever_they_show(scene):
    """A count has a variance of its own size, also under a gain of 10 and an offset of 100."""
    acquisition = Acquisition(lateral_fwhm_um=1.98, axial_fwhm_um=3.91)
    image = simulate(scene, (64, 96, 96), acquisition, seed=1).image
    for gain, offset in ((1.0, 0.0), (10.0, 100.0)):
        found = estimate_noise([image[:32] * gain + offset, image[32:] * gain + offset])
        for counts in np.quantile(image, (0.1, 0.99)):
            variance = found.gain * (gain * counts + offset) + found.floor
            assert variance == pytest.approx(gain**2 * counts, rel=0.3)


def test_a_window_changes_the_units_alone():
    model = NoiseModel(gain=2.0, floor=-150.0)
    windowed = model.windowed((100.0, 300.0))
    for intensity in (100.0, 250.0):
        variance = 2.0 * intensity - 150.0
        inside = (intensity - 100.0) / 200.0
        assert windowed.gain * inside + windowed.floor == pytest.approx(variance / 200.0**2)


def test_noise_that_does_not_depend_on_the_intensity_has_no_gain():
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1000, 96)[None, None, :]
    found = estimate_noise([ramp + rng.normal(0, 5, (8, 96, 96))])
    assert found.gain * 1000 + found.floor == pytest.approx(25, rel=0.15)
    assert found.floor == pytest.approx(25, rel=0.15)


@pytest.mark.parametrize("shape", [(3, 96, 96), (1, 8, 8), (2, 4, 4)])
def test_where_nothing_can_be_told_there_is_no_noise(shape):
    assert estimate_noise([np.full(shape, 7, np.uint16)]) == NoiseModel(0.0, 0.0)
    assert estimate_noise([]) == NoiseModel(0.0, 0.0)
