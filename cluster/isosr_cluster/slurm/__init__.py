"""SLURM: what a site offers, its commands, batch scripts, and Dask workers in jobs."""
