"""Volumes as OME-Zarr stores: their metadata, pyramids and intensity windows."""
