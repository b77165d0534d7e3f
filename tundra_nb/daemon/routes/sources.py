"""Sources: what was imported, importing, forgetting."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tundra_nb.daemon.answers import json_response, last_step, stream_steps
from tundra_nb.daemon.routing import read_body, route
from tundra_nb.protocol import sources as api
from tundra_nb.protocol.words import EVENTS

if TYPE_CHECKING:
    from tundra_nb.daemon.context import Daemon


def routes(daemon: Daemon) -> list[BaseRoute]:
    sources = daemon.runtime.sources

    async def every(_: Request) -> Response:
        found = await asyncio.to_thread(sources.all)
        return json_response({"rows": [shown(source) for source in found]})

    async def one(request: Request) -> Response:
        return json_response(shown(await asyncio.to_thread(sources.find, request.path_params["name"])))

    async def import_(request: Request) -> Response:
        body = await read_body(request, api.ImportBody)
        steps = (shown(step) if isinstance(step, api.Source) else step async for step in sources.import_(body))
        if EVENTS in request.headers.get("accept", ""):
            return stream_steps(steps, api.Source, "source", daemon.runtime.redactor)
        source = await last_step(steps, api.Source)
        return json_response(source, 200 if source.again else 201)

    async def remove(request: Request) -> Response:
        await asyncio.to_thread(sources.remove, request.path_params["name"])
        return json_response({})

    return [
        route(api.SOURCES, every),
        route(api.ONE, one),
        route(api.IMPORT, import_),
        route(api.REMOVE, remove),
    ]


def shown(source: api.Source) -> api.Source:
    """A source without what only its reader needs."""
    return msgspec.structs.replace(source, parts={})
