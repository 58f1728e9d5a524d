"""``isosr-pipeline status``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from isosr_pipeline.cli.batch_options import table_options
from isosr_pipeline.cli.options import StepCommand
from isosr_pipeline.cli.status_lines import batch_lines, step_lines, store_lines

_BRAINS = (".yaml", ".yml")
_DONE, _SOME_NOT_READ, _NONE_READ = 0, 1, 2


@click.command("status", cls=StepCommand, example="isosr-pipeline status brain.yaml")
@click.argument("paths", metavar="[STORE|BRAIN.yaml...]", nargs=-1, type=click.Path(path_type=Path))
@table_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    paths: tuple[Path, ...],
    template: Path | None,
    table: Path | None,
    as_json: bool,
) -> None:
    """Say how far the filling of STORE, or each step of BRAIN.yaml and its SLURM job, has come.

    Of many brains a line each, and details of those that failed or can't be read; the exit code is
    1 if some can't be read, and 2 if none can. It reads what is on disk and asks SLURM, and
    disturbs nobody: it can be asked from another shell, or another machine that sees the same
    files.
    """
    if len(paths) == 1 and not (template or table) and not _is_brain(paths[0]):
        _show_store(paths[0], as_json)
        return
    if stores := [path for path in paths if not _is_brain(path)]:
        raise click.UsageError(
            f"{stores[0]} is no brain file (.yaml); give one store, or brain files"
        )
    ctx.exit(_show_brains(paths, template, table, as_json))


def _is_brain(path: Path) -> bool:
    return path.suffix in _BRAINS and not path.is_dir()


def _show_store(path: Path, as_json: bool) -> None:
    from isosr_pipeline.steps.status import status_of_store

    store = status_of_store(path)
    if as_json:
        click.echo(json.dumps(store.model_dump(), indent=2))
        return
    for line in store_lines(store):
        click.echo(line)


def _show_brains(
    paths: tuple[Path, ...], template: Path | None, table: Path | None, as_json: bool
) -> int:
    """Show how far brains have come; return the exit code."""
    from isosr_pipeline.batch.entries import read_each, read_entries
    from isosr_pipeline.batch.reporting import UNREADABLE, known_jobs, report_brain, report_brains

    is_alone = len(paths) == 1
    # The only one that is asked for is an error where it can't be read.
    entries = read_entries(paths, template, table) if is_alone else []
    each = entries or read_each(paths, template, table)
    jobs, remark = known_jobs()
    if remark:
        click.echo(f"isosr-pipeline: {remark}", err=True)
    alone = report_brain(entries[0], jobs) if is_alone else None
    reports = [] if alone else report_brains(each, jobs)
    if as_json:
        shown = alone.steps if alone else reports
        click.echo(json.dumps([one.model_dump(mode="json") for one in shown], indent=2))
    elif alone:
        for step in alone.steps:
            click.echo("\n".join(step_lines(step)))
    else:
        click.echo("\n".join(batch_lines(reports)))
    unreadable = sum(report.state == UNREADABLE for report in reports)
    if not unreadable:
        return _DONE
    return _NONE_READ if unreadable == len(reports) else _SOME_NOT_READ
