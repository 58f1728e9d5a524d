"""Restoring a region: how it is cut into blocks, and what makes the result of them on a device."""
