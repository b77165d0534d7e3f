"""`/api/faults`: faults injected into profiles, for drills. Never written to the settings file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tundra_nb.daemon.answers import json_response, read_body

if TYPE_CHECKING:
    from tundra_nb.daemon.app import Daemon


class StartBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /api/faults`."""

    profile: str


def routes(daemon: Daemon) -> list[BaseRoute]:
    runtime = daemon.runtime
    drills = runtime.drills

    async def rows(_: Request) -> Response:
        return json_response({"rows": await drills.rows()})

    async def start(request: Request) -> Response:
        body = await read_body(request, StartBody)
        profile = runtime.profiles.slot(body.profile).profile
        is_parked = runtime.router.parked(profile.name) is not None
        return json_response(await drills.start(profile, is_parked=is_parked), status=201)

    async def add(request: Request) -> Response:
        rule = await read_body(request, dict[str, Any])
        return json_response(await drills.set(request.path_params["name"], rule))

    async def clear(request: Request) -> Response:
        return json_response(await drills.clear(request.path_params["name"], request.query_params.get("fault")))

    async def stop(request: Request) -> Response:
        name = request.path_params["name"]
        drill = await drills.stop(name)
        if not drill.was_parked and name in runtime.slots:
            runtime.profiles.unpark(name, "drill_ended")  # what parked or cooled it was no word of the provider's
        return json_response({"profile": name, "stopped": True})

    return [
        Route("/api/faults", rows, methods=["GET"]),
        Route("/api/faults", start, methods=["POST"]),
        Route("/api/faults/{name}", stop, methods=["DELETE"]),
        Route("/api/faults/{name}/rules", add, methods=["POST"]),
        Route("/api/faults/{name}/rules", clear, methods=["DELETE"]),
    ]
