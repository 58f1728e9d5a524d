"""``isosr-pipeline run``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isosr_pipeline.cli.options import StepCommand
from isosr_pipeline.cli.tables import show_evaluation

if TYPE_CHECKING:
    from isosr_pipeline.steps.run import Step


@click.command("run", cls=StepCommand, goes_on=True, example="isosr-pipeline run brain.yaml")
@click.argument("brain", type=click.Path(path_type=Path))
@click.option(
    "--step",
    type=click.Choice(["convert", "train", "restore", "evaluate"]),
    help="Only this one; default: all.",
)
@click.option(
    "--cluster",
    metavar="local|SITE.yaml|tcp://HOST:PORT",
    help="Where the work runs; default: as BRAIN says.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes; default: as BRAIN says.")
def command(brain: Path, step: Step | None, cluster: str | None, workers: int | None) -> None:
    """Convert, train, restore and evaluate what BRAIN, a YAML file, describes.

    Run again after an interruption or a failure, it goes on where it stopped; what is complete is
    not done again.
    """
    from isosr_pipeline.brain import read_brain
    from isosr_pipeline.progress import reporter_for
    from isosr_pipeline.steps.run import run, run_step

    described = read_brain(brain).placed(cluster, workers)
    if step is not None:
        run_step(described, step, reporter=reporter_for(sys.stderr))
        return
    show_evaluation(run(described, reporter=reporter_for(sys.stderr)))
    click.echo(f"input     {described.store}")
    click.echo(f"model     {described.trained_model}")
    click.echo(f"restored  {described.restored}")
    click.echo(f"figures   {described.evaluation}")
    if described.trust and described.trust_map.exists():
        click.echo(f"trust     {described.trust_map}")
    click.echo(f"report    {described.report}")
