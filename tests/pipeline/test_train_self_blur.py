from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from scipy import ndimage

from isosr_models.model_folder import load_restorer, read_description, read_run
from isosr_models.self_blur import SelfBlur
from isosr_models.slices import SliceRestorer
from isosr_pipeline.blur import residual as residual_blur
from isosr_pipeline.blur.residual import describe_residual_blur, find_residual_blur
from isosr_pipeline.errors import InputError, InterruptedRunError, ResumeError
from isosr_pipeline.progress import SilentReporter
from isosr_pipeline.settings import RestoreSettings
from isosr_pipeline.simulation.volume import Acquisition, simulate
from isosr_pipeline.steps.restore import restore
from isosr_pipeline.steps.train import train
from isosr_pipeline.training.recording import LOSSES
from isosr_pipeline.training.settings import SelfBlurSettings, TrainSettings
from isosr_pipeline.widths import FWHM_PER_SIGMA

SMALL = SelfBlurSettings(
    width=2, crop=(16, 32, 32), batch=2, planes=2, iterations=6, device="cpu", preview_every=0
)
TRUE = (3.6**2 - 1.2**2) ** 0.5
"""FWHM in µm of what makes the simulated image of the truth."""


class Notes(SilentReporter):
    """Keeps what is said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture(scope="module")
def image():
    return simulate("beads", (96, 80, 80), Acquisition(), seed=5).image


@pytest.fixture
def store(make_store, image):
    return make_store(image, voxel_size=(0.5, 0.5, 0.5)).path


def test_the_blur_is_told_said_and_kept(isosr, store, tmp_path, capsys):
    model, plot = tmp_path / "model", tmp_path / "blur.svg"
    options = ["--method", "self-blur", "--width", 2, "--crop", "16,32,32", "--iterations", 2]
    assert isosr("train", store, model, *options) == 0
    shown = capsys.readouterr().err
    assert "axial blur beyond the lateral one: FWHM 3." in shown
    run = read_run(model)
    told = run["residual_blur"]
    square = (TRUE / 0.5 / FWHM_PER_SIGMA) ** 2
    assert told["source"] == "told"
    assert told["degradation"]["square_x"] == pytest.approx(square, rel=0.15)
    assert 0 < told["degradation"]["error"] < 0.2 * square
    assert [blur["store"] for blur in told["volumes"]] == [str(store)]
    assert (model / "previews" / "000001.png").is_file()

    assert isosr("psf", model, "--plot", plot) == 0
    shown = capsys.readouterr().out
    assert "FWHM 3." in shown
    assert "against x" in shown
    assert plot.read_text().startswith("<svg")
    assert isosr("psf", model, "--json") == 0
    assert json.loads(capsys.readouterr().out) == told
    assert isosr("psf", model, "--out", tmp_path / "kernel.tif") == 2
    assert "--out is for models that learned a blur" in capsys.readouterr().err


def test_a_width_that_is_given_is_taken(isosr, store, tmp_path, capsys):
    model = tmp_path / "model"
    options = ["--method", "self-blur", "--width", 2, "--crop", "16,32,32", "--iterations", 1]
    assert isosr("train", store, model, *options, "--axial-fwhm", "2.5") == 0
    assert "FWHM 2.5 µm (as given), sigma 2.12 voxels" in capsys.readouterr().err
    blur = describe_residual_blur(model)
    assert blur.source == "given"
    assert blur.degradation.error == 0
    assert blur.degradation.square_x == pytest.approx((2.5 / 0.5 / FWHM_PER_SIGMA) ** 2)
    assert isosr("psf", model, "--plot", tmp_path / "blur.svg") == 2
    assert "nothing was measured that could be drawn" in capsys.readouterr().err
    assert not (tmp_path / "blur.svg").exists()
    other = SMALL.model_copy(update={"axial_fwhm": 2.6, "iterations": 1, "preview_every": 500})
    with pytest.raises(ResumeError, match=r"axial_fwhm was 2\.5"):
        train([store], model, other, if_exists="resume")


def _interrupt_at(iteration, store, model, monkeypatch):
    """Train until a step, and stop as if asked to."""
    step, taken = SelfBlur.step, []

    def interrupted(self, crops):
        taken.append(step(self, crops))
        if len(taken) == iteration:
            signal.raise_signal(signal.SIGTERM)
        return taken[-1]

    with monkeypatch.context() as patched:
        patched.setattr(SelfBlur, "step", interrupted)
        with pytest.raises(InterruptedRunError, match=f"iteration {iteration};"):
            train([store], model, SMALL)


def test_a_resumed_training_tells_nothing_again_and_ends_the_same(store, tmp_path, monkeypatch):
    train([store], tmp_path / "straight", SMALL)
    _interrupt_at(3, store, tmp_path / "model", monkeypatch)
    notes = Notes()
    with monkeypatch.context() as patched:
        patched.delattr(residual_blur, "describe_blur")
        patched.delattr(residual_blur, "estimate_noise")
        train([store], tmp_path / "model", SMALL, if_exists="resume", reporter=notes)
        train([store], tmp_path / "model", SMALL, if_exists="resume", reporter=notes)
    assert any(line.startswith("axial blur beyond") for line in notes.lines)
    assert notes.lines[-1].endswith("is trained already")
    one, other = (read_description(tmp_path / name) for name in ("straight", "model"))
    assert one.weights_sha256 == other.weights_sha256
    assert one.training["run"]["residual_blur"] == other.training["run"]["residual_blur"]
    tables = [(tmp_path / name / LOSSES).read_text() for name in ("straight", "model")]
    assert tables[0] == tables[1]
    assert tables[0].startswith("iteration,restoration\n1,")


def test_the_learning_rate_falls_with_the_iterations(store, tmp_path, monkeypatch):
    shares = []
    monkeypatch.setattr(SelfBlur, "set_share", lambda _self, share: shares.append(share))
    train([store], tmp_path / "model", SMALL.model_copy(update={"axial_fwhm": 3.0}))
    assert shares == pytest.approx([n / 6 for n in range(6)])


def test_volumes_are_combined_by_how_certain_they_are(make_store, image):
    wider = simulate("beads", (64, 64, 64), Acquisition(axial_fwhm_um=4.2), seed=2).image
    stores = [make_store(v, voxel_size=(0.5, 0.5, 0.5)).path for v in (image, wider)]
    windows = [[(0.0, 100.0)]] * 2
    found = find_residual_blur(stores, windows, 0, None)
    widths = [blur.estimate.width for blur in found.volumes]
    squares = [width.square_voxels for width in widths]
    assert min(squares) < found.degradation.square_x < max(squares)
    # As uncertain as the two differ, which is more than each would be.
    assert found.degradation.error > max(width.square_error_voxels for width in widths) / 2
    assert found.degradation.error > 0.2 * (max(squares) - min(squares))


def test_what_has_no_axial_blur_is_refused(make_store, tmp_path):
    sharp = Acquisition(axial_fwhm_um=1.2)
    image = simulate("cells", (64, 64, 64), sharp, seed=1).image
    store = make_store(image, voxel_size=(0.5, 0.5, 0.5)).path
    with pytest.raises(InputError, match=r"may be as sharp along z as in its planes.*--axial-fwhm"):
        train([store], tmp_path / "model", SMALL)
    assert not (tmp_path / "model").exists()


def test_what_shows_nothing_is_refused(make_store, tmp_path):
    noise = np.random.default_rng(0).poisson(20, (48, 48, 48)).astype(np.uint16)
    store = make_store(noise).path
    with pytest.raises(InputError, match=r"can't be told.*--axial-fwhm"):
        train([store], tmp_path / "model", SMALL)
    assert not (tmp_path / "model").exists()


def test_only_its_own_parameters_are_known(isosr, store, tmp_path, capsys):
    base = ["train", store, tmp_path / "model", "--method", "self-blur", "--iterations", 1]
    for option, text in (
        (["--preset", "cfm"], "--preset: self-blur has no such parameter"),
        (["--blur", "unet"], "--blur: self-blur has no such parameter"),
        (["--crop", "16,32,48"], "as long along y as along x"),
        (["--axial-fwhm", "0"], "--axial-fwhm: "),
    ):
        assert isosr(*base, *option) == 2
        assert text in capsys.readouterr().err
    with pytest.raises(ValueError, match="axial_fwhm"):
        TrainSettings(axial_fwhm=3.0)


def test_it_restores_undersampled_volumes_too(cluster, make_store, tmp_path, image):
    """Of planes three voxels apart; in blocks as at once, to float rounding."""
    given = image[:60:3, :48, :48]
    store = make_store(given, voxel_size=(1.5, 0.5, 0.5)).path
    model = tmp_path / "model"
    change = {"width": 4, "iterations": 8, "learning_rate": 0.003, "axial_fwhm": TRUE}
    train([store], model, SMALL.model_copy(update=change))
    assert isinstance(load_restorer(model), SliceRestorer)
    outs = []
    for block in (24, 64):
        out = tmp_path / f"out{block}.zarr"
        cut = {"block": block, "precision": "32", "shard": (32, 32, 32), "chunk": (16, 16, 16)}
        restore(store, str(model), out, RestoreSettings(**cut), cluster)
        outs.append(_whole(out))
    assert outs[0].shape == (58, 48, 48)
    assert np.abs(outs[0].astype(int) - outs[1]).max() <= 1
    smooth = ndimage.zoom(given.astype(float), (58 / 20, 1, 1), order=1)
    assert np.abs(outs[0] - smooth).mean() > 0.1


def _whole(path):
    from isosr_pipeline.geometry import Box
    from isosr_pipeline.store.volume import Volume

    volume = Volume(path)
    return volume.read(0, Box.whole(volume.shape[1:]))


def test_two_processes_train_together(store, tmp_path):
    """With nothing to average but gradients, and one learning rate by whoever's clock."""
    two = {"devices": 2, "threads": 1, "axial_fwhm": 3.0, "minutes": 5.0}
    train([store], tmp_path / "model", SMALL.model_copy(update=two))
    description = read_description(tmp_path / "model")
    assert description.training["iterations"] == 6
    assert description.training["run"]["processes"] == 2
    losses = np.loadtxt(tmp_path / "model" / LOSSES, delimiter=",", skiprows=1)
    assert np.isfinite(losses).all()
    load_restorer(tmp_path / "model")
