"""``isosr-pipeline status``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isosr_pipeline.cli.options import StepCommand
from isosr_pipeline.progress import duration

if TYPE_CHECKING:
    from isosr_pipeline.steps.status import PassStatus, StepStatus, StoreStatus

_IDLE_FOR_LONG = 120.0


@click.command("status", cls=StepCommand, example="isosr-pipeline status brain.yaml")
@click.argument("path", metavar="STORE|BRAIN.yaml", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(path: Path, as_json: bool) -> None:
    """Say how far the filling of STORE, or each step of BRAIN.yaml, has come.

    It reads what is on disk and disturbs nobody, so that it can be asked from another shell, or
    another machine that sees the same files.
    """
    from isosr_pipeline.brain import read_brain
    from isosr_pipeline.steps.status import status_of_brain, status_of_store

    if path.suffix in (".yaml", ".yml") and not path.is_dir():
        steps = status_of_brain(read_brain(path))
        if as_json:
            click.echo(json.dumps([step.model_dump() for step in steps], indent=2))
            return
        for step in steps:
            for line in _step_lines(step):
                click.echo(line)
        return
    store = status_of_store(path)
    if as_json:
        click.echo(json.dumps(store.model_dump(), indent=2))
        return
    click.echo(f"{store.path}: {_headline(store)}")
    for line in _store_lines(store):
        click.echo(line)


def _step_lines(step: StepStatus) -> Iterator[str]:
    state = _headline(step.store) if step.store else step.state
    detail = f", {step.detail}" if step.detail else ""
    yield f"{step.step:<10} {state}{detail}"
    if step.store is not None:
        yield from _store_lines(step.store)


def _headline(store: StoreStatus) -> str:
    if store.state != "unfinished":
        finished = store.finished
        when = "" if finished is None else f" since {datetime.fromtimestamp(finished):%F %R}"
        return f"{store.state}{when}"
    if store.running:
        return f"unfinished, process {store.pid} on {store.host} is filling it"
    if store.running is None and store.host:
        return f"unfinished, begun by process {store.pid} on {store.host}"
    return "unfinished, and nobody fills it: go on with the command that began it and --resume"


def _store_lines(store: StoreStatus) -> Iterator[str]:
    for one in store.passes:
        yield f"  {one.name:<10} {_pass_line(one)}"
    idle = store.idle_seconds
    if idle is not None:
        remark = ": look into the log" if idle > _IDLE_FOR_LONG and store.running else ""
        yield (
            f"  no region for {duration(idle)}{remark}"
            if idle > 60
            else (f"  last region {duration(idle)} ago")
        )
    for failure in store.failures:
        yield f"  {failure.name}, region {failure.region} failed: {failure.message}"
    if store.failed > len(store.failures):
        yield f"  and {store.failed - len(store.failures)} more have failed"


def _pass_line(one: PassStatus) -> str:
    of = "" if one.total is None else f" of {one.total}"
    share = f" ({100 * one.done / one.total:.1f} %)" if one.total else ""
    failed = f", {one.failed} failed" if one.failed else ""
    rate = f", {one.rate:.3g} regions/s" if one.rate and one.done != one.total else ""
    eta = f", {duration(one.eta_seconds)} left" if one.eta_seconds else ""
    return f"{one.done}{of} regions{share}{failed}{rate}{eta}"
