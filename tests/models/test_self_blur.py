from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage

from isosr_models.checkpoint import Progress, load_checkpoint, save_checkpoint
from isosr_models.configs import Degradation, SelfBlurConfig
from isosr_models.errors import DivergedError, ModelConfigError
from isosr_models.initial import start_from
from isosr_models.layers import calibrate
from isosr_models.methods import create_objective
from isosr_models.model_folder import load_restorer, read_description, save_model
from isosr_models.self_blur import SelfBlur
from isosr_models.slices import SliceNetwork
from isosr_models.unet2d import UNet2d

CPU = torch.device("cpu")
SMALL = {"width": 4, "planes": 2}
KNOWN = Degradation(square_x=4.0, square_y=6.0, error=0.2, noise_gain=0.0, noise_floor=1e-4)


def _crops(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.rand(2, 1, 16, 32, 32, generator=generator) for _ in range(count)]


def _objective(z_step: float = 1.0, **change: object) -> SelfBlur:
    torch.manual_seed(0)
    parameters = {**SMALL, **change, "degradation": KNOWN}
    objective = create_objective("self-blur", parameters, CPU, z_step)
    assert isinstance(objective, SelfBlur)
    return objective


def _save(folder: Path, network: SliceNetwork) -> None:
    save_model(
        folder,
        {"generator": network},
        method="self-blur",
        window_percentiles=(0.03, 99.97),
        training={},
    )


def _stacks(objective: SelfBlur, planes: int) -> list[torch.Tensor]:
    """Return a list of what the network will be given in steps of so many planes.

    It is also given slices of crops that are restored, more of them at once.
    """
    found: list[torch.Tensor] = []

    def keep(_module: object, given: tuple[torch.Tensor]) -> None:
        if len(given[0]) == planes:
            found.append(given[0])

    objective.restorer.plane.register_forward_pre_hook(keep)
    return found


def test_the_network_begins_as_the_identity_also_above_the_window():
    plane = 5 * torch.rand(2, 1, 32, 36)
    assert torch.equal(UNet2d(4)(plane), plane)
    with pytest.raises(ModelConfigError, match="width is 0"):
        UNet2d(0)


def test_models_of_before_see_no_neighbours_and_others_are_not_begun_from_them(tmp_path):
    network = SliceNetwork(UNet2d(3))
    _save(tmp_path, network)
    path = tmp_path / "model.json"
    record = json.loads(path.read_text())
    assert record["network"].pop("neighbours") == 0
    path.write_text(json.dumps(record))
    volume = torch.rand(1, 1, 48, 48, 48)
    restored = load_restorer(tmp_path)(volume, (slice(24, 25),) * 3)
    with torch.no_grad():
        assert torch.allclose(restored, network(volume)[:, :, 24:25, 24:25, 24:25], atol=1e-6)
    objective = _objective(width=3)
    with pytest.raises(ModelConfigError, match="neighbours is 2 here and 0 there"):
        start_from(objective, tmp_path, {"method": "self-blur", "width": 3, "neighbours": 2})
    for neighbours in (-1, 5):
        with pytest.raises(ValidationError, match="neighbours"):
            SelfBlurConfig(neighbours=neighbours)
    with pytest.raises(ModelConfigError, match="neighbours is -1"):
        UNet2d(3, neighbours=-1)


def test_the_receptive_field_reaches_23_voxels_and_no_further():
    """Measured by gradients, with nothing in the way of any path; by places in a pooling cell."""
    torch.manual_seed(0)
    network = UNet2d(2).double()
    torch.nn.init.normal_(network.head.weight)
    network.pool = torch.nn.AvgPool2d(2)
    for module in list(network.modules()):
        if isinstance(module, torch.nn.Sequential):
            module[1] = module[3] = torch.nn.Identity()
    reaches = []
    for position in range(28, 32):
        plane = torch.rand((1, 1, 64, 8), dtype=torch.double, requires_grad=True)
        network(plane)[0, 0, position, 4].backward()
        reached = plane.grad[0, 0].abs().amax(dim=1).nonzero().flatten()
        reaches.append(max(position - int(reached[0]), int(reached[-1]) - position))
    assert max(reaches) == UNet2d.receptive_radius == 23
    assert min(reaches) > 16


def test_a_model_folder_says_how_its_network_is_built(tmp_path):
    network = SliceNetwork(UNet2d(3, neighbours=1))
    torch.nn.init.normal_(network.plane.head.weight)
    _save(tmp_path, network)
    description = read_description(tmp_path)
    expected = {"kind": "slice-unet2d", "width": 3, "neighbours": 1}
    assert description.network.model_dump() == expected
    assert str(description.network) == (
        "2D U-Net of width 3 on XZ and YZ slices, 2 neighbours each"
    )
    restorer = load_restorer(tmp_path)
    assert (
        (restorer.halo, restorer.stride)
        == (23, 4)
        == (
            description.network.receptive_radius,
            description.network.stride,
        )
    )
    assert restorer.normalised
    assert not restorer.saturates
    block, keep = torch.rand(1, 1, 56, 60, 64), (slice(24, 30), slice(24, 36), slice(23, 41))
    with torch.no_grad():
        expected = network(block)[:, :, *keep]
    assert torch.allclose(restorer(block, keep), expected, atol=1e-5)


