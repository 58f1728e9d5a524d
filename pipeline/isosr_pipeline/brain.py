"""Brain files: one volume's whole way, from source to evaluation, as YAML."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, PositiveInt, SerializeAsAny, Tag

from isosr_pipeline.settings import (
    ConvertSettings,
    Device,
    EvaluateSettings,
    RestoreSettings,
    Settings,
    TrustSettings,
)
from isosr_pipeline.site_files import is_site_file
from isosr_pipeline.training.settings import OTCycleGANSettings, TrainSettings
from isosr_pipeline.yaml_files import read_yaml

# Names of alternatives, which messages leave out.
_MAP, _NO_MAP = "[map]", "[no map]"


def _kind(value: Any) -> str:
    return _NO_MAP if value is False else _MAP


def _plain(value: Any) -> Any:
    if value is None:
        return False
    return {} if value is True else value


_Trust = Annotated[
    Annotated[TrustSettings, Tag(_MAP)] | Annotated[Literal[False], Tag(_NO_MAP)],
    Discriminator(_kind),
    BeforeValidator(_plain),
]


class Brain(Settings):
    """What a brain file holds; unknown keys are errors.

    Attributes
    ----------
    source : Path
        What to convert.
    output : Path
        Folder for all results.
    model : Path or None
        A trained model to use; None: train one on this volume.
    cluster : str
        ``"local"``, the address of a Dask scheduler, or a site file.
    workers : int or None
        Worker processes on this machine, or of the site; None: one a core or GPU, or as the site
        says.
    convert, train, restore, evaluate
        Parameters of the steps.
    trust : TrustSettings or False
        Parameters of the trust map, which the step evaluate makes too; False: none is made.
    """

    source: Path
    output: Path
    model: Path | None = None
    cluster: str = "local"
    workers: PositiveInt | None = None
    convert: ConvertSettings = Field(default_factory=ConvertSettings)
    train: SerializeAsAny[TrainSettings] = Field(default_factory=OTCycleGANSettings)
    restore: RestoreSettings = Field(default_factory=RestoreSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)
    trust: _Trust = Field(default_factory=TrustSettings)

    @property
    def store(self) -> Path:
        """The converted volume."""
        return self.output / "volume.zarr"

    @property
    def trained_model(self) -> Path:
        """The model that restores, given or trained here."""
        return self.model or self.output / "model"

    @property
    def restored(self) -> Path:
        """The restored volume."""
        return self.output / "restored.zarr"

    @property
    def logs(self) -> Path:
        """Folder for the logs of jobs on a cluster."""
        return self.output / "logs"

    @property
    def evaluation(self) -> Path:
        """The figures, as JSON."""
        return self.output / "evaluation.json"

    @property
    def trust_map(self) -> Path:
        """Where the restored volume does not explain the measured one."""
        return self.output / "restored.trust.zarr"

    @property
    def trust_summary(self) -> Path:
        """What the map comes to, or why there is none, as JSON."""
        return self.output / "trust.json"

    @property
    def trust_device(self) -> Device:
        """Where the trust map is made: where the volume is restored, unless it says."""
        own: Device = self.trust.device if self.trust else "auto"
        return self.restore.device if own == "auto" else own

    @property
    def report(self) -> Path:
        """The page that shows them."""
        return self.output / "report.html"

    def placed(self, cluster: str | None, workers: int | None) -> Brain:
        """Return the brain with its work elsewhere, or in another number of processes.

        Parameters
        ----------
        cluster : str or None
            None: where the brain says.
        workers : int or None
            None: as many as the brain says, unless `cluster` is given.
        """
        if cluster is None and workers is None:
            return self
        if cluster is None:
            return self.model_copy(update={"workers": workers})
        return self.model_copy(update={"cluster": cluster, "workers": workers})


def read_brain(path: Path, variables: Mapping[str, str] | None = None) -> Brain:
    """Read a brain file.

    Parameters
    ----------
    path : Path
        YAML. ``${NAME}`` is replaced by the environment's variable; paths are relative to the file.
    variables : mapping of str to str, optional
        Asked before the environment.

    Raises
    ------
    MissingInputError
        When there is no such file.
    InputError
        When it is not valid; the message names the key.
    """
    brain = read_yaml(path, Brain, "a brain file, like examples/brain.yaml", variables)
    return _anchored(brain, path.resolve().parent)


def _anchored(brain: Brain, folder: Path) -> Brain:
    """Make the paths of a brain absolute, from the folder of its file."""

    def anchor(path: Path) -> Path:
        return Path(os.path.normpath(folder / path))

    reference = brain.evaluate.reference
    return brain.model_copy(
        update={
            "source": anchor(brain.source),
            "output": anchor(brain.output),
            "model": anchor(brain.model) if brain.model else None,
            "cluster": str(anchor(Path(brain.cluster)))
            if is_site_file(brain.cluster)
            else brain.cluster,
            "train": brain.train.model_copy(
                update={key: anchor(value) for key, value in brain.train if isinstance(value, Path)}
            ),
            "evaluate": brain.evaluate.model_copy(
                update={"reference": anchor(reference) if reference else None}
            ),
        }
    )
