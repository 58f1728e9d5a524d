"""The step evaluate of a brain: figures, trust map and report, of which each shows those before."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import yaml

from isosr_models.model_folder import save_model
from isosr_models.unet import UNet3d
from isosr_pipeline.brain import read_brain
from isosr_pipeline.evidence.results import Evaluation
from isosr_pipeline.evidence.trusted import trusted
from isosr_pipeline.reporting.history import day_and_time
from isosr_pipeline.steps.status import status_of_brain
from isosr_pipeline.store.volume import Volume
from isosr_pipeline.tiffs import write_tiff
from isosr_pipeline.trust.summary import TrustSummary


@pytest.fixture
def evaluated(cluster, tmp_path, monkeypatch):
    """A brain that is restored, and how often it was measured."""
    image = np.random.default_rng(1).poisson(50, (40, 36, 34))
    image[18:22, 16:20, 15:19] += 400
    write_tiff(tmp_path / "blurred.tif", image.astype(np.uint16), (1.0, 1.0, 1.0))
    content = {
        "source": "blurred.tif",
        "output": "out",
        "convert": {"chunk": 16, "shard": 32},
        "train": {"method": "richardson-lucy", "axial_fwhm": 3, "iterations": 2},
        "restore": {"chunk": 16, "shard": 32, "device": "cpu"},
    }
    path = tmp_path / "brain.yaml"
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setattr("isosr_pipeline.steps.run.cluster_for", lambda *_, **__: cluster)
    measured = []
    module = sys.modules["isosr_pipeline.steps.run"]
    measure = module.evaluate
    monkeypatch.setattr(module, "evaluate", lambda *a, **k: measured.append(a) or measure(*a, **k))
    return path, measured


def test_what_is_missing_of_an_evaluation_is_made_and_no_more(evaluated, isosr, capsys):
    path, measured = evaluated
    assert isosr("run", path) == 0
    shown = capsys.readouterr().out
    assert "trust map, channel 0: " in shown
    assert "trust map: the worst place is at " in shown
    brain = read_brain(path)
    made = [brain.evaluation, brain.report, brain.trust_summary]
    first = _require_the_maps_figures(brain)
    for again in (("run", path), ("run", path, "--step", "evaluate")):
        capsys.readouterr()
        assert isosr(*again) == 0
        assert "evaluation.json is complete already" in capsys.readouterr().err.replace("\n", "")
    _require_kept_figures_without_what_they_are_of(brain, isosr, path, capsys)
    for result in made[1:]:
        result.unlink()
        (*_, state) = status_of_brain(brain)
        assert (state.state, result.name in state.detail) == ("unfinished", True)
        assert isosr("run", path) == 0
        assert all(one.is_file() for one in made)
    assert len(measured) == 1
    # The page that is drawn again says when, and with what, the figures were measured.
    assert _require_the_maps_figures(brain) == first
    row = brain.report.read_text().partition("<td>evaluate<br>")[2].partition("</tr>")[0]
    assert day_and_time(first.ended.timestamp()) in row
    assert f"numpy {first.versions['numpy']}" in row
    # Figures of an earlier version have neither; what the map comes to is added.
    kept = json.loads(brain.evaluation.read_text())
    brain.evaluation.write_text(json.dumps({**kept, "trust": None, "measuring": None}))
    brain.report.touch()
    assert isosr("run", path, "--step", "evaluate") == 0
    assert json.loads(brain.evaluation.read_text()) == {**kept, "measuring": None}
    assert status_of_brain(brain)[-1].state == "complete"
    assert len(measured) == 1
    # The restored volume is replaced: the map of the earlier one is, too.
    volume = Volume(brain.restored, writable=True)
    volume.update(volume.require_own().model_copy(update={"id": "another"}))
    assert status_of_brain(brain)[-1].state == "not begun"
    assert trusted(Volume(brain.restored), Volume(brain.store)) is None
    assert isosr("run", path, "--step", "evaluate") == 0
    assert len(measured) == 2
    parameters = Volume(brain.trust_map).require_own().history[-1].parameters
    assert parameters["source_id"] == "another"
    assert _require_the_maps_figures(brain).ended > first.ended


def _require_kept_figures_without_what_they_are_of(brain, isosr, path, capsys):
    """Take the converted volume away to save disk, and damage the map."""
    kept = brain.evaluation.read_bytes()
    metadata = brain.trust_map / "zarr.json"
    for moved in (brain.store, metadata):
        aside = moved.rename(moved.with_name("aside"))
        assert isosr("run", path, "--step", "evaluate") == 0
        told = " ".join(capsys.readouterr().err.split())
        assert "is not looked at again" in told
        assert "complete already" in told
        assert brain.evaluation.read_bytes() == kept
        aside.rename(moved)


def _require_the_maps_figures(brain):
    """Compare the figures that are kept with what the map comes to; return who measured."""
    found = Evaluation.model_validate_json(brain.evaluation.read_bytes())
    summary = TrustSummary.model_validate_json(brain.trust_summary.read_bytes())
    (channel,), (told,) = found.trust.channels, summary.channels
    assert (channel.cells, channel.signal_cells) == (told.cells, told.signal)
    assert channel.flagged_signal_share == told.flagged_signal
    assert [(p.score_sd, p.position_um) for p in found.trust.worst] == [
        (p.score, p.um) for p in summary.worst
    ]
    assert found.trust.worst
    return found.measuring


def test_a_part_between_two_planes_is_told_to_have_no_map(evaluated, isosr, capsys, cluster):
    """Planes lie 16 voxels apart, and eleven voxels between two of them are restored."""
    path, measured = evaluated
    content = yaml.safe_load(path.read_text())
    content["convert"]["voxel_size"] = [16, 1, 1]
    content["restore"]["roi"] = "18:29,:,:"
    path.write_text(yaml.safe_dump(content))
    assert isosr("run", path) == 0
    brain = read_brain(path)
    between = "shows z 18 to 28 of the isotropic grid, and the measured planes"
    told = " ".join(capsys.readouterr().err.split())
    assert "no trust map is made" in told
    assert between in told
    assert "lie at z 16 and 32" in told
    assert "axial_fwhm" not in told
    assert between in brain.report.read_text()
    assert between in json.loads(brain.trust_summary.read_text())["reason"]
    assert not brain.trust_map.exists()
    # A blur that is given since would change nothing: it is not tried again.
    path.write_text(yaml.safe_dump({**content, "trust": {"axial_fwhm": 3}}))
    assert isosr("run", path) == 0
    assert "evaluation.json is complete already" in capsys.readouterr().err.replace("\n", "")
    assert len(measured) == 1
    command = ("trust", brain.store, brain.restored, brain.trained_model, "--device", "cpu")
    before = sorted(brain.output.iterdir())
    assert isosr(*command, "--cluster", "nowhere") == 2
    assert between in " ".join(capsys.readouterr().err.split())
    assert sorted(brain.output.iterdir()) == before


def test_without_a_known_blur_the_page_says_why_there_is_no_map(evaluated, isosr, capsys):
    path, measured = evaluated
    for step in ("convert", "train", "restore"):
        assert isosr("run", path, "--step", step) == 0
    content = yaml.safe_load(path.read_text())
    plain = path.parent / "plain"
    options = {"window_percentiles": (0.03, 99.97), "training": {}}
    save_model(plain, {"generator": UNet3d(4)}, method="ot-cyclegan", **options)
    path.write_text(yaml.safe_dump({**content, "model": "plain"}))
    assert isosr("run", path, "--step", "evaluate") == 0
    assert "no trust map is made" in capsys.readouterr().err
    brain = read_brain(path)
    assert "plain knows no blur that can be used" in brain.report.read_text()
    assert not brain.trust_map.exists()
    assert json.loads(brain.evaluation.read_text())["trust"] is None
    assert isosr("run", path, "--step", "evaluate") == 0
    assert "is complete already" in capsys.readouterr().err.replace("\n", "")
    # Given since, it is tried again.
    path.write_text(yaml.safe_dump({**content, "model": "plain", "trust": {"axial_fwhm": 3}}))
    assert isosr("run", path, "--step", "evaluate") == 2
    assert "was made with another model" in capsys.readouterr().err
    assert len(measured) == 1
