"""Open a restored volume in tensorstore, without isosr-pipeline: python open_result.py STORE."""

import sys
from pathlib import Path

import tensorstore


def open_level(store: Path, level: int) -> tensorstore.TensorStore:
    """Open a level of an OME-Zarr store; axes are c, z, y, x."""
    path = str((store / str(level)).resolve())
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}
    return tensorstore.open(spec, read=True).result()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give one store: python open_result.py STORE")
    volume = open_level(Path(sys.argv[1]), level=0)
    print(f"shape {volume.shape}, dtype {volume.dtype.name}")
    plane = volume[0, :, volume.shape[2] // 2, :].read().result()
    print(f"the middle XZ plane has shape {plane.shape} and mean {plane.mean():.1f}")
