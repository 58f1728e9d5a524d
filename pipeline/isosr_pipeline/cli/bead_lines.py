"""What ``psf --from-beads`` prints."""

from __future__ import annotations

from collections.abc import Iterator

from isosr_pipeline.steps.beads import BeadPsf, BeadWidth


def bead_lines(psf: BeadPsf) -> Iterator[tuple[str, str]]:
    """Yield a name and a value for each line."""
    yield "volume", psf.source
    left_out = ", ".join(f"{count} {why}" for why, count in psf.rejected.items())
    yield "beads", f"{psf.beads}" + (f"; spots left out: {left_out}" if left_out else "")
    sizes = " × ".join(f"{size:.4g}" for size in psf.voxel_size_um)
    yield "PSF", f"{' × '.join(map(str, psf.shape))} voxels of {sizes} µm (z × y × x): {psf.out}"
    for axis, width in psf.fwhm.items():
        yield f"FWHM {axis}", _told(width, psf.bead_diameter_um)


def _told(width: BeadWidth, diameter: float | None) -> str:
    spread = "" if width.spread_um is None else f" ± {width.spread_um:.2g}"
    told = f"{width.mean_um:.3g}{spread} µm, of the average {width.average_um:.3g} µm"
    if width.less_bead_um is None:
        return told
    return f"{told}; less beads of {diameter:g} µm {width.less_bead_um:.3g} µm"
