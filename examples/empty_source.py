"""Make an OME-Zarr of any size without voxels: a plan reads metadata only.

Usage: python empty_source.py brain.zarr 9000,27000,21000 1,0.5,0.5
"""

import sys

import zarr

path, shape, voxel_size = sys.argv[1:]
group = zarr.open_group(path, mode="w-")
group.create_array(
    "0",
    shape=tuple(map(int, shape.split(","))),
    chunks=(64, 64, 64),
    shards=(512, 512, 512),
    dtype="uint16",
)
axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
scale = {"type": "scale", "scale": list(map(float, voxel_size.split(",")))}
level = {"path": "0", "coordinateTransformations": [scale]}
group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [level]}]}
