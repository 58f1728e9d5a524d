"""Volumes shown to people: in the browser, by neuroglancer, or in napari."""
