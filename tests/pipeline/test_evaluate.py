from __future__ import annotations

import numpy as np
import pytest
import tifffile
from skimage.metrics import mean_squared_error, structural_similarity

from isosr_pipeline.errors import InputError
from isosr_pipeline.settings import EvaluateSettings
from isosr_pipeline.simulation import Acquisition, simulate
from isosr_pipeline.steps.evaluate import evaluate


@pytest.fixture(scope="module")
def simulated():
    return simulate("neurites", (80, 140, 90), Acquisition(), seed=4)


def _with_reference(path):
    return EvaluateSettings(reference=str(path))


def test_figures_equal_those_of_the_whole_volume(cluster, make_store, tmp_path, simulated):
    """Larger than a block, so that streaming and its halo are tried."""
    image, truth = simulated.image, simulated.truth
    tifffile.imwrite(tmp_path / "truth.tif", truth, photometric="minisblack")
    restored = (truth // 2 + 7).astype(np.uint16)
    settings = _with_reference(tmp_path / "truth.tif")
    found = evaluate(make_store(image).path, make_store(restored).path, settings, cluster)
    before, after = found.before.against_reference, found.after.against_reference
    gain, offset = np.polyfit(image.ravel().astype(float), truth.ravel().astype(float), 1)
    fitted = gain * image + offset
    error = mean_squared_error(truth.astype(float), fitted)
    assert (before.gain, before.offset) == (pytest.approx(gain), pytest.approx(offset))
    assert before.psnr_db == pytest.approx(10 * np.log10(float(truth.max()) ** 2 / error))
    assert before.nrmse == pytest.approx(np.sqrt(error / (truth.astype(float) ** 2).mean()))
    similarity = structural_similarity(
        truth.astype(float),
        fitted,
        data_range=float(truth.max() - truth.min()),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert before.ssim == pytest.approx(similarity, abs=2e-3)
    assert after.psnr_db > before.psnr_db + 10
    assert found.before.axial_lateral_ratio < 0.6 < 0.85 < found.after.axial_lateral_ratio < 1.15


def test_a_reference_store_and_undersampled_z(cluster, make_store, simulated):
    image = simulated.image[::2]
    store = make_store(image, voxel_size=(2.0, 1.0, 1.0))
    truth = make_store(simulated.truth[:79])
    found = evaluate(store.path, truth.path, _with_reference(truth.path), cluster)
    assert found.after.against_reference.psnr_db == np.inf
    assert found.after.against_reference.ssim == pytest.approx(1)
    assert found.before.against_reference.psnr_db < 60


def test_without_signal_or_depth_there_is_no_ratio(cluster, make_store):
    flat = make_store(np.full((40, 40, 40), 7, np.uint16)).path
    assert evaluate(flat, flat, EvaluateSettings(), cluster).before.axial_lateral_ratio is None
    thin = make_store(np.random.default_rng(0).integers(0, 9, (8, 40, 40), dtype=np.uint8)).path
    assert evaluate(thin, thin, EvaluateSettings(), cluster).before.axial_lateral_ratio is None


def test_what_does_not_fit_is_refused_before_a_cluster_is_opened(make_store, noise):
    def never():
        pytest.fail("a cluster was opened")

    store, other = make_store(noise).path, make_store(noise[:-1]).path
    with pytest.raises(InputError, match="on the isotropic grid"):
        evaluate(store, other, EvaluateSettings(), never)
    with pytest.raises(InputError, match="grid of the restored volume"):
        evaluate(store, store, _with_reference(other), never)
    with pytest.raises(InputError, match="has 1 channels, and channel 2"):
        evaluate(store, store, EvaluateSettings(channel=2), never)
