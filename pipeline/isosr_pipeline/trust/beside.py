"""Where the trust map of a restored volume lies, and whether a map that lies there is of it."""

from __future__ import annotations

from pathlib import Path

from isosr_pipeline.store.volume import Volume


def map_beside(restored: Path) -> Path:
    """Return where the map of a restored volume goes: ``x.zarr`` becomes ``x.trust.zarr``."""
    return restored.with_name(f"{restored.name.removesuffix('.zarr')}.trust.zarr")


def mismatch(trust: Volume, restored: Volume, measured: Volume | None = None) -> str | None:
    """Tell why a map is not that of a restoration, by the volumes that its history names.

    Parameters
    ----------
    trust : Volume
        The map.
    restored : Volume
        What it is to be a map of.
    measured : Volume, optional
        What that was to be compared with.

    Returns
    -------
    str or None
        What is wrong and how it is mended; None: it is of these volumes, or does not say of which.
    """
    own = trust.attributes
    if own is None or not own.history or own.history[-1].step != "trust":
        return None
    made = own.history[-1].parameters
    remedy = (
        f"make it again: isosr-pipeline trust {measured.path if measured else 'STORE'} "
        f"{restored.path} MODEL --overwrite"
    )
    if made.get("source_id", restored.identity) != restored.identity:
        return (
            f"{trust.path} is of an earlier or another restoration than {restored.path}; {remedy}"
        )
    if measured and made.get("measured_id", measured.identity) != measured.identity:
        return f"{trust.path} was told from another volume than {measured.path}; {remedy}"
    return None
