"""Batches: many brains, each a chain of SLURM jobs; tables of brains, their state, their end."""
