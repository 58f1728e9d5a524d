"""How far stores, steps and brains have come, in lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from isosr_pipeline.progress import duration

if TYPE_CHECKING:
    from isosr_pipeline.batch.reporting import BrainReport, JobReport, StepReport
    from isosr_pipeline.steps.status import PassStatus, StoreStatus

_IDLE_FOR_LONG = 120.0
_FAILED = ("failed", "timed out", "unknown", "unreadable")


def batch_lines(reports: Sequence[BrainReport]) -> Iterator[str]:
    """Yield a line for each brain, then details of those that have failed or can't be read.

    Parameters
    ----------
    reports : sequence of BrainReport
    """
    rows = [(r.name, r.step or "", r.state, _progress(r)) for r in reports]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{text:<{n}}" for text, n in zip(row, widths, strict=True)).rstrip()
    for report in reports:
        if report.state in _FAILED:
            yield ""
            yield report.name if report.name == report.label else f"{report.name} ({report.label})"
            for step in report.steps:
                yield from step_lines(step)
            yield from _error_lines(report.problem)


def step_lines(step: StepReport) -> Iterator[str]:
    """Yield lines on a step of a brain.

    Parameters
    ----------
    step : StepReport
    """
    detail = f", {step.detail}" if step.detail else ""
    job = step.job if step.state != "complete" else None
    if job is None:
        headline = _headline(step.store) if step.store else step.state
    else:
        headline = _job_headline(job)
    yield f"{step.step:<10} {headline}{detail}"
    if step.store is not None:
        yield from _store_lines(step.store)
    if job is not None:
        yield from _error_lines(job.error)
    if job is not None and job.state != "waiting":
        yield f"  log        {job.log}"


def store_lines(store: StoreStatus) -> Iterator[str]:
    """Yield lines on the filling of a store.

    Parameters
    ----------
    store : StoreStatus
    """
    yield f"{store.path}: {_headline(store)}"
    yield from _store_lines(store)


def _error_lines(error: str | None) -> Iterator[str]:
    first, *rest = error.splitlines() if error else ("",)
    if first:
        yield f"  error      {first}"
        yield from (f"             {line}" for line in rest)


def _progress(report: BrainReport) -> str:
    """Say how far the current step of a brain has come."""
    step = next((step for step in report.steps if step.step == report.step), None)
    if step is None:
        return ""
    parts = [step.detail] if step.detail else []
    if step.store is not None and step.store.passes:
        # Passes follow each other: the last that has begun is the one to look at.
        begun = [one for one in step.store.passes if one.done] or step.store.passes[:1]
        parts.append(f"{begun[-1].name}: {_pass_line(begun[-1])}")
    if step.job is not None and step.job.reason:
        parts.append(step.job.reason)
    return ", ".join(parts)


def _job_headline(job: JobReport) -> str:
    since = f" on {job.node} for {job.elapsed}" if job.state == "running" else ""
    code = f" with exit code {job.exit_code}" if job.exit_code and job.state == "failed" else ""
    reason = f": {job.reason}" if job.reason else ""
    return f"{job.state}{since}{code}{reason} (job {job.id})"


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
