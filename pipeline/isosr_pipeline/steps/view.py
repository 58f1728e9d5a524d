"""View: look at a volume before and after restoration, in the browser."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from html import escape
from pathlib import Path
from tempfile import NamedTemporaryFile

from isosr_pipeline.interrupts import stop_requests
from isosr_pipeline.viewing.layers import Scene
from isosr_pipeline.viewing.server import ViewServer


def announce(server: ViewServer) -> list[str]:
    """Say where a server is reached, from here and from elsewhere; lines of text."""
    lines = [f"open {server.url}"]
    if server.is_private:
        here = f"{getpass.getuser()}@{socket.gethostname()}"
        lines += [
            f"from another machine, run there: ssh -N -L {server.port}:127.0.0.1:{server.port} "
            f"{here}",
            "  and open the same address there",
        ]
    else:
        lines.append("whoever has this address and reaches this machine can read these stores")
    return [*lines, "Ctrl-C ends it"]


def serve_until_stopped(server: ViewServer, say: Callable[[str], None], *, browse: bool) -> None:
    """Show volumes in the browser until a signal asks to stop.

    Parameters
    ----------
    server : ViewServer
    say : callable
        Called with each line for the user.
    browse : bool
        Whether to open the browser of this machine, where there is a screen.
    """
    asyncio.run(_serve(server, say, browse))


async def _serve(server: ViewServer, say: Callable[[str], None], browse: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.call_soon_threadsafe(stop.set)

    with stop_requests(end):
        for line in announce(server):
            say(line)
        serving = asyncio.create_task(server.run(stop))
        with ExitStack() as until_stopped:
            if browse and _has_screen():
                page = until_stopped.enter_context(leading_page(server.url))
                await asyncio.to_thread(webbrowser.open, page.as_uri())
            await serving


@contextmanager
def leading_page(url: str) -> Iterator[Path]:
    """Write a page that leads to an address, which only this user can read.

    The command line of a browser is seen by all users of the machine; the address holds a secret.

    Parameters
    ----------
    url : str

    Yields
    ------
    Path
        A file of mode 0600, removed at the end.
    """
    shown = escape(url)
    # Which makes it so that nobody else can read it.
    with NamedTemporaryFile("w", prefix="isosr-view-", suffix=".html", encoding="utf-8") as file:
        file.write(
            f'<!doctype html><meta charset="utf-8"><title>isosr-pipeline view</title>\n'
            f'<meta http-equiv="refresh" content="0; url={shown}"><a href="{shown}">volumes</a>\n'
        )
        file.flush()
        yield Path(file.name)


def _has_screen() -> bool:
    # Elsewhere a browser would begin in this terminal, or on a screen that nobody looks at.
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")) and not (
        os.environ.get("SSH_CONNECTION")
    )


def remarks(scene: Scene) -> list[str]:
    """Say what is not shown, and which volumes are still being filled; lines of text."""
    return [
        *scene.notes,
        *(
            f"{layer.volume.path} is not complete: what is not there yet is shown as zero"
            for layer in scene.layers
            if layer.volume.attributes is not None and not layer.volume.attributes.complete
        ),
    ]
