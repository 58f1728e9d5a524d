"""Simulated volumes: objects, and what a microscope makes of them."""
