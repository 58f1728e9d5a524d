"""``isosr-pipeline site``."""

from __future__ import annotations

from pathlib import Path

import click

from isosr_pipeline.cli.options import StepCommand

_FAILED = 1


@click.group("site", epilog="Example: isosr-pipeline site check site.yaml")
def command() -> None:
    """Look after the description of a SLURM site."""


@command.command(
    "check", cls=StepCommand, example="isosr-pipeline site check site.yaml --output /data/results"
)
@click.argument("site", metavar="SITE.yaml", type=click.Path(path_type=Path))
@click.option(
    "--output",
    default=".",
    show_default=True,
    type=click.Path(path_type=Path),
    help="A folder where stores would be written.",
)
@click.pass_context
def check(ctx: click.Context, site: Path, output: Path) -> None:
    """Submit a short job for each kind of workers in SITE.yaml, and say what is wrong.

    Checked are: whether SLURM takes such jobs, whether their workers reach this process, have the
    same programs, see their GPUs, and can write to scratch and to the output's file system.
    """
    from isosr_pipeline.site_files import read_site
    from isosr_pipeline.steps.site_check import check_site

    wrong = False
    for found in check_site(read_site(site), output.absolute(), say=_say):
        wrong = wrong or bool(found.problems)
        verdict = "wrong" if found.problems else "ok"
        begin = f"{found.section:<7} {verdict:<6} "
        lines = "\n".join([*found.problems, *found.remarks]).splitlines()
        click.echo(begin + f"\n{'':<{len(begin)}}".join(lines))
    if wrong:
        ctx.exit(_FAILED)


def _say(text: str) -> None:
    click.echo(text, err=True)
