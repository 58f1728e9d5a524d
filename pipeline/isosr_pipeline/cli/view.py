"""``isosr-pipeline view``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from isosr_pipeline.cli.options import StepCommand


@click.command("view", cls=StepCommand, example="isosr-pipeline view brain.zarr restored.zarr")
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("restored", type=click.Path(path_type=Path), required=False)
@click.option(
    "--trust",
    type=click.Path(path_type=Path),
    metavar="STORE",
    help="Drawn over RESTORED.  [default: RESTORED's name with .trust.zarr, if it is there]",
)
@click.option("--over", is_flag=True, help="One over the other; keys 1 and 2 switch them.")
@click.option(
    "--host",
    metavar="ADDRESS",
    help="Where to listen; 0.0.0.0 lets other machines in.  [default: 127.0.0.1, this one only]",
)
@click.option("--port", type=click.IntRange(0, 65535), help="[default: one that is free]")
@click.option("--no-browser", is_flag=True, help="Only say where to look.")
@click.option("--napari", "in_napari", is_flag=True, help="In napari instead of the browser.")
def command(
    store: Path,
    restored: Path | None,
    trust: Path | None,
    over: bool,
    host: str | None,
    port: int | None,
    no_browser: bool,
    in_napari: bool,
) -> None:
    """Show STORE and RESTORED side by side, in planes along all axes that move together.

    Nothing is copied or written: the browser reads the chunks that it shows, and nothing else.
    """
    if in_napari:
        if over or no_browser or host is not None or port is not None:
            raise click.UsageError(
                "--over, --host, --port and --no-browser are of the browser; leave them out "
                "with --napari"
            )
        from isosr_pipeline.viewing.napari_window import show_in_napari

        show_in_napari(store, restored, trust, partial(click.echo, err=True))
        return
    from isosr_pipeline.steps.view import remarks, serve_until_stopped
    from isosr_pipeline.viewing.layers import open_scene
    from isosr_pipeline.viewing.server import ViewServer

    scene = open_scene(store, restored, trust)
    for line in remarks(scene):
        click.echo(line, err=True)
    server = ViewServer(scene, "over" if over else "beside", host or "127.0.0.1", port or 0)
    serve_until_stopped(server, click.echo, browse=not no_browser)
