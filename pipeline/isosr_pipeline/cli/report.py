"""``isosr-pipeline report``."""

from __future__ import annotations

from pathlib import Path

import click

from isosr_pipeline.cli.batch_options import table_options
from isosr_pipeline.cli.options import StepCommand


@click.command(
    "report",
    cls=StepCommand,
    example="isosr-pipeline report --template batch.yaml --table brains.csv --index index.html",
)
@click.argument("brains", metavar="[BRAIN.yaml]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--index",
    required=True,
    metavar="INDEX.html",
    type=click.Path(path_type=Path),
    help="The page; replaced if it is there.",
)
@table_options
def command(
    brains: tuple[Path, ...], index: Path, template: Path | None, table: Path | None
) -> None:
    """Make a page that lists brains, with thumbnails, key figures and links to their reports.

    Reports are made by run and by the jobs of submit, each in the folder of its brain. Brains that
    have no figures yet are listed, too: give the command again later.
    """
    from isosr_pipeline.batch.entries import read_each
    from isosr_pipeline.batch.index import write_index

    lines = write_index(read_each(brains, template, table), index)
    done = sum(line.state == "evaluated" for line in lines)
    click.echo(f"{index}: {len(lines)} brains, {done} of them evaluated")
