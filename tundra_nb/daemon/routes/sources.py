"""Sources: what was imported, importing, forgetting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from tundra_nb import errors
from tundra_nb.daemon.answers import json_response, sse
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
        steps = sources.import_(body)
        if EVENTS in request.headers.get("accept", ""):
            return StreamingResponse(_events(steps), media_type=EVENTS, headers={"Cache-Control": "no-store"})
        async for step in steps:
            if isinstance(step, api.Source):
                return json_response(shown(step), 200 if step.again else 201)
        raise errors.InternalError(problem="an import ended without an end")

    async def remove(request: Request) -> Response:
        await asyncio.to_thread(sources.remove, request.path_params["name"])
        return json_response({})

    async def _events(steps: AsyncIterator[api.Importing | api.Source]) -> AsyncIterator[bytes]:
        try:
            async for step in steps:
                is_end = isinstance(step, api.Source)
                yield sse("source" if is_end else "progress", shown(step) if isinstance(step, api.Source) else step)
        except errors.TundraError as error:
            yield daemon.runtime.redactor.text(sse("error", error.to_wire()).decode()).encode()

    return [
        route(api.SOURCES, every),
        route(api.ONE, one),
        route(api.IMPORT, import_),
        route(api.REMOVE, remove),
    ]


def shown(source: api.Source) -> api.Source:
    """A source without what only its reader needs."""
    return msgspec.structs.replace(source, parts={})
