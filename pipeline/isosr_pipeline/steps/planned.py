"""What a plan tells: of each step, and of all together."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from isosr_models.precision import Precision
from isosr_pipeline.steps.status import State

Lengths = tuple[int, int, int]
"""Along z, y, x, in voxels."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FillingPlan(_Model):
    """What filling a store takes; bytes are uncompressed.

    Attributes
    ----------
    path : str
    shape : tuple of 4 ints
        c, z, y, x.
    dtype : str
    voxel_size : tuple of 3 floats
        In µm, order z, y, x.
    regions, regions_done : int
        Of the pass over the finest level.
    region, shard, chunk : tuple of 3 ints
        In voxels, order z, y, x; the largest.
    files : int
        With voxels, of all levels, at most.
    bytes_read : int
        Of the input, and of levels that coarser ones are made from.
    bytes_written : int
        Of all levels: the disk space at most, as compression makes it less.
    memory : int
        Bytes that a worker needs, about, with its libraries.
    """

    path: str
    shape: tuple[int, int, int, int]
    dtype: str
    voxel_size: tuple[float, float, float]
    regions: int
    regions_done: int
    region: Lengths
    shard: Lengths
    chunk: Lengths
    files: int
    bytes_read: int
    bytes_written: int
    memory: int


class TrainPlan(_Model):
    """What training will be.

    Attributes
    ----------
    path : str
        Of the model.
    state : {"not begun", "unfinished", "complete"}
    detail : str
        How far it has come.
    iterations : int or None
    minutes : float or None
        Whichever comes first ends it.
    method, network : str
    crop : tuple of 3 ints or None
        In voxels, order z, y, x; None: nothing is trained.
    """

    path: str
    state: State
    detail: str
    iterations: int | None
    minutes: float | None
    method: str
    network: str
    crop: Lengths | None


class RestorePlan(FillingPlan):
    """What restoring takes, besides what any filling does.

    Attributes
    ----------
    model : str or None
        The folder; None: it is not trained yet, and an untrained network was measured.
    channels : list of int
        Of the input.
    roi : tuple of 2 tuples of 3 ints or None
        Where a part starts and stops, in voxels of the isotropic grid; None: all is restored.
    scheme : {"exact", "paper"}
    precision : {"32", "bf16"}
    blocks : int
        In all regions and channels.
    block, block_read : tuple of 3 ints
        The largest, in voxels, without halo and with it.
    halo : int
    compute_redundancy : float
        Multiply-adds, over those of a network that needs no halo.
    read_redundancy : float
        Bytes of the chunks that are decoded, over those of what is restored.
    block_memory, block_memory_available : int
        Bytes that a block takes, on a GPU if there is one, and what it may take.
    on_gpu : bool
    memory_available : int
        Bytes of the smallest worker.
    workers : int
        Of a SLURM site, as many as a run will have.
    rate : float
        Voxels of the result that one of them computes in a second, from a measured block.
    seconds : float
        Of computing what is left, estimated from a measured block; all the volume's blocks, also
        if empty ones are to be skipped.
    skip_empty : bool
    """

    model: str | None
    channels: list[int]
    roi: tuple[Lengths, Lengths] | None
    scheme: Literal["exact", "paper"]
    precision: Precision
    blocks: int
    block: Lengths
    block_read: Lengths
    halo: int
    compute_redundancy: float
    read_redundancy: float
    block_memory: int
    block_memory_available: int
    on_gpu: bool
    memory_available: int
    workers: int
    rate: float
    seconds: float
    skip_empty: bool


class Plan(_Model):
    """What a run of a brain would do.

    Attributes
    ----------
    convert : FillingPlan or None
        None where the volume is complete.
    train : TrainPlan
    restore : RestorePlan or None
        None where it is complete.
    output : str
        The folder of all results.
    disk : int
        Bytes of what is to be written, uncompressed: the space at most.
    disk_free : int
        Bytes, on the file system of the output.
    warnings : list of str
    """

    convert: FillingPlan | None
    train: TrainPlan
    restore: RestorePlan | None
    output: str
    disk: int
    disk_free: int
    warnings: list[str]
