"""uvicorn, set up for the daemon's socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn

from tundra_nb.daemon.life import ASGIApp
from tundra_nb.daemon.listen import PeerChecked
from tundra_nb.daemon.sockets import MAX_MESSAGE_BYTES, socket_class
from tundra_nb.settings import Settings


def configured(app: ASGIApp, settings: Settings, *, drain: int, keep_alive: int) -> uvicorn.Config:
    """The server's settings. Nothing of it looks at the environment or at logging's configuration."""
    return uvicorn.Config(
        app,
        http=PeerChecked,
        ws=socket_class(settings.pty.ping_seconds, settings.pty.pong_seconds),
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=keep_alive,
        timeout_graceful_shutdown=drain,
    )


class Server(uvicorn.Server):
    """uvicorn's server, whose signals and readiness are ours."""

    on_ready: Callable[[], None] = staticmethod(lambda: None)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn's own handling raises them again after the stop, and the exit code is lost."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_ready()

    async def listen_at(self, listener: socket.socket) -> None:
        """Serve at a further socket; of those before it only the last lives on, for what is already in its queue."""

        def protocol() -> asyncio.Protocol:
            return PeerChecked(self.config, self.server_state, self.lifespan.state)

        added = await asyncio.get_running_loop().create_server(protocol, sock=listener, backlog=self.config.backlog)
        for before in self.servers[:-1]:
            before.close()
        self.servers = [*self.servers[-1:], added]

    async def end_tasks(self, limit: float) -> None:
        """Cancel the requests that outlived the drain and wait for them, at most `limit` seconds."""
        tasks = [task for task in self.server_state.tasks if not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=limit)
