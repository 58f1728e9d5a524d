from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from isosr_pipeline.errors import InputError
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.isotropic import IsotropicView
from isosr_pipeline.settings import RestoreSettings

ORIGIN = (0.0, 100.0, 0.0)


@pytest.fixture
def view(make_store):
    """20 planes 1.5 µm apart: 58 isotropic ones of 0.5 µm."""
    return IsotropicView(make_store(np.zeros((20, 30, 40), np.uint8), voxel_size=(1.5, 0.5, 0.5)))


@pytest.mark.parametrize(
    ("text", "start", "stop"),
    [
        ("3:10,0:30,5:6", (3, 0, 5), (10, 30, 6)),
        (":,:,:", (0, 0, 0), (58, 30, 40)),
        (" 4: , :7, : ", (4, 0, 0), (58, 7, 40)),
        ("1:2.5,100:115,:um", (2, 0, 0), (5, 30, 40)),
        ("0.9:2.6,:101µm".replace("101µm", "101,:µm"), (2, 0, 0), (6, 2, 40)),
    ],
)
def test_voxels_and_micrometres(view, text, start, stop):
    roi = RestoreSettings(roi=text).roi
    assert roi.box(view, ORIGIN) == Box(Zyx(*start), Zyx(*stop))
    assert RestoreSettings(roi=str(roi)).roi == roi


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("1:2,3:4", "three ranges"),
        ("1:2,3:4,5", "'5' is no range"),
        ("a:2,:,:", "no range of numbers"),
        ("nan:2,:,:", "no range of numbers"),
        ("5:5,:,:", "z 5:5 is empty"),
        (":,-1:5,:", "y -1 is no voxel"),
        (":,:,0.5:5", "x 0.5 is no voxel"),
    ],
)
def test_what_is_no_region_is_refused(text, rule):
    with pytest.raises(ValidationError, match=rule):
        RestoreSettings(roi=text)


@pytest.mark.parametrize("text", ["0:59,:,:", "58:,:,:", ":,0:90,:um", ":,:,:-1um"])
def test_what_reaches_beyond_the_volume_is_refused(view, text):
    roi = RestoreSettings(roi=text).roi
    with pytest.raises(InputError, match=r"roi is .*: along [zyx] that is voxel"):
        roi.box(view, ORIGIN)


@given(
    size=st.sampled_from([0.26, 0.1, 0.325, 1.3]),
    first=st.sampled_from([0.0, 97.5, -12.34]),
    voxel=st.integers(0, 2998),
)
def test_the_position_of_a_voxel_is_that_voxel(size, first, voxel):
    class Long:
        shape, voxel_size = Zyx(3000, 1, 1), (size, size, size)

    position = first + voxel * size
    roi = RestoreSettings(roi=f"{position!r}:,:,:um").roi
    assert roi.box(Long(), (first, first, first)).start.z == voxel
