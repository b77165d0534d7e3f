"""`/api/faults`: faults injected into profiles, for drills. Never written to the settings file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tundra_nb.daemon.answers import json_response
from tundra_nb.daemon.routing import read_body, read_params, route
from tundra_nb.protocol import faults as api

if TYPE_CHECKING:
    from tundra_nb.daemon.context import Daemon


def routes(daemon: Daemon) -> list[BaseRoute]:
    runtime = daemon.runtime
    drills = runtime.drills

    async def rows(_: Request) -> Response:
        return json_response({"rows": await drills.rows()})

    async def start(request: Request) -> Response:
        body = await read_body(request, api.DrillBody)
        profile = runtime.profiles.slot(body.profile).profile
        is_parked = runtime.router.parked(profile.name) is not None
        return json_response(await drills.start(profile, is_parked=is_parked), status=201)

    async def add(request: Request) -> Response:
        rule = await read_body(request, dict[str, Any])
        return json_response(await drills.set(request.path_params["name"], rule))

    async def clear(request: Request) -> Response:
        return json_response(
            await drills.clear(request.path_params["name"], read_params(request, api.FaultQuery).fault)
        )

    async def stop(request: Request) -> Response:
        name = request.path_params["name"]
        drill = await drills.stop(name)
        if not drill.was_parked and name in runtime.slots:
            runtime.profiles.unpark(name, "drill_ended")  # what parked or cooled it was no word of the provider's
        return json_response({"profile": name, "stopped": True})

    return [
        route(api.FAULTS, rows),
        route(api.START_FAULTS, start),
        route(api.STOP_FAULTS, stop),
        route(api.SET_FAULT, add),
        route(api.CLEAR_FAULTS, clear),
    ]
