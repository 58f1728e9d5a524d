"""The axial blur of a real light-sheet volume."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def found(data, tmp_path_factory):
    store = tmp_path_factory.mktemp("blur") / "cells.zarr"
    command = [sys.executable, "-m", "isosr_pipeline"]
    source = data / "brain_cells.n5"
    subprocess.run([*command, "convert", source, store], check=True, capture_output=True)
    shown = subprocess.run([*command, "psf", store, "--json"], check=True, capture_output=True)
    return json.loads(shown.stdout)


def test_cell_bodies_are_blurred_by_a_voxel_or_so(found):
    width = found["estimate"]["width"]
    low, high = width["sigma_voxels_interval"]
    assert 0.7 < low < high < 1.6
    assert found["estimate"]["depth"] == "same"
    assert found["warnings"]
