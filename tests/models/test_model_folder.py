from __future__ import annotations

import json

import pytest
import torch

from isosr_models.architectures import UNet3dArchitecture
from isosr_models.errors import DivergedError, ModelFormatError
from isosr_models.model_folder import (
    DESCRIPTION,
    WEIGHTS,
    identity,
    load_restorer,
    read_description,
    read_run,
    save_model,
)
from isosr_models.restorers import NetworkRestorer, Restorer
from isosr_models.unet import UNet3d


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(3)
    save_model(
        tmp_path / "model",
        {"generator": UNet3d(4, residual=True)},
        method="ot-cyclegan",
        window_percentiles=(0.03, 99.97),
        training={"iterations": 7},
    )
    return tmp_path / "model"


def test_a_model_runs_as_it_was_saved(folder):
    torch.manual_seed(3)
    network = UNet3d(4, residual=True).eval()
    restorer = load_restorer(folder)
    assert isinstance(restorer, Restorer)
    assert (restorer.halo, restorer.stride) == (26, 4)
    assert restorer.normalised
    assert not restorer.saturates
    block, keep = torch.rand(1, 1, 64, 64, 64), (slice(28, 36),) * 3
    with torch.no_grad():
        expected = network(block)[:, :, *keep]
    assert torch.allclose(restorer(block, keep), expected, atol=1e-6)
    description = read_description(folder)
    assert description.training == {"iterations": 7}
    assert {p.name for p in folder.iterdir()} == {DESCRIPTION, WEIGHTS}


def test_block_statistics_depend_on_the_block(folder):
    torch.manual_seed(3)
    network = UNet3d(4, residual=True)
    torch.nn.init.normal_(network.head[0].weight)
    restorer = NetworkRestorer(network, "block", torch.device("cpu"))
    keep = (slice(28, 36),) * 3
    block = torch.rand(1, 1, 64, 64, 64)
    other = block.clone()
    other[..., :2] *= 3  # farther away than the receptive field reaches
    assert (restorer(block, keep) - restorer(other, keep)).abs().max() > 1e-3
    frozen = NetworkRestorer(network, "frozen", torch.device("cpu"))
    assert torch.equal(frozen(block, keep), frozen(other, keep))


def test_a_network_is_not_changed_by_its_restorer():
    network = UNet3d(4, residual=True).train()
    for statistics in ("frozen", "block"):
        NetworkRestorer(network, statistics, torch.device("cpu"))
        assert all(module.training for module in network.modules())


def test_what_a_training_was_begun_with_is_read_or_missed_by_name(folder):
    with pytest.raises(ModelFormatError, match=r"model\.json: training has no 'run'"):
        read_run(folder)
    description = json.loads((folder / DESCRIPTION).read_text())
    description["training"]["run"] = {"seed": 3}
    (folder / DESCRIPTION).write_text(json.dumps(description))
    assert read_run(folder) == {"seed": 3}


def test_the_identity_is_a_restorer():
    assert isinstance(identity(), Restorer)
    block = torch.rand(1, 1, 3, 4, 5)
    keep = (slice(1, 2), slice(0, 4), slice(2, 5))
    assert torch.equal(identity()(block, keep), block[:, :, 1:2, :, 2:])


def test_what_is_not_a_model_is_refused_with_a_remedy(folder, tmp_path):
    with pytest.raises(ModelFormatError, match=r"no model\.json"):
        load_restorer(tmp_path)
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelFormatError, match="copy the whole model folder"):
        load_restorer(folder)


def test_a_cut_or_altered_file_is_refused(folder):
    weights = (folder / WEIGHTS).read_bytes()
    for content in (weights[:-10], weights[:-1] + bytes([weights[-1] ^ 1])):
        (folder / WEIGHTS).write_bytes(content)
        with pytest.raises(ModelFormatError, match="cut short or altered"):
            load_restorer(folder)
    (folder / WEIGHTS).write_bytes(weights)
    text = (folder / DESCRIPTION).read_text()
    (folder / DESCRIPTION).write_text(text[:100])
    with pytest.raises(ModelFormatError, match="not valid JSON"):
        load_restorer(folder)


@pytest.mark.parametrize("change", [{"format": 3}, {"unknown": 1}, {"network": {"kind": "x"}}])
def test_other_versions_and_unknown_keys_are_refused(folder, change):
    description = json.loads((folder / DESCRIPTION).read_text())
    (folder / DESCRIPTION).write_text(json.dumps({**description, **change}))
    with pytest.raises(ModelFormatError, match="this program reads 1"):
        load_restorer(folder)


def test_weights_of_another_width_are_refused(folder):
    description = json.loads((folder / DESCRIPTION).read_text())
    description["network"]["width"] = 8
    (folder / DESCRIPTION).write_text(json.dumps(description))
    with pytest.raises(ModelFormatError, match=r"does not hold the 3D U-Net of width 8 of model"):
        load_restorer(folder)


def test_a_model_of_the_first_format_is_read(folder):
    description = json.loads((folder / DESCRIPTION).read_text())
    network = description.pop("network")
    del network["kind"]
    (folder / DESCRIPTION).write_text(json.dumps({**description, **network, "format": 1}))
    assert read_description(folder).network == UNet3dArchitecture(width=4, residual=True)
    assert load_restorer(folder).halo == UNet3d.receptive_radius


def test_only_a_generator_that_can_be_rebuilt_is_saved(tmp_path):
    with pytest.raises(ModelFormatError, match="generator is a Conv3d"):
        save_model(
            tmp_path / "m",
            {"generator": torch.nn.Conv3d(1, 1, 3)},
            method="x",
            window_percentiles=(0.0, 1.0),
            training={},
        )


def test_a_model_with_nan_is_not_saved(tmp_path):
    network = UNet3d(4)
    torch.nn.init.constant_(network.head[1].bias, float("nan"))
    with pytest.raises(DivergedError, match="not saved"):
        save_model(
            tmp_path / "m",
            {"generator": network},
            method="ot-cyclegan",
            window_percentiles=(0.0, 1.0),
            training={},
        )
    assert not (tmp_path / "m" / WEIGHTS).exists()


def test_no_folder_and_an_unfinished_training_are_told_apart(tmp_path):
    with pytest.raises(ModelFormatError, match="no such folder"):
        read_description(tmp_path / "gone")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "checkpoint.safetensors").write_bytes(b"")
    with pytest.raises(ModelFormatError, match="train with --resume"):
        read_description(tmp_path / "begun")
