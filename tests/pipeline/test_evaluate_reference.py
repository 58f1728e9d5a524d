"""Which channel of a reference is compared, and which references and settings are refused."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from pydantic import ValidationError

from isosr_pipeline.errors import InputError
from isosr_pipeline.evidence.reference import open_reference
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.settings import EvaluateSettings

SHAPE = (12, 14, 10)


@pytest.fixture
def restored(make_store):
    return make_store(np.zeros(SHAPE, np.uint16), voxel_size=(0.5,) * 3)


def channels(count):
    return np.arange(count, dtype=np.uint16)[:, None, None, None] + np.zeros(SHAPE, np.uint16)


def opened(path, restored, source_channel, **settings):
    return open_reference(EvaluateSettings(reference=path, **settings), restored, source_channel)


def test_the_channel_is_that_of_the_source_or_the_only_one_or_given(make_store, restored):
    two = make_store(channels(2), voxel_size=(0.5,) * 3).path
    one = make_store(channels(1), voxel_size=(0.5,) * 3).path
    box = Box(Zyx(0, 0, 0), Zyx(1, 1, 1))
    for path, source, settings, expected in (
        (two, 0, {}, 0),
        (two, 1, {}, 1),
        (two, 1, {"reference_channel": 0}, 0),
        (one, 1, {}, 0),
    ):
        found = opened(path, restored, source, **settings)
        assert found.channel == expected
        assert found.read(box).item() == expected


def test_a_reference_without_the_channel_is_refused(make_store, restored):
    two = make_store(channels(2), voxel_size=(0.5,) * 3).path
    with pytest.raises(InputError, match=r"none is channel 2.*give --reference-channel"):
        opened(two, restored, 2)
    with pytest.raises(InputError, match="has 2 channels, and channel 3"):
        opened(two, restored, 0, reference_channel=3)


def test_a_store_of_other_voxels_is_refused(make_store, restored, tmp_path):
    other = make_store(channels(1), voxel_size=(1.0, 0.5, 0.5)).path
    with pytest.raises(InputError, match=r"1 × 0\.5 × 0\.5 µm along z, y, x"):
        opened(other, restored, 0)
    # A source may not know its voxel size.
    tifffile.imwrite(tmp_path / "truth.tif", channels(1)[0], photometric="minisblack")
    assert opened(tmp_path / "truth.tif", restored, 0).channel == 0


def test_voxels_of_another_view_are_turned_with_it(make_store):
    made = make_store(np.zeros((12, 14, 10), np.uint16), voxel_size=(0.4, 0.5, 0.5))
    side = make_store(np.zeros((14, 12, 10), np.uint16), voxel_size=(0.5, 0.4, 0.5)).path
    assert opened(side, made, 0, reference_axes="y,-z,x").channel == 0


def test_what_is_for_a_reference_is_refused_without_one():
    for given in ({"rois": 30}, {"reference_channel": 0}, {"roi": ("5:6,:,:",)}):
        with pytest.raises(ValidationError, match="is for a reference; give one too"):
            EvaluateSettings(**given)
        EvaluateSettings(reference="truth.tif", **given)
    settings = EvaluateSettings()
    assert EvaluateSettings.model_validate_json(settings.model_dump_json()) == settings


def test_the_command_refuses_sections_without_a_reference(isosr, restored, capsys):
    assert isosr("evaluate", restored.path, restored.path, "--rois", 30) == 2
    assert "is for a reference; give one too" in capsys.readouterr().err
