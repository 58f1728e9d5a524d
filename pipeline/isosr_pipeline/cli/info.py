"""``isosr-pipeline info``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from isosr_pipeline.cli.options import StepCommand


@click.command("info", cls=StepCommand, example="isosr-pipeline info brain.zarr --json")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(store: Path, as_json: bool) -> None:
    """Say what STORE is, without reading a voxel."""
    from isosr_pipeline.steps.info import describe

    description = describe(store)
    if as_json:
        click.echo(json.dumps(description, indent=2))
        return
    for name, value in _lines(description):
        click.echo(f"{name:<16} {value}")


def _lines(description: dict[str, Any]) -> list[tuple[str, str]]:
    def times(lengths: list[int]) -> str:
        return " × ".join(map(str, lengths))

    lines = [
        ("store", description["path"]),
        ("shape (c z y x)", f"{times(description['shape'])} {description['dtype']}"),
        ("voxel size", " × ".join(f"{s:g}" for s in description["voxel_size_um"]) + " µm (z y x)"),
        ("origin", " × ".join(f"{s:g}" for s in description["origin_um"]) + " µm (z y x)"),
        ("isotropic grid", times(description["isotropic_shape"] or []) or "none"),
        ("channels", ", ".join(description["channels"])),
    ]
    for index, level in enumerate(description["levels"]):
        shard = f", shards {times(level['shard'])}" if level["shard"] else ""
        text = f"{times(level['shape'])}, chunks {times(level['chunk'])}{shard}"
        lines.append((f"level {index}", text))
    for channel, windows in zip(description["channels"], description["windows"], strict=False):
        for window in windows:
            low, high = window["percentiles"]
            text = f"{window['low']:g} to {window['high']:g} ({low:g} to {high:g} %), {channel}"
            lines.append(("window", text))
    if description["complete"] is False:
        done, total = description["regions_done"], description["regions"]
        count = "" if done is None else f": {done} of {total} regions"
        lines.append(("state", f"unfinished{count}"))
    for step in description["history"]:
        method = step["parameters"].get("method")
        how = f" by {method}" if method else ""
        lines.append((step["step"], f"from {step['source']}{how}"))
    return lines
