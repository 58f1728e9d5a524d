"""Parameters of the steps: one set of models for the command line and for brain files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
)

from isosr_pipeline.geometry import AXES
from isosr_pipeline.roi import Roi
from isosr_pipeline.store.intensity import CONFOCAL
from isosr_pipeline.store.multiscale import voxel_size_problem
from isosr_pipeline.store.spec import Ngff

DEFAULT_CHUNK = (64, 64, 64)
MAX_HALO = 512
_NARROWEST, _WIDEST = 1e-30, 1e30


Value = TypeVar("Value")


def _three(value: Any) -> Any:
    """Accept one number for all three axes, and text such as ``"5,2,2"``."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
        value = value[0] if len(value) == 1 else value
    if not isinstance(value, Sequence) or isinstance(value, str):
        return (value, value, value)
    if len(value) != 3:
        raise ValueError("give one number, or three for z, y, x")
    return tuple(value)


Lengths = Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], BeforeValidator(_three)]
"""Voxels along z, y, x: ``"64"``, ``"64,128,128"``, 64, or a list of three."""


def _usable(value: tuple[float, float, float]) -> tuple[float, float, float]:
    if problem := voxel_size_problem(value):
        raise ValueError(problem)
    return value


VoxelSize = Annotated[
    tuple[PositiveFloat, PositiveFloat, PositiveFloat],
    BeforeValidator(_three),
    AfterValidator(_usable),
]
"""µm along z, y, x: ``"2"``, ``"5,2,2"``, 2.0, or a list of three."""


def _listed(value: Any) -> Any:
    """Accept one number, and text such as ``"0,2"``."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return value if isinstance(value, Sequence) else (value,)


Channels = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), BeforeValidator(_listed)]
"""Numbers of channels: ``"0"``, ``"0,2"``, 0, or a list."""


def _two(value: Any) -> Any:
    """Accept text such as ``"100,4000"``."""
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(parts, Sequence) or len(parts) != 2:
        raise ValueError("give two numbers, LOW,HIGH")
    return tuple(parts)


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        raise ValueError("the first number must be below the second")
    # Intensities are float32, in which the rest would be no window.
    if max(map(abs, value)) > _WIDEST or value[1] - value[0] < _NARROWEST:
        raise ValueError(f"give numbers within ±{_WIDEST:g} that are at least {_NARROWEST:g} apart")
    return value


Range = Annotated[tuple[float, float], BeforeValidator(_two), AfterValidator(_rising)]
"""Lowest and highest intensity: ``"100,4000"`` or a list of two."""


def _tilted(value: float) -> float:
    if not 0 < abs(value) < 90:
        raise ValueError("give an angle between 0 and 90 degrees, or between -90 and 0")
    return value


Tilt = Annotated[float, AfterValidator(_tilted)]
"""Angle of a light sheet in degrees."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Where random numbers start from."""

Device = Literal["auto", "cpu", "cuda"]


def _axis_order(value: str) -> str:
    parts = [part.strip() for part in value.split(",")]
    if sorted(part.removeprefix("-") for part in parts) != sorted(AXES):
        raise ValueError(
            "name the axes of the reference that run along z, y and x, each once, with a minus "
            "where one runs the other way, such as y,-z,x"
        )
    return ",".join(parts)


AxisOrder = Annotated[str, AfterValidator(_axis_order)]
"""Axes of another image that run along z, y, x, reversed after a minus: ``"y,-z,x"``."""


def as_text(value: Any) -> Any:
    """Accept the number where a brain file has one: 3 and 3.0 as well as ``"3"``."""
    return f"{value:g}" if isinstance(value, int | float) else value


Precision = Annotated[Literal["auto", "32", "bf16"], BeforeValidator(as_text)]
"""Of forward passes in training: float32, or bfloat16 where it does no harm."""

IfExists = Literal["refuse", "resume", "overwrite"]
"""What a step does with an output that is there already."""


class Settings(BaseModel):
    """Base of all parameters: fixed; unknown names and numbers that are not finite are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of parameters that are known here."""
        return list(cls.model_fields)


