"""The daemon's terminals as JupyterLab's and Notebook's own: listed as running, opened in a tab, shut down from there.

The terminals extension of Jupyter stays what it is, with its own terminals; its manager only lists ours too, and its
handlers get ours beside them, under names that none of its own can have (`tundra-ID`: its routes take no hyphen).
Listing must not wait, so a mirror is kept up to date by the daemon's live feed; it starts no daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
from collections.abc import Callable
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import httputil, web
from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.iostream import StreamClosedError

from tundra_nb.errors import IpcError, TundraError
from tundra_nb.protocol import ptys as api
from tundra_nb.protocol.events import FEED
from tundra_nb.protocol.words import USER_HEADER
from tundra_nb.sse import Parser

from .proxy import DaemonProxy, Refused, user_of
from .supervisor import Supervisor, dial

PREFIX = "tundra-"
RESOURCE = "terminals"
"""What authorizers know terminals by; Jupyter's own have the same."""
AGAIN_SECONDS = 1.0
"""Between two looks for a daemon that is not there, or whose feed broke off."""
SETTLE_SECONDS = 0.1
"""Events that come so soon after each other are one change of the list."""
_PARAMETERS = HTTP1ConnectionParameters(no_keep_alive=True)


class Mirror:
    """The daemon's terminals as Jupyter lists its own; follows the daemon between `start` and `stop`."""

    def __init__(self, supervisor: Supervisor, log: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        self.models: list[dict[str, str]] = []
        """Name and time of last activity, as `GET /api/terminals` gives them."""
        self._supervisor = supervisor
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._changed = asyncio.Event()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="tundra terminals")

    async def stop(self) -> None:
        self._is_stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def refresh(self) -> None:
        """Ask the daemon for its terminals now."""
        status, body = await ask(self._supervisor.socket, "GET", f"{api.LISTING.path}?ended=true")
        if status == 200:
            self.models = [_model(row) for row in json.loads(body)["rows"]]

    async def _follow(self) -> None:
        while True:
            if await self._supervisor.is_there():
                try:
                    async with asyncio.TaskGroup() as group:
                        refreshing = group.create_task(self._refresh_on())
                        group.create_task(self._feed(refreshing))
                except* (OSError, StreamClosedError, httputil.HTTPInputError, ValueError, KeyError) as failed:
                    self._log.debug("tundra: the list of terminals broke off: %s", failed.exceptions[0])
                if self._is_stopping:  # an error in the group has taken the place of being cancelled
                    return
            self.models = []
            await asyncio.sleep(AGAIN_SECONDS)

    async def _feed(self, refreshing: asyncio.Task[None]) -> None:
        parser = Parser()

        def took(piece: bytes) -> None:
            if parser.feed(piece):
                self._changed.set()

        try:
            await ask(self._supervisor.socket, "GET", f"{FEED.path}?kinds=session_event", on_piece=took)
        finally:
            refreshing.cancel()

    async def _refresh_on(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self.refresh()
            await asyncio.sleep(SETTLE_SECONDS)


class Listing:
    """Mixed into the terminals extension's manager: lists ours beside its own."""

    mirror: Mirror

    def list(self) -> list[Any]:
        return [*super().list(), *self.mirror.models]  # type: ignore[misc]


class PoolTerminal(DaemonProxy):
    """`/terminals/websocket/tundra-ID`: a terminal tab on a terminal of the daemon."""

    auth_resource = RESOURCE

    @property
    def _target(self) -> str:
        pty_id = (
            str(self.request.path).rpartition("/")[2].removeprefix(PREFIX)
        )  # asked before the route's parts are set
        return f"{api.SOCKET.at(id=pty_id)}?reset=1"

    async def _admit(self) -> None:
        if not self.is_websocket:
            raise web.HTTPError(400, "this is a WebSocket")
        await super()._admit()


class PoolTerminalApi(APIHandler):
    """`/api/terminals/tundra-ID`: look at one, shut one down."""

    auth_resource = RESOURCE
    supervisor: Supervisor
    mirror: Mirror

    def initialize(self, supervisor: Supervisor, mirror: Mirror) -> None:
        self.supervisor = supervisor
        self.mirror = mirror

    @web.authenticated
    @authorized
    async def get(self, pty_id: str) -> None:
        status, body = await self._ask("GET", pty_id)
        if status != 200:
            raise web.HTTPError(404, f"Terminal not found: {PREFIX}{pty_id}")
        self.finish(json.dumps(_model(json.loads(body))))

    @web.authenticated
    @authorized
    async def delete(self, pty_id: str) -> None:
        status, _ = await self._ask("DELETE", pty_id)
        if status == 404:
            raise web.HTTPError(404, f"Terminal not found: {PREFIX}{pty_id}")
        with contextlib.suppress(OSError, StreamClosedError):
            await self.mirror.refresh()
        self.set_status(204)
        self.finish()

    async def _ask(self, method: str, pty_id: str) -> tuple[int, bytes]:
        try:
            more = "?dismiss=true" if method == "DELETE" else ""
            return await ask(self.supervisor.socket, method, api.INFO.at(id=pty_id) + more, user=user_of(self))
        except (OSError, StreamClosedError) as exc:
            raise Refused(IpcError(kind="refused", problem=f"the daemon cannot be reached: {exc}")) from exc
        except TundraError as error:
            raise Refused(error) from error


def extend(app: Any, supervisor: Supervisor, mirror: Mirror) -> None:
    """Let the terminals extension list and serve ours too. Before it is loaded: its manager is made then.

    Args:
        app: the terminals extension.
        supervisor: finds the daemon.
        mirror: what to list.
    """
    base = app.terminal_manager_class  # whatever the user has configured
    app.terminal_manager_class = type("PoolTerminalManager", (Listing, base), {"mirror": mirror})
    given = {"supervisor": supervisor}
    app.handlers += [
        (rf"/terminals/websocket/{PREFIX}([0-9a-z]+)", PoolTerminal, given),
        (rf"/api/terminals/{PREFIX}([0-9a-z]+)", PoolTerminalApi, given | {"mirror": mirror}),
    ]


async def ask(
    path: str, method: str, target: str, *, user: str = "", on_piece: Callable[[bytes], None] | None = None
) -> tuple[int, bytes]:
    """One request to the daemon: its status and body; or, with `on_piece`, the body as it comes.

    Raises:
        OSError, StreamClosedError: there is no daemon, or it went away.
    """
    stream = await dial(path)
    try:
        connection = HTTP1Connection(stream, is_client=True, params=_PARAMETERS)
        headers = httputil.HTTPHeaders({"Host": "localhost"})
        if user:
            headers[USER_HEADER] = user
        if method != "GET":
            headers["Content-Length"] = "0"
        await connection.write_headers(httputil.RequestStartLine(method, target, "HTTP/1.1"), headers)
        connection.finish()
        answer = _Body(on_piece)
        await connection.read_response(answer)
    finally:
        stream.close()
    return answer.status, b"".join(answer.pieces)


class _Body(httputil.HTTPMessageDelegate):
    def __init__(self, on_piece: Callable[[bytes], None] | None) -> None:
        self.status = 0
        self.pieces: list[bytes] = []
        self._on_piece = on_piece or self.pieces.append

    def headers_received(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,  # noqa: ARG002 - tornado's signature
    ) -> None:
        assert isinstance(start_line, httputil.ResponseStartLine)
        self.status = start_line.code

    def data_received(self, chunk: bytes) -> None:
        self._on_piece(chunk)


def _model(row: dict[str, Any]) -> dict[str, str]:
    quiet = dt.timedelta(seconds=float(row.get("idle_seconds") or 0.0))
    active = dt.datetime.now(dt.UTC) - quiet
    return {"name": f"{PREFIX}{row['pty_id']}", "last_activity": active.isoformat().replace("+00:00", "Z")}
