"""Site files: what a SLURM cluster offers, as YAML."""

from __future__ import annotations

from pathlib import Path

from isosr_cluster.slurm.site import Site
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
