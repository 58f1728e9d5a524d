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
@click.option(
    "--update",
    "is_update",
    is_flag=True,
    help="The page is that of submit: look at BRAINs again, and keep the others on it.",
)
@table_options
def command(
    brains: tuple[Path, ...],
    index: Path,
    is_update: bool,
    template: Path | None,
    table: Path | None,
) -> None:
    """Make a page that lists brains, with thumbnails, key figures and links to their reports.

    Reports are made by run and by the jobs of submit, each in the folder of its brain. Brains that
    have no figures yet are listed, too, with how far they are, and what went wrong. submit makes
    such a page by itself, and its jobs keep it up to date.
    """
    from isosr_pipeline.batch.entries import read_each, read_entries
    from isosr_pipeline.batch.index import write_index
    from isosr_pipeline.batch.lines import EVALUATED
    from isosr_pipeline.batch.listing import update
    from isosr_pipeline.batch.reporting import known_jobs

    if is_update:
        is_any = brains or template or table
        update(index.absolute(), read_entries(brains, template, table) if is_any else ())
        click.echo(f"{index}: up to date")
        return
    jobs, remark = known_jobs()
    lines = write_index(read_each(brains, template, table), index, jobs)
    done = sum(line.state == EVALUATED for line in lines)
    click.echo(f"{index}: {len(lines)} brains, {done} of them evaluated")
    if remark:
        click.echo(remark)
