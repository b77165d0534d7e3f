"""`GET /api/events`: the live feed. Holding it open is what being attached means.

`attach`: what holds it (kernel, cli, …); `owner`: whose shell lives on while it is open; `kinds`: events wanted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from tundra_nb._version import API, __version__
from tundra_nb.daemon.answers import json_rows, sse
from tundra_nb.daemon.routing import read_params, route
from tundra_nb.protocol import events as api
from tundra_nb.protocol.words import EVENTS, HEARTBEAT_SECONDS
from tundra_nb.runtime.telemetry.bus import Missed

if TYPE_CHECKING:
    from tundra_nb.daemon.context import Daemon


def routes(daemon: Daemon) -> list[BaseRoute]:
    async def feed(request: Request) -> Response:
        asked = read_params(request, api.FeedQuery)
        who, owner = asked.attach, asked.owner
        kinds = [kind for kind in asked.kinds.split(",") if kind]

        async def body() -> AsyncIterator[bytes]:
            owning = daemon.runtime.terminals.owned_by(owner) if owner else contextlib.nullcontext()
            with daemon.life.attached(who), owning:
                async with daemon.runtime.bus.subscribe(kinds) as subscription:
                    yield sse("hello", {"version": __version__, "api": API, "pid": daemon.life.info.pid})
                    while True:
                        try:
                            event = await asyncio.wait_for(subscription.next(), HEARTBEAT_SECONDS)
                        except TimeoutError:
                            yield b": alive\n\n"
                            continue
                        if event is None:
                            return
                        if isinstance(event, Missed):
                            yield sse("missed", {"missed": event.count})
                        else:
                            yield sse(event.kind, json_rows([msgspec.structs.asdict(event.value)])[0])

        return StreamingResponse(body(), media_type=EVENTS, headers={"Cache-Control": "no-store"})

    return [route(api.FEED, feed)]
