"""What a plan tells: of each step, and of all together."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from isosr_models.precision import Precision
from isosr_pipeline.engine.regions import RegionPlan
from isosr_pipeline.steps.status import State, StepStatus
from isosr_pipeline.store.spec import VolumeSpec

Lengths = tuple[int, int, int]
"""Along z, y, x, in voxels."""


def described(
    path: Path, spec: VolumeSpec, regions: RegionPlan, status: StepStatus
) -> dict[str, Any]:
    """Return what a `StorePlan` tells.

    Parameters
    ----------
    path : Path
    spec : VolumeSpec
        Of the store.
    regions : RegionPlan
        How it is cut.
    status : StepStatus
        How far it has come.
    """
    passes = status.store.passes if status.store else []
    held = zip(regions.region, spec.shape[1:], strict=True)
    return {
        "path": str(path),
        "shape": spec.shape,
        "dtype": spec.dtype.name,
        "voxel_size": spec.voxel_size,
        "regions": len(regions.grids(spec)[0]),
        "regions_done": sum(one.done for one in passes if one.name == status.step),
        "region": tuple(min(lengths) for lengths in held),
        "shard": spec.shard,
        "chunk": spec.chunk,
        "files": spec.files,
        "bytes_written": spec.bytes,
    }


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StorePlan(_Model):
    """A store that is to be filled; bytes are uncompressed.

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
    bytes_written : int
        Of all levels: the disk space at most, as compression makes it less.
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
    bytes_written: int


class FillingPlan(StorePlan):
    """What filling a store takes; bytes are uncompressed.

    Attributes
    ----------
    bytes_read : int
        Of the input, and of levels that coarser ones are made from.
    memory : int
        Bytes that a worker needs, about, with its libraries.
    """

    bytes_read: int
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


class ComparingPlan(_Model):
    """What comparing a restored volume with the measured one takes.

    Attributes
    ----------
    blocks : int
        In all regions and channels.
    block, block_read : tuple of 3 ints
        The largest, in voxels of the restored volume, without halo and with it.
    halo : int
        Of the blur.
    bytes_read : int
        Of the restored volume and of measured planes, and of levels that coarser ones are made
        from.
    memory, memory_available : int
        Bytes that a worker needs, about, with its libraries, and those of the smallest worker.
    workers : int
        Of a SLURM site, as many as a run will have.
    rate : float
        Voxels of the restored volume that one of them compares in a second, from a measured block.
    seconds : float
        Of comparing what is left, estimated from that, with the places that are compared first.
    """

    blocks: int
    block: Lengths
    block_read: Lengths
    halo: int
    bytes_read: int
    memory: int
    memory_available: int
    workers: int
    rate: float
    seconds: float


class MapPlan(StorePlan):
    """What the trust map takes, whose voxels are cells.

    Attributes
    ----------
    channels : list of int
        Of the restored volume.
    cell : tuple of 3 ints
        In voxels of the restored volume, order z, y, x.
    blur : str
        What the restored volume will be blurred with.
    compare : ComparingPlan or None
        None where the blur is not known before the model is trained.
    """

    channels: list[int]
    cell: Lengths
    blur: str
    compare: ComparingPlan | None


class Plan(_Model):
    """What a run of a brain would do.

    Attributes
    ----------
    convert : FillingPlan or None
        None where the volume is complete.
    train : TrainPlan
    restore : RestorePlan or None
        None where it is complete.
    trust : MapPlan or None
        None where the map is complete, or none is made.
    no_trust : str
        Why none is made; empty: one is, or is complete.
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
    trust: MapPlan | None
    no_trust: str
    output: str
    disk: int
    disk_free: int
    warnings: list[str]
