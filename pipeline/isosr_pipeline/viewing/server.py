"""A small read-only web server: neuroglancer's client, and the files of the stores it shows."""

from __future__ import annotations

import asyncio
import secrets
import socket
from asyncio import to_thread
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import neuroglancer.server
from neuroglancer.url_state import to_url
from neuroglancer.viewer_base import UnsynchronizedViewerBase
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from isosr_pipeline.errors import InputError
from isosr_pipeline.viewing.byte_ranges import UnsatisfiableRange, parse_range
from isosr_pipeline.viewing.layers import Scene
from isosr_pipeline.viewing.state import Layout, neuroglancer_state
from isosr_pipeline.viewing.store_files import StoreFiles

_PIECE = 1 << 20
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_HEADERS = {
    # The browser itself refuses whatever is not of this server. The client's decoders evaluate
    # code that they make.
    "Content-Security-Policy": "default-src 'self' data: blob:; frame-ancestors 'none'; "
    "script-src 'self' blob: 'unsafe-eval'; style-src 'self' 'unsafe-inline'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass
class _Place:
    """What neuroglancer's handlers ask of the server that they belong to."""

    token: str
    viewers: dict[str, UnsynchronizedViewerBase]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)


class _Closed(RequestHandler):
    """Adds the headers that keep the page to itself, and says nothing of what failed."""

    def set_default_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    def compute_etag(self) -> None:
        """Make none: it would be that of an empty body where only the head is asked for."""

    def write_error(self, status_code: int, **_kwargs: Any) -> None:
        self.finish(f"{status_code}\n")


class _Client(_Closed, neuroglancer.server.StaticPathHandler):  # type: ignore[misc]
    """Serves the files of neuroglancer's client, which its package brings along."""


class _Events(_Closed, neuroglancer.server.EventStreamHandler):  # type: ignore[misc]
    """Keeps the client connected, by which it knows that the program still runs."""


class _Start(_Closed):
    """Leads to the client, with the volumes at the address by which the browser came."""

    def initialize(
        self, scene: Scene, layout: Layout, token: str, names: frozenset[str] | None
    ) -> None:
        self._scene, self._layout, self._token, self._names = scene, layout, token, names

    def get(self) -> None:
        # A name of somebody else's, by which the browser came here, would be led to.
        if self._names is not None and self.request.host_name not in self._names:
            raise HTTPError(403)
        here = f"{self.request.protocol}://{self.request.host}"
        state = neuroglancer_state(self._scene, f"{here}/{self._token}/stores", self._layout)
        self.redirect(to_url(state, f"{here}/v/{self._token}/"))


class _StoreFile(_Closed):
    """Sends a file of a store, or the part of it that is asked for."""

    SUPPORTED_METHODS = ("GET", "HEAD")

    def initialize(self, stores: dict[str, StoreFiles]) -> None:
        self._stores = stores

    async def head(self, store: str, name: str) -> None:
        await self.get(store, name)

    async def get(self, store: str, name: str) -> None:
        path = await to_thread(self._stores[store].find, name)
        if path is None:
            raise HTTPError(404)
        try:
            size = (await to_thread(path.stat)).st_size
            start, stop = self._part(size)
            self.set_header("Content-Length", str(stop - start))
            if self.request.method == "GET":
                await self._send(path, start, stop)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            # A chunk without a file is empty.
            raise HTTPError(404) from error
        except StreamClosedError:
            return
        except OSError as error:
            raise HTTPError(500, f"{path} can't be read: {error.strerror}") from error

    def _part(self, size: int) -> tuple[int, int]:
        self.set_header("Accept-Ranges", "bytes")
        self.set_header("Content-Type", "application/octet-stream")
        try:
            part = parse_range(self.request.headers.get("Range"), size)
        except UnsatisfiableRange:
            self.set_status(416)
            self.set_header("Content-Range", f"bytes */{size}")
            return 0, 0
        if part is None:
            return 0, size
        self.set_status(206)
        self.set_header("Content-Range", f"bytes {part[0]}-{part[1] - 1}/{size}")
        return part

    async def _send(self, path: Path, start: int, stop: int) -> None:
        # In a thread: a slow disk must not keep other requests waiting.
        with await to_thread(path.open, "rb", buffering=0) as file:
            await to_thread(file.seek, start)
            while start < stop:
                piece = await to_thread(file.read, min(_PIECE, stop - start))
                if not piece:
                    raise HTTPError(500, f"{path} has become shorter")
                self.write(piece)
                await self.flush()
                start += len(piece)


class ViewServer:
    """Shows volumes to whoever knows its address, which holds a secret made anew each time.

    Parameters
    ----------
    scene : Scene
    layout : {"beside", "over"}
    host : str
        Address to listen at.
    port : int
        0: any that is free.

    Attributes
    ----------
    port : int
        That it listens at.
    url : str
        Where a browser begins.
    is_private : bool
        Whether only this machine can reach it.

    Raises
    ------
    InputError
        When it can't listen there, or a store has parts elsewhere.
    """

    def __init__(
        self, scene: Scene, layout: Layout = "beside", host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._scene, self._layout = scene, layout
        self._stores = {layer.name: StoreFiles(layer.volume) for layer in scene.layers}
        self._token = secrets.token_hex(20)
        try:
            self._sockets = bind_sockets(port, host)
        except OSError as error:
            raise InputError(
                f"port {port} of {host} can't be listened at ({error.strerror or error}); give "
                "another --port, 0 for one that is free, or a --host that this machine has"
            ) from error
        bound = [listening.getsockname() for listening in self._sockets]
        self.port = int(bound[0][1])
        self.is_private = all(ip_address(name[0]).is_loopback for name in bound)
        shown = socket.gethostname() if host in ("0.0.0.0", "::", "") else host  # noqa: S104
        self._host = _bracketed(shown).lower()
        self.url = f"http://{_bracketed(shown)}:{self.port}/{self._token}/"

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        server = HTTPServer(self._application())
        server.add_sockets(self._sockets)
        try:
            await stop.wait()
        finally:
            server.stop()
            with suppress(TimeoutError):
                await asyncio.wait_for(server.close_all_connections(), timeout=1)

    def _application(self) -> Application:
        neuroglancer.server.set_static_content_source()
        token = self._token
        # Without its credentials: the client has nothing to ask of anybody else.
        viewer = UnsynchronizedViewerBase(token=token, allow_credentials=False)
        place = {"server": _Place(token, {token: viewer})}
        names = "|".join(self._stores)
        # Ports differ where ssh leads here.
        own = frozenset({*_LOOPBACK, self._host}) if self.is_private else None
        start = {"scene": self._scene, "layout": self._layout, "token": token, "names": own}
        return Application(
            [
                (rf"/{token}/", _Start, start),
                (rf"/{token}/stores/({names})/(.*)", _StoreFile, {"stores": self._stores}),
                (neuroglancer.server.STATIC_PATH_REGEX, _Client, place),
                (neuroglancer.server.EVENTS_PATH_REGEX, _Events, place),
            ],
            default_handler_class=_Absent,
            log_function=lambda _handler: None,
        )


class _Absent(_Closed):
    def prepare(self) -> None:
        raise HTTPError(404)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
