"""Parameters of ``train``: what all methods share, and a class for each with its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from isosr_models.configs import (
    OTCycleGANConfig,
    RichardsonLucyConfig,
    SelfBlurConfig,
    SelfNetConfig,
)
from isosr_pipeline.settings import (
    Device,
    Lengths,
    Precision,
    Range,
    Seed,
    Settings,
    VoxelSize,
    as_text,
)
from isosr_pipeline.store.intensity import CONFOCAL, LIGHT_SHEET

MAX_BATCH = 1024
MAX_LOADERS = 256
MAX_DEVICES = 64
DEFAULT_METHOD = "ot-cyclegan"

Percentiles = Annotated[Literal["0.03", "3"], BeforeValidator(as_text)]
"""Which of the recorded intensity windows: 0.03 to 99.97 %, or 3 to 97 %."""

Preset = Literal["cfm", "ot-lsm-brain", "ot-lsm-beads"]

PRESETS: dict[str, dict[str, Any]] = {
    "cfm": {"crop": 144, "percentiles": "0.03", "rotations": True, "blur": "deep-linear"},
    "ot-lsm-brain": {"crop": 132, "percentiles": "3", "blur": "unet"},
    "ot-lsm-beads": {"crop": 100, "percentiles": "3", "blur": "deep-linear"},
}
"""What the publication trained with on confocal volumes, light-sheet brains, and beads in one."""

Sampling = Literal["foreground", "uniform"]
"""Where crops are taken from."""


class TrainSettings(Settings):
    """Parameters that all methods share; validated, they become those of their method.

    Attributes
    ----------
    method : str
        How the restorer is made.
    init : Path or None
        Folder of a trained model whose weights training starts from.
    iterations : int or None
        Steps of training.
    minutes : float or None
        Stop after this time instead, whichever comes first.
    crop : tuple of 3 ints
        Voxels of the isotropic grid in a crop.
    sampling : {"foreground", "uniform"}
        Where crops are taken from: mostly where something is seen, or everywhere alike.
    rotations : bool
        Turn crops about z by random quarter turns, besides flipping them.
    batch : int
        Crops a step; 1 in the publication.
    window : tuple of 2 floats or None
        Intensities that are 0 and 1; None: those of `percentiles`.
    percentiles : {"0.03", "3"}
        The recorded window that is 0 and 1: 0.03 to 99.97 %, or 3 to 97 %.
    loaders : int
        Processes that read crops ahead; 0: crops are read between steps.
    threads : int or None
        Of the processor, for the networks; None: one a core. Small networks gain little from more
        than one, and threads that wait for a busy core slow each other down.
    preview_every : int
        Steps between two pictures of the same crops before and after; 0: none.
    tensorboard : bool
        Write losses and pictures for TensorBoard too.
    seed : int
        Of crops, weights and planes.
    device : {"auto", "cpu", "cuda"}
    devices : int
        GPUs, or processes on the CPU, that share the training; each has a batch of its own.
    precision : {"auto", "32", "bf16"}
        "auto": bf16 on GPUs that have it, 32 elsewhere.
    """

    config: ClassVar[type[BaseModel]]
    """Parameters of the method itself."""
    meaningless: ClassVar[frozenset[str]] = frozenset()
    """Names of the shared parameters that mean nothing for the method."""

    method: str = DEFAULT_METHOD
    init: Path | None = None
    iterations: PositiveInt | None = None
    minutes: PositiveFloat | None = None
    crop: Lengths = (144, 144, 144)
    sampling: Sampling = "foreground"
    rotations: bool = False
    batch: int = Field(1, ge=1, le=MAX_BATCH)
    window: Range | None = None
    percentiles: Percentiles = "0.03"
    loaders: int = Field(0, ge=0, le=MAX_LOADERS)
    threads: PositiveInt | None = None
    preview_every: NonNegativeInt = 500
    tensorboard: bool = False
    seed: Seed = 0
    device: Device = "auto"
    devices: int = Field(1, ge=1, le=MAX_DEVICES)
    precision: Precision = "auto"

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_method(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if cls is not TrainSettings or not isinstance(given, dict):
            return handler(given)
        name = given.get("method", DEFAULT_METHOD)
        if not isinstance(name, str) or name not in METHODS:
            raise _refused({"method": (f"choose one of {', '.join(METHODS)}", name)})
        chosen = METHODS[name]
        foreign = {
            key: (f"{name} has no such parameter; it is one of {_owners(key)}", value)
            for key, value in given.items()
            if key not in chosen.model_fields and _owners(key)
        }
        if foreign:
            raise _refused(foreign)
        return chosen.model_validate(given)  # type: ignore[return-value]

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the parameters of all methods, where the method isn't known."""
        if cls is not TrainSettings:
            return super().names()
        return list(dict.fromkeys(name for one in METHODS.values() for name in one.model_fields))

    @field_validator("rotations")
    @classmethod
    def _square(cls, value: bool, info: ValidationInfo) -> bool:
        _, y, x = info.data.get("crop", (1, 1, 1))
        if value and y != x:
            raise ValueError("needs crops as long along y as along x; give such a crop too")
        return value

    @property
    def window_percentiles(self) -> tuple[float, float]:
        """The percentiles that are 0 and 1 to the networks."""
        return CONFOCAL if self.percentiles == "0.03" else LIGHT_SHEET

    @property
    def late_share(self) -> float:
        """Share of the training, at its end, in which normalisation is frozen."""
        return 0.0

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the method itself."""
        return self.model_dump(include=set(self.config.model_fields))


class OTCycleGANSettings(TrainSettings, OTCycleGANConfig):
    """Parameters of the method ``ot-cyclegan``: those of `OTCycleGANConfig`, and of its training.

    Attributes
    ----------
    preset : {"cfm", "ot-lsm-brain", "ot-lsm-beads"} or None
        Parameters of the publication, see `PRESETS`; those that are given themselves come first.
    freeze_norm : float
        Share of the training, at its end, in which normalisation is frozen; 0: none.
    compile : bool
        Compile the generators; where that fails they are run as they are.
    """

    config: ClassVar = OTCycleGANConfig

    method: Literal["ot-cyclegan"] = "ot-cyclegan"
    preset: Preset | None = None
    freeze_norm: float = Field(0.0, ge=0, lt=1)
    compile: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: Any) -> Any:
        preset = given.get("preset") if isinstance(given, dict) else None
        # Whatever else a brain file has there is refused with the other fields.
        if isinstance(preset, str) and preset in PRESETS:
            return {**PRESETS[preset], **given}
        return given

    @property
    def late_share(self) -> float:
        """See `TrainSettings`."""
        return self.freeze_norm


class SelfBlurSettings(TrainSettings, SelfBlurConfig):
    """Parameters of the method ``self-blur``: those of `SelfBlurConfig`, and of its training.

    Attributes
    ----------
    crop : tuple of 3 ints
        As long along y as along x, as planes are turned.
    axial_fwhm : float or None
        FWHM in µm of the blur that is left along z when the lateral one is taken off; None: it is
        told from the volumes.
    """

    config: ClassVar = SelfBlurConfig

    method: Literal["self-blur"] = "self-blur"
    crop: Lengths = (32, 96, 96)
    axial_fwhm: PositiveFloat | None = None

    @field_validator("crop")
    @classmethod
    def _turnable(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        if value[1] != value[2]:
            raise ValueError("must be as long along y as along x for self-blur; give such a crop")
        return value


_OF_LEARNING = (
    *("init", "minutes", "crop", "sampling", "rotations", "batch", "loaders", "threads"),
    *("preview_every", "tensorboard", "seed", "devices", "precision"),
)


class RichardsonLucySettings(TrainSettings, RichardsonLucyConfig):
    """Parameters of the method ``richardson-lucy``, for which nothing is trained.

    Of those that all methods share, the window and its percentiles count, and `iterations`, which
    are those of Richardson and Lucy. `device` is of no account, as chains of jobs give it to all.
    """

    config: ClassVar = RichardsonLucyConfig
    meaningless: ClassVar = frozenset(_OF_LEARNING)

    method: Literal["richardson-lucy"] = "richardson-lucy"
    iterations: int = Field(10, ge=1, le=1000)
    psf_voxel_size: VoxelSize | None = None

    @field_validator(*_OF_LEARNING)
    @classmethod
    def _not_learned(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        # What a file that was written by the program has there.
        if value != cls.model_fields[name].default:
            raise ValueError("richardson-lucy trains nothing, for which this means nothing")
        return value

    @model_validator(mode="after")
    def _one_psf(self) -> Self:
        if self.psf is None and self.axial_fwhm is None:
            text = (
                "richardson-lucy needs the PSF; give --axial-fwhm UM or --psf PSF.tif, in a brain "
                "file axial_fwhm or psf"
            )
            raise _refused({"axial_fwhm": (text, None)})
        if self.psf is not None and (self.axial_fwhm is not None or self.lateral_fwhm):
            raise _refused({"psf": ("is given besides a width; give one of them", str(self.psf))})
        if self.psf is None and self.psf_voxel_size is not None:
            text = "is that of psf, which is not given; leave it out"
            raise _refused({"psf_voxel_size": (text, self.psf_voxel_size)})
        if self.axial_fwhm is not None and self.axial_fwhm < self.lateral_fwhm:
            text = f"the PSF is longest along z, and lateral_fwhm is {self.lateral_fwhm:g}"
            raise _refused({"axial_fwhm": (text, self.axial_fwhm)})
        return self


class SelfNetSettings(TrainSettings, SelfNetConfig):
    """Parameters of the method ``self-net``: those of `SelfNetConfig`, and of all trainings."""

    config: ClassVar = SelfNetConfig

    method: Literal["self-net"] = "self-net"

    @model_validator(mode="after")
    def _held(self) -> Self:
        if self.patch > min(self.crop):
            text = f"is cut from crops, whose shortest side is {min(self.crop)}; give at most that"
            raise _refused({"patch": (f"{text}, or larger crops", self.patch)})
        return self


METHODS: dict[str, type[TrainSettings]] = {
    "ot-cyclegan": OTCycleGANSettings,
    "self-blur": SelfBlurSettings,
    "richardson-lucy": RichardsonLucySettings,
    "self-net": SelfNetSettings,
}
"""The methods that can be trained, and their parameters."""


def _owners(name: str) -> str:
    """Return the methods that have a parameter, as text."""
    return " and ".join(key for key, one in METHODS.items() if name in one.model_fields)


def _refused(problems: dict[str, tuple[str, Any]]) -> ValidationError:
    """Return an error that says what is wrong with each parameter, and its value."""
    return ValidationError.from_exception_data(
        TrainSettings.__name__,
        [
            InitErrorDetails(
                type=PydanticCustomError("method", "{text}", {"text": text}),
                loc=(name,),
                input=value,
            )
            for name, (text, value) in problems.items()
        ],
    )