class ConvertSettings(Settings):
    """Parameters of ``convert``.

    Attributes
    ----------
    voxel_size : tuple of 3 floats or None
        In µm, order z, y, x; None: as the source says.
    time : int or None
        Time point of a series, from 0; None: there is only one.
    channel_pattern : str or None
        Glob of the sub-folders that are the channels of a folder; None: it holds the slices.
    channel : tuple of int or None
        Numbers of the channels to keep, from 0, in this order; None: all.
    chunk : tuple of 3 ints
        What is compressed together, in voxels.
    shard : tuple of 3 ints or None
        What is one file, in voxels; None: chosen from the shape.
    median : int or None
        Radius of a median filter in each acquired plane, in voxels; None: no filter.
    deskew : float or None
        Angle in degrees between a tilted light sheet and the scan along z; None: not tilted.
    rotate : bool
        Turn the deskewed volume into the sample's axes.
    isotropic : bool
        Store isotropic voxels, with z resampled linearly.
    ngff : {"0.5", "0.4"}
        Version of OME-Zarr; 0.4 is Zarr v2 without shards, for older tools.
    """

    voxel_size: VoxelSize | None = None
    time: NonNegativeInt | None = None
    channel_pattern: str | None = None
    channel: Channels | None = None
    chunk: Lengths = DEFAULT_CHUNK
    shard: Lengths | None = None
    median: Annotated[int, Field(gt=0, le=64)] | None = None
    deskew: Tilt | None = None
    rotate: bool = False
    isotropic: bool = False
    ngff: Ngff = "0.5"

    @field_validator("rotate")
    @classmethod
    def _deskewed(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("deskew", 0.0) is None:
            raise ValueError("needs deskew, the angle of the light sheet; give it too")
        return value


class RestoreSettings(Settings):
    """Parameters of ``restore``.

    Attributes
    ----------
    scheme : {"exact", "paper"}
        Blocks with a halo and frozen normalisation, or as in the publication.
    block : tuple of 3 ints or "auto"
        Voxels that the network gives at once; "auto": what fits the memory.
    halo : int or None
        Voxels of context on each side of a block; None: the network's receptive field.
    precision : {"auto", "32", "bf16"}
        Of the convolutions; "auto": bf16 where all workers compute in it natively.
    roi : RegionOfInterest or None
        The part that is restored; None: all.
    channel : tuple of ints or None
        The channels that are restored; None: all.
    skip_empty : bool
        Pass through, resampled, where nothing exceeds the floor.
    floor : float or None
        For `skip_empty`, in the units of the volume; None: the window's lower end.
    chunk : tuple of 3 ints
        Of the output, in voxels.
    shard : tuple of 3 ints or None
        Of the output, in voxels: one region; None: chosen from the shape.
    window : tuple of 2 floats or None
        Intensities that are 0 and 1; None: as in training, a window or its percentiles.
    device : {"auto", "cpu", "cuda"}
    timeout : float
        Minutes that a region may take, before it is given to another worker.
    """

    scheme: Literal["exact", "paper"] = "exact"
    block: Lengths | Literal["auto"] = "auto"
    halo: Annotated[int, Field(ge=0, le=MAX_HALO)] | None = None
    precision: Precision = "auto"
    roi: Roi | None = None
    channel: Channels | None = None
    skip_empty: bool = False
    floor: float | None = None
    chunk: Lengths = DEFAULT_CHUNK
    shard: Lengths | None = None
    window: Range | None = None
    device: Device = "auto"
    timeout: PositiveFloat = 60.0


def _for_reference(value: Value, info: ValidationInfo) -> Value:
    is_given = value is not None and value != ()
    if is_given and info.data.get("reference", "") is None:
        raise ValueError("is for a reference; give one too")
    return value


_ROIS = 120
"""Sections that are drawn unless another number is given."""


def _rois_for_reference(value: int, info: ValidationInfo) -> int:
    # Results hold the default, also those without a reference.
    return value if value == _ROIS else _for_reference(value, info)


class EvaluateSettings(Settings):
    """Parameters of ``evaluate``.

    Attributes
    ----------
    reference : Path or None
        An OME-Zarr store or a source, such as ``truth.h5::array``, with the truth, on the grid of
        the restored volume.
    reference_axes : str or None
        Axes of the reference that run along z, y, x of the restored volume, where it shows the
        specimen from another side: ``"y,-z,x"``. None: z, y, x.
    reference_channel : int or None
        Of the reference. None: the channel of the source that was restored, or the only one.
    channel : int
        Of the restored volume.
    roi : tuple of RegionOfInterest
        Sections of the restored volume in which it is compared with the reference; none: they are
        drawn.
    rois : int
        How many are drawn.
    spots : bool
        Fit Gaussians to isolated bright spots.
    seed : int
        Of what is drawn.
    """

    reference: Path | None = None
    reference_axes: Annotated[AxisOrder | None, AfterValidator(_for_reference)] = None
    reference_channel: Annotated[NonNegativeInt | None, AfterValidator(_for_reference)] = None
    channel: int = Field(0, ge=0)
    roi: Annotated[tuple[Roi, ...], AfterValidator(_for_reference)] = ()
    rois: Annotated[int, Field(ge=3, le=3000), AfterValidator(_rois_for_reference)] = _ROIS
    spots: bool = False
    seed: Seed = 0


class TrustSettings(Settings):
    """Parameters of ``trust``.

    Attributes
    ----------
    channel : tuple of ints or None
        Channels of the restored volume that are looked at; None: all.
    cell : tuple of 3 ints or "auto"
        What is judged together, in voxels of the restored volume; "auto": 8, and along z as many
        as lie between two measured planes where these are more.
    axial_fwhm : float or None
        FWHM in µm of a Gaussian along z that is the blur; None: what the model knows.
    tolerance : float
        Share of the light above the background that may be too much or missing.
    threshold : float
        Standard deviations beyond which a cell is flagged.
    worst : int
        How many places are named.
    device : {"auto", "cpu", "cuda"}
    timeout : float
        Minutes that a region may take, before it is given to another worker.
    """

    channel: Channels | None = None
    cell: Lengths | Literal["auto"] = "auto"
    axial_fwhm: PositiveFloat | None = None
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.02
    threshold: PositiveFloat = 5.0
    worst: Annotated[int, Field(ge=0, le=1000)] = 20
    device: Device = "auto"
    timeout: PositiveFloat = 60.0


DEFAULT_PERCENTILES = CONFOCAL
"""Percentiles of the intensity window that models are trained with."""
