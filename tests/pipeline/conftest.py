"""What several files of tests of the pipeline share."""

from __future__ import annotations

import pytest

from isosr_models.ot_cyclegan import OTCycleGAN


@pytest.fixture
def steps(monkeypatch):
    """Record for each step whether it was one with frozen normalisation."""
    taken: list[bool] = []
    step = OTCycleGAN.step

    def recorded(self, crops):
        taken.append(self.norm_frozen)
        return step(self, crops)

    monkeypatch.setattr(OTCycleGAN, "step", recorded)
    return taken
