"""The archive: what there is, copying and proving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tundra_nb.daemon.answers import json_response, last_step, stream_steps
from tundra_nb.daemon.routing import read_body, route
from tundra_nb.protocol import archive as api
from tundra_nb.protocol.words import EVENTS

from .history import read_time

if TYPE_CHECKING:
    from tundra_nb.daemon.context import Daemon


def routes(daemon: Daemon) -> list[BaseRoute]:
    archive = daemon.runtime.archive

    async def state(_: Request) -> Response:
        return json_response(await archive.state())

    async def run(request: Request) -> Response:
        body = await read_body(request, api.ArchiveBody)
        before_us = None if body.before is None else read_time(body.before, "before")
        steps = archive.run(before_us, verify=body.verify)
        if EVENTS in request.headers.get("accept", ""):
            return stream_steps(steps, api.Archive, "archive", daemon.runtime.redactor)
        return json_response(await last_step(steps, api.Archive))

    return [route(api.STATE, state), route(api.ARCHIVE, run)]
