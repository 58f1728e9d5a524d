from __future__ import annotations

import pytest
from pydantic import ValidationError

from isosr_pipeline.brain import Brain
from isosr_pipeline.explaining import explain
from isosr_pipeline.settings import (
    ConvertSettings,
    EvaluateSettings,
    RestoreSettings,
)
from isosr_pipeline.training.settings import TrainSettings


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (RestoreSettings, {"window": "0,inf"}, "window: .*finite"),
        (RestoreSettings, {"window": "nan,1"}, "window: .*finite"),
        (RestoreSettings, {"window": "0,1e300"}, "window: give numbers within"),
        (RestoreSettings, {"window": [0, 1e-40]}, "window: .* apart"),
        (RestoreSettings, {"halo": 100_000}, "halo: .*512"),
        (ConvertSettings, {"voxel_size": "inf"}, "voxel_size: .*finite"),
        (ConvertSettings, {"voxel_size": "1e30,1,1"}, "along z, and must be 0.0001 to 10000 µm"),
        (ConvertSettings, {"voxel_size": "1,1,1e-5"}, "along x, and must be"),
        (ConvertSettings, {"deskew": float("nan")}, "deskew: .*finite"),
        (TrainSettings, {"minutes": float("inf")}, "minutes: .*finite"),
        (TrainSettings, {"batch": 100_000}, "batch: .*1024"),
        (TrainSettings, {"width": 100_000}, "width: .*512"),
        (TrainSettings, {"loaders": 100_000}, "loaders: .*256"),
        (TrainSettings, {"seed": -1}, "seed: .*greater than or equal to 0"),
        (TrainSettings, {"seed": 2**64}, "seed: .*less than"),
        (
            TrainSettings,
            {"method": "deep-magic"},
            "method: choose .*ot-cyclegan.*'deep-magic'",
        ),
        (TrainSettings, {"method": 7}, "method: choose one of"),
        (TrainSettings, {"preset": ["cfm"]}, r"preset: .*'ot-lsm-brain'.*\['cfm'\]"),
        (TrainSettings, {"preset": {"cfm": 1}}, "preset: .*'cfm'"),
        (TrainSettings, {"itterations": 1}, "itterations: is not known; did you mean iterations"),
        (
            EvaluateSettings,
            {"xyzzy": 1},
            "xyzzy: is not known; known are reference, reference_axes",
        ),
        (Brain, {"source": "s", "output": "o", "train": 7}, "train: give keys below it, such as"),
        (Brain, {"source": 7, "output": "o"}, "source: give a path as text, not 7"),
        (Brain, {"source": "s"}, "output: is missing; add it"),
        (
            Brain,
            {"source": "s", "output": "o", "restore": {"hallo": 3}},
            r"restore\.hallo: is not known; did you mean halo\?",
        ),
    ],
)
def test_what_is_refused_is_explained_with_a_remedy(model, given, message):
    with pytest.raises(ValidationError) as found:
        model.model_validate(given)
    text = explain(found.value, model)
    assert pytest.raises(ValueError, match=message).matches(ValueError(text)), text
    assert "Input should be a valid dictionary" not in text


def test_long_values_are_cut():
    with pytest.raises(ValidationError) as found:
        ConvertSettings.model_validate({"time": "1" * 1000 + "x"})
    assert len(explain(found.value, ConvertSettings)) < 200
