"""`POST /api/daemon/stop`: the end of the daemon."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tundra_nb.daemon.answers import error_response, json_response, read_body
from tundra_nb.errors import IpcError

if TYPE_CHECKING:
    from tundra_nb.daemon.app import Daemon


class StopBody(msgspec.Struct, forbid_unknown_fields=True):
    """`force`: also while somebody is attached or a PTY lives. `hold`: only an explicit start brings it back."""

    force: bool = False
    hold: bool = False


def routes(daemon: Daemon) -> list[BaseRoute]:
    async def stop(request: Request) -> Response:
        body = await read_body(request, StopBody)
        try:
            found = daemon.life.request_stop(force=body.force, hold=body.hold)
        except IpcError as error:  # in use: nothing is unavailable, so not its usual 503
            return error_response(error, daemon.runtime.redactor, status=409)
        return json_response({"stopping": True, "pid": daemon.life.info.pid, "found": dataclasses.asdict(found)})

    return [Route("/api/daemon/stop", stop, methods=["POST"])]
