"""Incidents: new ones, one of them, and what changes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tundra_nb.daemon.answers import json_response, json_rows
from tundra_nb.daemon.routing import read_body, route
from tundra_nb.protocol import incidents as api
from tundra_nb.runtime.incidents import Incidents

from .history import read_time

if TYPE_CHECKING:
    from tundra_nb.daemon.context import Daemon


def routes(daemon: Daemon) -> list[BaseRoute]:
    incidents = Incidents(daemon.runtime)

    async def new(request: Request) -> Response:
        body = await read_body(request, api.NewIncident)
        now = daemon.runtime.clock.now_us()
        until = now if body.until is None else read_time(body.until, "until")
        made = await incidents.new(body.title, read_time(body.since, "since"), until, daemon.user(request))
        return json_response(json_rows([made])[0], 201)

    async def one(request: Request) -> Response:
        return json_response(json_rows([await incidents.find(request.path_params["id"])])[0])

    async def change(request: Request) -> Response:
        body = await read_body(request, api.IncidentChange)
        changed = await incidents.change(
            request.path_params["id"],
            author=daemon.user(request),
            state=body.state,
            notebook=body.notebook,
            pin=body.pin,
            reason=body.reason,
        )
        return json_response(json_rows([changed])[0])

    return [route(api.NEW, new), route(api.ONE, one), route(api.CHANGE, change)]
