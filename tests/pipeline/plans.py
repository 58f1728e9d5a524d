"""What tests of plans share: a brain, and its first steps."""

from __future__ import annotations

from isosr_models.model_folder import save_model
from isosr_models.unet import UNet3d
from isosr_pipeline.brain import read_brain
from isosr_pipeline.steps.convert import convert
from isosr_pipeline.trust.planning import Rates

STEPS = "isosr_pipeline.steps.plan"
RATE = 1e8
"""Multiply-adds a second of all workers."""

MAP_RATES = Rates(blurring=2e8, judging=1e7)

BRAIN = {
    "source": "blurred.tif",
    "output": "out",
    "convert": {"voxel_size": [2, 1, 1], "chunk": 16, "shard": 32},
    "train": {"width": 4, "crop": 32, "iterations": 3, "device": "cpu"},
    "restore": {
        "block": [24, 32, 32],
        "chunk": 16,
        "shard": 32,
        "device": "cpu",
        "precision": "32",
    },
}


def make_volume(tmp_path, cluster):
    brain = read_brain(tmp_path / "brain.yaml")
    convert(brain.source, brain.store, brain.convert, cluster)
    return brain


def make_model(brain):
    network = UNet3d(4, residual=True)
    percentiles = (0.03, 99.97)
    save_model(
        brain.trained_model,
        {"generator": network},
        method="ot-cyclegan",
        window_percentiles=percentiles,
        training={},
    )
