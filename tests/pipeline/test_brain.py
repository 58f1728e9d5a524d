from __future__ import annotations

import pytest

from isosr_pipeline.brain import read_brain
from isosr_pipeline.errors import InputError, MissingInputError

TEXT = """
source: raw/slices
output: ${RESULTS}/brain7
convert: {voxel_size: [5, 2, 2]}
train: {width: 8, crop: 64, iterations: 10}
restore: {block: 120}
evaluate: {reference: truth.tif}
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS", "/scratch")
    path = tmp_path / "brain.yaml"
    path.write_text(TEXT)
    return path


def test_paths_are_relative_to_the_file_and_variables_expanded(file, tmp_path):
    brain = read_brain(file)
    assert brain.source == tmp_path / "raw/slices"
    assert str(brain.output) == "/scratch/brain7"
    assert brain.evaluate.reference == tmp_path / "truth.tif"
    assert brain.convert.voxel_size == (5, 2, 2)
    assert brain.train.crop == (64, 64, 64)
    assert brain.restore.block == (120, 120, 120)


def test_a_reference_may_name_an_array(file, tmp_path):
    file.write_text(TEXT.replace("truth.tif", "truth.h5::t0/s1"))
    assert read_brain(file).evaluate.reference == tmp_path / "truth.h5::t0/s1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("widht: 8", "widht: is not known; known are source"),
        ("workers: 0", "workers: Input should be greater than 0"),
        ("convert: {voxel_size: [5, 2]}", r"convert\.voxel_size: give one number, or three"),
        ("train: {widht: 8}", r"train\.widht: is not known; did you mean width"),
        ("train: 8", "train: give keys below it, such as method"),
        ("train: {window: [3, 1]}", "first number must be below"),
        ("model: ${NOT_SET}", "NOT_SET.* is not set"),
        ("x: [", "not valid YAML"),
        ("output: !!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)
def test_mistakes_are_named(file, change, message):
    key = change.split(":")[0]
    lines = [line for line in TEXT.splitlines() if not line.startswith(f"{key}:")]
    file.write_text("\n".join([*lines, change]))
    with pytest.raises(InputError, match=message):
        read_brain(file)


def test_no_file_or_no_keys(tmp_path):
    with pytest.raises(MissingInputError):
        read_brain(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(InputError, match=r"examples/brain\.yaml"):
        read_brain(tmp_path / "empty.yaml")
