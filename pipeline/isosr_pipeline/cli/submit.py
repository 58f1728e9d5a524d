"""``isosr-pipeline submit``."""

from __future__ import annotations

from pathlib import Path

import click

from isosr_pipeline.cli.batch_options import table_options
from isosr_pipeline.cli.options import StepCommand


@click.command(
    "submit",
    cls=StepCommand,
    goes_on=True,
    example="isosr-pipeline submit --template batch.yaml --table brains.csv --site site.yaml",
)
@click.argument("brains", metavar="[BRAIN.yaml]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--site",
    "site_file",
    required=True,
    type=click.Path(path_type=Path),
    metavar="SITE.yaml",
    help="What the SLURM cluster offers.",
)
@table_options
@click.option(
    "--workers", type=click.IntRange(min=1), help="Of each brain; default: as SITE.yaml says."
)
@click.option(
    "--max-brains", type=click.IntRange(min=1), help="In flight at any time; default: all."
)
@click.option(
    "--index",
    type=click.Path(path_type=Path),
    metavar="INDEX.html",
    help="The page that lists the brains; default: index.html in the folder of all outputs.",
)
@click.option("--dry-run", is_flag=True, help="Print the scripts; change nothing.")
def command(
    brains: tuple[Path, ...],
    site_file: Path,
    template: Path | None,
    table: Path | None,
    workers: int | None,
    max_brains: int | None,
    index: Path | None,
    dry_run: bool,
) -> None:
    """Submit a chain of SLURM jobs for each brain: convert, train, restore, evaluate.

    Each job begins when the one before has succeeded. Steps that are complete are left out, and a
    brain whose jobs are in flight is left alone: given again, the command goes on with what failed.
    Nothing is submitted unless all brains can be read and SLURM would take their jobs. What the
    jobs read is copied to jobs/ in the output of the brain, and they log to logs/. A page lists the
    brains of the batch, with figures or what went wrong; it is written now, and by the last job of
    each brain, or the one that fails; what SLURM ends before it can tell stays there as it was.
    """
    from isosr_pipeline.batch.chains import Terms
    from isosr_pipeline.batch.entries import read_entries
    from isosr_pipeline.batch.listing import find_place
    from isosr_pipeline.batch.submitting import planned_scripts, submit_batch
    from isosr_pipeline.site_files import read_site

    site = read_site(site_file)
    entries = read_entries(brains, template, table)
    place, remark = find_place(entries, index)
    terms = Terms(site, site_file, workers, index=place)
    if dry_run:
        scripts = list(planned_scripts(entries, terms, max_brains=max_brains))
        click.echo(f"# index: {place}" if place else f"# {remark}")
        for entry, step, script in scripts:
            click.echo(f"# {entry.name}, {step}: {entry.label}\n{script}")
        return
    count = submit_batch(entries, terms, click.echo, max_brains=max_brains)
    click.echo(f"{count} jobs submitted")
    if remark:
        click.echo(remark)
