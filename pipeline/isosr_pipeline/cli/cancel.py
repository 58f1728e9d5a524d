"""``isosr-pipeline cancel``."""

from __future__ import annotations

from pathlib import Path

import click

from isosr_pipeline.cli.batch_options import table_options
from isosr_pipeline.cli.options import StepCommand


@click.command("cancel", cls=StepCommand, goes_on=True, example="isosr-pipeline cancel brain.yaml")
@click.argument("brains", metavar="[BRAIN.yaml]...", nargs=-1, type=click.Path(path_type=Path))
@table_options
def command(brains: tuple[Path, ...], template: Path | None, table: Path | None) -> None:
    """End the SLURM jobs of brains, with those of their workers, and wait until they have ended.

    A process on this machine that leads such jobs from a terminal is asked to stop; one elsewhere
    is named, and nothing ended. What is done is kept: submit goes on with it.
    """
    from isosr_pipeline.batch.cancelling import cancel_batch
    from isosr_pipeline.batch.entries import read_entries
    from isosr_pipeline.batch.listing import update_cancelled

    entries = read_entries(brains, template, table)
    ended = cancel_batch(entries, click.echo)
    for entry in entries:
        jobs = ended[entry.label]
        if not jobs:
            click.echo(f"{entry.name}: no jobs to end")
        for job in jobs:
            what = job.comment.rpartition(":")[2]
            click.echo(f"{entry.name}: ended job {job.id} ({what}, {job.state.lower()})")
    update_cancelled(entries, ended, click.echo)
