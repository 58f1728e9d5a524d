"""Pictures of what is being learned: the same crops, before and after, every so often."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isosr_models.layers import Statistics, use_statistics
from isosr_models.model_folder import write_durably
from isosr_models.volume_network import VolumeNetwork
from isosr_pipeline.training.crops import Crops

PREVIEWS = "previews"
MOST = 20
"""Pictures that are kept: the first, and the last ones."""

_STREAM = 2
_CROPS = 2
_GAP = 4


class Previews:
    """Draws the same crops each time: a row before and a row after, of XY, XZ and YZ planes.

    Drawing leaves the network, its statistics and all random numbers as they were, so that training
    is the same with and without it.

    Parameters
    ----------
    model : Path
        Folder of the model; pictures go into its ``previews``.
    crops : Crops
        Those of the training; previews have a series of their own from the same volumes.
    """

    def __init__(self, model: Path, crops: Crops) -> None:
        self._folder = model / PREVIEWS
        others = crops.of_stream(_STREAM)
        self._crops = [others.read(index, torch.device("cpu"))[None] for index in range(_CROPS)]

    def draw(
        self, network: VolumeNetwork, iteration: int, statistics: Statistics = "block"
    ) -> NDArray[np.uint8]:
        """Write ``NNNNNN.png``, named by the iteration, and remove what is too many.

        Parameters
        ----------
        network : VolumeNetwork
        iteration : int
        statistics : {"block", "frozen"}
            What is normalised by. Until they are frozen or calibrated, running statistics lag
            behind the weights.

        Returns
        -------
        ndarray, (height, width) uint8
            The window from black to white, for all planes alike; z downwards in XZ, rightwards in
            YZ.
        """
        # A copy, whose normalisation may be switched without a trace.
        network = copy.deepcopy(network)
        use_statistics(network, statistics)
        device = next(network.parameters()).device
        rows = []
        for crop in self._crops:
            with torch.no_grad():
                restored = network(crop.to(device)).float().cpu()
            rows += [_row(crop), _row(restored)]
        picture = _stack(rows, axis=0)
        self._folder.mkdir(exist_ok=True)
        write_durably(self._folder / f"{iteration:06d}.png", bytes(imagecodecs.png_encode(picture)))
        for path in find_previews(self._folder.parent)[1 : 1 - MOST]:
            path.unlink()
        return picture


def find_previews(model: Path) -> list[Path]:
    """Return the pictures in a model folder, the first one first."""
    found = [path for path in (model / PREVIEWS).glob("*.png") if path.stem.isdigit()]
    return sorted(found, key=lambda path: int(path.stem))


def remove_previews(model: Path) -> None:
    """Remove the pictures of an earlier training."""
    for path in find_previews(model):
        path.unlink()


def _row(volume: Tensor) -> NDArray[np.uint8]:
    """Return the middle planes of a volume, (1, 1, z, y, x), side by side as grey values."""
    voxels = np.nan_to_num(volume[0, 0].numpy()).clip(0, 1)
    z, y, x = (length // 2 for length in voxels.shape)
    planes = (voxels[z], voxels[:, y], voxels[:, :, x].T)
    return _stack([np.rint(255 * plane).astype(np.uint8) for plane in planes], axis=1)


def _stack(pictures: Sequence[NDArray[np.uint8]], axis: int) -> NDArray[np.uint8]:
    """Put pictures beside or below each other on black, with gaps of mid-grey."""
    across = max(picture.shape[1 - axis] for picture in pictures)
    parts: list[NDArray[np.uint8]] = []
    for picture in pictures:
        missing = [(0, 0), (0, 0)]
        missing[1 - axis] = (0, across - picture.shape[1 - axis])
        gap = np.full((across, _GAP) if axis else (_GAP, across), 128, np.uint8)
        parts += [np.pad(picture, missing), gap]
    return np.concatenate(parts[:-1], axis=axis)
