"""``isosr-pipeline run``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from isosr_pipeline.cli.options import StepCommand
from isosr_pipeline.cli.tables import show_evaluation


@click.command("run", cls=StepCommand, goes_on=True, example="isosr-pipeline run brain.yaml")
@click.argument("brain", type=click.Path(path_type=Path))
def command(brain: Path) -> None:
    """Convert, train, restore and evaluate what BRAIN, a YAML file, describes.

    Run again after an interruption or a failure, it goes on where it stopped.
    """
    from isosr_pipeline.brain import read_brain
    from isosr_pipeline.progress import reporter_for
    from isosr_pipeline.steps.run import run

    described = read_brain(brain)
    show_evaluation(run(described, reporter=reporter_for(sys.stderr)))
    click.echo(f"input     {described.store}")
    click.echo(f"model     {described.trained_model}")
    click.echo(f"restored  {described.restored}")
    click.echo(f"figures   {described.evaluation}")
