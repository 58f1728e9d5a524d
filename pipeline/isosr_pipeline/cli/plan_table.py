"""A plan as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from isosr_pipeline.progress import byte_count, duration

if TYPE_CHECKING:
    from isosr_pipeline.steps.planned import FillingPlan, Plan, RestorePlan, StorePlan, TrainPlan

_LONG = 4
"""Days; what takes no longer is told in hours."""

_Rows = Iterator[tuple[str, str]]


def show_plan(plan: Plan) -> None:
    """Print a plan on standard output, and its warnings on standard error.

    Parameters
    ----------
    plan : Plan
    """
    convert, restore = plan.convert, plan.restore
    _section("convert", [("", "complete")] if convert is None else _convert_rows(convert))
    _section("train", _train_rows(plan.train))
    _section("restore", [("", "complete")] if restore is None else _restore_rows(restore))
    _section("trust", _map_rows(plan))
    _section("disk", _disk_rows(plan))
    for warning in plan.warnings:
        click.echo(f"warning: {warning}", err=True)


def _section(name: str, rows: _Rows | Sequence[tuple[str, str]]) -> None:
    for label, value in rows:
        click.echo(f"{name:<9}{label:<14}{value}" if label else f"{name:<9}{value}")
        name = ""


def _convert_rows(plan: FillingPlan) -> _Rows:
    yield from _store_rows(plan)
    yield "reads", byte_count(plan.bytes_read)
    yield "memory", f"{byte_count(plan.memory)} a worker"


def _train_rows(plan: TrainPlan) -> _Rows:
    if plan.state == "complete":
        yield "", f"complete{_and(plan.detail)}"
        return
    if plan.crop is None:
        yield "", f"nothing to train: {plan.network}"
        return
    ends = []
    if plan.iterations is not None:
        ends.append(f"{plan.iterations:,} iterations")
    if plan.minutes is not None:
        ends.append(f"{plan.minutes:g} min")
    first = ", whichever comes first" if len(ends) > 1 else ""
    done = _and(plan.detail) if plan.state == "unfinished" else ""
    yield "ends after", f"{' or '.join(ends)}{first}{done}"
    yield "network", f"{plan.network}, crops of {_times(plan.crop)}"


def _restore_rows(plan: RestorePlan) -> _Rows:
    yield from _store_rows(plan)
    if plan.roi is not None:
        spans = ", ".join(f"{a}:{b}" for a, b in zip(*plan.roi, strict=True))
        yield "part", f"{spans} (z, y, x) of the isotropic grid"
    yield (
        "blocks",
        f"{plan.blocks:,} of up to {_times(plan.block)}, {_times(plan.block_read)} with a halo "
        f"of {plan.halo}",
    )
    yield "scheme", f"{plan.scheme}, {'float32' if plan.precision == '32' else 'bfloat16'}"
    yield "computes", f"{plan.compute_redundancy:.2f} times what it would without halos"
    yield "reads", f"{byte_count(plan.bytes_read)}, the input {plan.read_redundancy:.2f} times"
    yield from _memory_rows(plan)
    yield "rate", f"{plan.rate / 1e6:.3g} Mvoxel/s of the result a worker, without reading"
    yield "time", _time(plan)


def _memory_rows(plan: RestorePlan) -> _Rows:
    if plan.on_gpu:
        most = byte_count(plan.block_memory_available)
        yield "GPU memory", f"{byte_count(plan.block_memory)} of {most} for a block"
    yield "memory", f"{byte_count(plan.memory)} of {byte_count(plan.memory_available)} a worker"


def _time(plan: RestorePlan) -> str:
    most = "at most " if plan.skip_empty else ""
    how = "an untrained network" if plan.model is None else "the model"
    about = f"{most}about {_estimate(plan.seconds)} on {_workers(plan.workers)}"
    return f"{about}, from a measured block of {how}"


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def _map_rows(plan: Plan) -> _Rows:
    found = plan.trust
    if found is None:
        yield "", f"no map: {plan.no_trust}" if plan.no_trust else "complete"
        return
    yield from _store_rows(found)
    yield "cells", f"of {_times(found.cell)} voxels of what is restored"
    yield "blur", found.blur
    if found.compare is None:
        yield "time", "can't be told before the blur is"
        return
    compare = found.compare
    yield (
        "blocks",
        f"{compare.blocks:,} of up to {_times(compare.block)}, {_times(compare.block_read)} with "
        f"a halo of {compare.halo}",
    )
    yield "reads", f"{byte_count(compare.bytes_read)}, restored and measured"
    yield (
        "memory",
        f"{byte_count(compare.memory)} of {byte_count(compare.memory_available)} a worker",
    )
    yield "rate", f"{compare.rate / 1e6:.3g} Mvoxel/s of the result a worker, without reading"
    workers = _workers(compare.workers)
    yield "time", f"about {_estimate(compare.seconds)} on {workers}, from a measured block"


def _store_rows(plan: StorePlan) -> _Rows:
    sizes = " × ".join(f"{s:g}" for s in plan.voxel_size)
    yield "makes", plan.path
    yield "volume", f"{_times(plan.shape)} {plan.dtype} (c z y x), voxels of {sizes} µm"
    done = f", {plan.regions_done:,} of them done" if plan.regions_done else ""
    yield "regions", f"{plan.regions:,} of {_times(plan.region)}{done}"
    yield (
        "files",
        f"{plan.files:,} at most, shards of {_times(plan.shard)}, chunks of {_times(plan.chunk)}",
    )
    yield (
        "writes",
        f"{byte_count(plan.bytes_written)}, all levels; compression makes it less on disk",
    )


def _disk_rows(plan: Plan) -> _Rows:
    yield "needed", f"{byte_count(plan.disk)} at most, before compression"
    yield "free", f"{byte_count(plan.disk_free)} at {plan.output}"


def _estimate(seconds: float) -> str:
    days = seconds / 86400
    return f"{days:,.0f} days" if days > _LONG else duration(seconds)


def _times(lengths: Sequence[int]) -> str:
    return " × ".join(map(str, lengths))


def _and(detail: str) -> str:
    return f", {detail}" if detail else ""
