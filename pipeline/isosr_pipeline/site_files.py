"""Site files: what a SLURM cluster offers, as YAML."""

from __future__ import annotations

from pathlib import Path

from isosr_cluster.slurm.site import Kind, Site
from isosr_pipeline.errors import InputError
from isosr_pipeline.settings import Device
from isosr_pipeline.yaml_files import read_yaml

SUFFIXES = (".yaml", ".yml")


def is_site_file(cluster: str) -> bool:
    """Tell whether ``--cluster`` names a site file.

    Parameters
    ----------
    cluster : str
    """
    return cluster.endswith(SUFFIXES)


def read_site(path: Path) -> Site:
    """Read a site file.

    Parameters
    ----------
    path : Path
        YAML. ``${NAME}`` is replaced by the environment's variable.

    Raises
    ------
    MissingInputError
        When there is no such file.
    InputError
        When it is not valid; the message names the key.
    """
    return read_yaml(path, Site, "a site file, like those in examples/sites")


def kind_for(device: Device, site: Site, key: str | None = None) -> Kind:
    """Return which of a site's jobs work on a device; auto: those with GPUs, if there are some.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
    site : Site
    key : str or None
        What the device was given by, for the message; None: the work leaves no choice.

    Raises
    ------
    InputError
        When the site describes no such jobs.
    """
    kind: Kind = "gpu" if device == "cuda" or (device == "auto" and site.gpu) else "cpu"
    if site.workers(kind) is None:
        why = f"{key} is {device}" if key else f"this work needs {kind} jobs"
        other = "cpu or auto" if kind == "gpu" else "cuda or auto"
        raise InputError(
            f"{why}, and the site file describes no {kind} jobs; add the section {kind} to it"
            + (f", or set {key} to {other}" if key else "")
        )
    return kind


def device_on(cluster: str, device: Device) -> Device:
    """Return the device that work on a cluster must have: on a site auto means what it offers.

    So a worker in a job with GPUs that sees none says so, instead of using the CPU.

    Parameters
    ----------
    cluster : str
        As of ``--cluster``.
    device : {"auto", "cpu", "cuda"}

    Raises
    ------
    InputError
        When the site file is not valid, or describes no jobs for the device.
    """
    if not is_site_file(cluster):
        return device
    return "cuda" if kind_for(device, read_site(Path(cluster)), "device") == "gpu" else "cpu"
