"""The gateway of a daemon, put together: tokens, doors, and the way past the daemon's own API."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from urllib.parse import unquote

from tundra_nb.daemon.life import ASGIApp, Life, Receive, Scope, Send
from tundra_nb.environment import account
from tundra_nb.runtime.runtime import Runtime

from .doors import Doors
from .face import DoorApp, Gateway
from .incoming import headers_of
from .paths import PREFIX
from .stored import Stored
from .tokens import Tokens

_log = logging.getLogger("tundra.daemon")


@contextlib.asynccontextmanager
async def open_gateway(runtime: Runtime, life: Life) -> AsyncIterator[Doors]:
    """The gateway of a runtime that is open. Its listener is closed with it."""
    folder = runtime.paths.gateway
    tokens = Tokens(folder / "tokens.json", lambda: runtime.clock.now_us() / 1e6)
    if tokens.problem is not None:
        _log.error("no gateway token serves: %s", tokens.problem)
    stored = Stored(folder / "responses.jsonl")
    doors = Doors(Gateway(runtime, tokens, stored), life, folder / "listener.json")
    runtime.in_force.parts.append(doors.follow)
    try:
        await doors.open()
        yield doors
    finally:
        await doors.aclose()


def in_front(app: ASGIApp, gateway: Gateway) -> ASGIApp:
    """The daemon's application on its socket, with `/v1` beside its own API.

    Whoever comes by the socket is our own user, or one whom the bridge names; a gateway token counts here, too.
    """
    os_user = account(gateway.runtime.environ)

    def user(scope: Scope) -> str:
        return unquote(headers_of(scope).get(b"x-tundra-user", b"").decode("latin-1")) or os_user

    face = DoorApp(gateway, user)

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and (path == PREFIX or path.startswith(PREFIX + "/")):
            await face(scope, receive, send)
        else:
            await app(scope, receive, send)

    return both
