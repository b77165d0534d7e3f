"""uvicorn, set up for the daemon's socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

from uvicorn.config import Config
from uvicorn.server import Server as PlainServer

from tundra_nb import descriptors
from tundra_nb.daemon.cut import Cuttable
from tundra_nb.daemon.life import ASGIApp, Receive, Scope, Send
from tundra_nb.daemon.listen import peer_uid
from tundra_nb.daemon.sockets import MAX_MESSAGE_BYTES, socket_class
from tundra_nb.settings import Settings

RESERVE = 8
"""Descriptors for what must always work: the log, the spool, the store worker's next life."""
PAUSE_SECONDS = 0.02

_log = logging.getLogger("tundra.daemon")


class PeerChecked(Cuttable):
    """uvicorn's HTTP protocol, which hangs up on every user but our own before a byte is read.

    One that `refuses` answers its first request with the reason and closes, so that its descriptor is free again.
    """

    def refuse(self, app: Any) -> None:
        """Have every request answered by `app` instead."""
        self.app = app

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        uid = peer_uid(transport.get_extra_info("socket"))
        if uid != os.geteuid():
            _log.warning("refused a connection of uid %d", uid)
            self.transport = transport  # the base class closes it in connection_lost
            transport.abort()
            return
        super().connection_made(transport)


def bare(app: ASGIApp, *, drain: int, keep_alive: int, **others: Any) -> Config:
    """A server's settings, `others` too. Nothing of it looks at the environment or at logging's configuration."""
    return Config(
        app,
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=keep_alive,
        timeout_graceful_shutdown=drain,
        **others,
    )


def configured(app: ASGIApp, settings: Settings, *, drain: int, keep_alive: int) -> Config:
    """The settings of the daemon's own server."""
    return bare(
        app,
        drain=drain,
        keep_alive=keep_alive,
        http=PeerChecked,
        ws=socket_class(settings.pty.ping_seconds, settings.pty.pong_seconds),
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
    )


class Acceptor:
    """Takes connections of one socket, one per turn of the loop, for as long as there are descriptors for their calls.

    uvloop's own would take all that wait at once; when the descriptors run out in the middle, the calls that were
    already admitted fail in odd places, and who was not admitted is hung up on without a word. Here a third of the
    free descriptors is for connections, the rest for what their calls open; beyond that each caller gets a typed
    refusal, and when hardly any is left, callers wait in the socket's queue.
    """

    def __init__(self, listener: socket.socket, protocol: Callable[[], PeerChecked]) -> None:
        self._listener = listener
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        limit, base = descriptors.limit(), descriptors.count()
        self._admit_below = base + max((limit - base) // 3, 2)
        """A new descriptor has the lowest free number: one that is higher tells how many are in use."""
        self._wait_at = limit - RESERVE
        self._making: set[asyncio.Task[Any]] = set()
        self._is_open = True

    def resume(self) -> None:
        if self._is_open:
            self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Take no more connections, and close the socket."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:
            self._pause()
            return
        number = connection.fileno()
        protocol = self._protocol()
        if number >= self._admit_below:
            protocol.refuse(_refusing)
        if number >= self._wait_at:
            self._pause()
        task = self._loop.create_task(self._loop.connect_accepted_socket(lambda: protocol, connection))
        self._making.add(task)
        task.add_done_callback(self._making.discard)

    def _pause(self) -> None:
        self._loop.remove_reader(self._listener)
        self._loop.call_later(PAUSE_SECONDS, self.resume)


async def _refusing(scope: Scope, _receive: Receive, send: Send) -> None:
    """Say that there is no descriptor for this call, and have the connection closed."""
    if scope["type"] != "http":
        return
    error = descriptors.refusal()
    body = json.dumps(error.to_wire()).encode()
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"1"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Server(PlainServer):
    """uvicorn's server, whose signals and readiness are ours."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._acceptors: list[Acceptor] = []

    on_ready: Callable[[], None] = staticmethod(lambda: None)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn's own handling raises them again after the stop, and the exit code is lost."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        for listener in sockets or ():
            await self.listen_at(listener)
        self.on_ready()

    async def listen_at(self, listener: socket.socket) -> None:
        """Serve at a further socket; of those before it only the last lives on, for what is already in its queue."""
        acceptor = Acceptor(listener, self._protocol)
        acceptor.resume()
        for before in self._acceptors[:-1]:
            before.close()
        self._acceptors = [*self._acceptors[-1:], acceptor]

    def _protocol(self) -> PeerChecked:
        return PeerChecked(self.config, self.server_state, self.lifespan.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        while self._acceptors:
            self._acceptors.pop().close()
        await super().shutdown(sockets)

    async def end_tasks(self, limit: float) -> None:
        """Cancel the requests that outlived the drain and wait for them, at most `limit` seconds."""
        tasks = [task for task in self.server_state.tasks if not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=limit)
