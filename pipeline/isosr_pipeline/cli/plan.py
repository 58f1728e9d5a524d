"""``isosr-pipeline plan``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from isosr_pipeline.cli.options import StepCommand


@click.command("plan", cls=StepCommand, example="isosr-pipeline plan brain.yaml")
@click.argument("brain", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(brain: Path, as_json: bool) -> None:
    """Say what running BRAIN, a YAML file, would do, and what it needs.

    Regions, blocks, bytes, memory, disk and an estimate of time, also of the trust map; before any
    of its steps, or after some. The workers compute a block of random voxels each, and blur one
    for the map, on a SLURM site those of one job; nothing is written but the logs of such jobs.
    """
    from isosr_pipeline.brain import read_brain
    from isosr_pipeline.cli.plan_table import show_plan
    from isosr_pipeline.progress import reporter_for
    from isosr_pipeline.steps.plan import plan

    found = plan(read_brain(brain), reporter=reporter_for(sys.stderr))
    if as_json:
        click.echo(found.model_dump_json(indent=2))
    else:
        show_plan(found)