def test_steps_make_planes_sharper():
    """Discs that are blurred along one axis: the network comes nearer to them."""
    rng = np.random.default_rng(0)
    voxels = ndimage.gaussian_filter((rng.random((16, 48, 48)) < 0.01).astype(float), (0, 1, 1))
    crops = torch.from_numpy(10 * voxels).float()[None, None]
    objective = _objective(width=8, learning_rate=3e-3, planes=4)
    losses = [objective.step(crops)["restoration"] for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
    given, restored, added = objective.contrast()
    assert restored > given
    assert added > 0


def test_the_learning_rate_falls_in_the_last_half_to_a_hundredth():
    objective = _objective(learning_rate=1e-3)
    rates = []
    for share in (0.0, 0.5, 0.75, 1.0, 1.5):
        objective.set_share(share)
        rates.append(objective.optimisers()["adam"].param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 1e-5, 1e-5])


@pytest.mark.parametrize("z_step", [1.0, 2.5])
def test_it_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, z_step):
    crops = _crops(6)

    def steps(objective: SelfBlur, first: int, stop: int) -> None:
        for number in range(first, stop):
            objective.set_share(number / 6)
            objective.step(crops[number])

    straight = _objective(z_step)
    steps(straight, 0, 6)
    begun = _objective(z_step)
    steps(begun, 0, 3)
    save_checkpoint(tmp_path, begun, Progress(iterations=3, seconds=1.0, run={}))
    resumed = _objective(z_step)
    torch.rand(7)
    assert load_checkpoint(tmp_path, resumed).iterations == 3
    steps(resumed, 3, 6)
    for name, value in straight.restorer.state_dict().items():
        assert torch.equal(value, resumed.restorer.state_dict()[name])


def test_a_loss_that_is_not_finite_changes_nothing():
    objective = _objective()
    objective.step(_crops(1)[0])
    before = {k: v.clone() for k, v in objective.restorer.state_dict().items()}
    with pytest.raises(DivergedError, match="loss is nan"):
        objective.step(torch.full((1, 1, 16, 32, 32), float("nan")))
    for name, value in objective.restorer.state_dict().items():
        assert torch.equal(value, before[name])


def test_there_is_no_normalisation_to_freeze():
    objective = _objective()
    before = {k: v.clone() for k, v in objective.restorer.state_dict().items()}
    objective.freeze_norm([_crops(1)[0][:1]])
    objective.release_norm()
    calibrate(objective.restorer, [_crops(1)[0][:1]])
    assert not objective.norm_frozen
    for name, value in objective.restorer.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    "parameters",
    [SMALL, {**SMALL, "degradation": {"square_x": -1}}, {"degradation": KNOWN, "blur": "unet"}],
)
def test_a_degradation_is_needed_and_nothing_else_is_known(parameters):
    with pytest.raises(ValidationError):
        create_objective("self-blur", parameters, CPU)
    assert SelfBlurConfig().width == 16


def test_a_plane_is_blurred_with_its_neighbours_and_the_middle_one_is_wanted(monkeypatch):
    monkeypatch.setattr("isosr_models.self_blur.reflect_ends", lambda pair, *_: pair)
    monkeypatch.setattr("isosr_models.self_blur._GAINS", (1.0, 1.0))
    still = KNOWN.model_copy(update={"square_x": 0.0, "square_y": 0.0, "error": 0.0})
    silent = still.model_copy(update={"noise_floor": 0.0})
    torch.manual_seed(0)
    parameters = {**SMALL, "neighbours": 1, "degradation": silent}
    objective = create_objective("self-blur", parameters, CPU)
    objective.set_share(0.5)
    seen = _stacks(objective, SMALL["planes"])
    crop = torch.rand(16, 32, 32)
    for _ in range(5):
        objective.step(crop[None, None])
    stacks = torch.cat(seen)
    sides = set()
    for stack in stacks:
        turned = [side for side in (stack, stack.transpose(1, 2)) if _place(crop, side[1])]
        assert len(turned) == 1
        place = _place(crop, turned[0][1])
        assert [_place(crop, plane) for plane in turned[0]] == [place - 1, place, place + 1]
        sides.add(turned[0] is stack)
    assert sides == {True, False}
    given, _, _ = objective.contrast()
    assert given == pytest.approx(float(stacks[-SMALL["planes"] :, 1].std()), rel=1e-5)


def _place(crop: torch.Tensor, plane: torch.Tensor) -> int | None:
    """Return which plane of a crop it is; a network that has learned little changes it little."""
    distances = (crop - plane).abs().mean(dim=(1, 2))
    return int(distances.argmin()) if distances.min() < 0.1 else None


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_half_of_what_it_learns_from_ends_as_volumes_do(share):
    """At a border, where a volume is reflected, there is light from beyond it."""
    objective = _objective(planes=3)
    objective.set_share(share)
    seen = _stacks(objective, 3)
    for _ in range(60):
        objective.step(torch.rand(1, 1, 16, 32, 32))
    planes = torch.cat(seen)[:, 2]

    def reflected(plane: torch.Tensor) -> bool:
        lines = (plane, plane.flip(0))
        return any(
            torch.equal(line[:at], line[at + 1 : 2 * at + 1].flip(0))
            for line in lines
            for at in range(1, 8)
        )

    for turned in (planes, planes.transpose(1, 2)):
        share = np.mean([reflected(plane) for plane in turned])
        assert share == pytest.approx(0.5 * 7 / 8, abs=0.12)
