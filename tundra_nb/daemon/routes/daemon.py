"""`POST /api/daemon/stop`: the end of the daemon; `GET /api/daemon/descriptors`: nobody else may count them."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tundra_nb import descriptors
from tundra_nb.daemon.answers import error_response, json_response
from tundra_nb.daemon.routing import read_body, route
from tundra_nb.errors import ConfigError, IpcError, UsageError
from tundra_nb.protocol import daemon as api

if TYPE_CHECKING:
    from tundra_nb.daemon.context import Daemon

_log = logging.getLogger("tundra.daemon")


def routes(daemon: Daemon) -> list[BaseRoute]:
    async def stop(request: Request) -> Response:
        body = await read_body(request, api.StopBody)
        try:
            found = daemon.life.request_stop(force=body.force, hold=body.hold, session=body.session)
        except IpcError as error:  # in use: nothing is unavailable, so not its usual 503
            return error_response(error, daemon.runtime.redactor, status=409)
        return json_response({"stopping": True, "pid": daemon.life.info.pid, "found": dataclasses.asdict(found)})

    async def open_descriptors(_: Request) -> Response:
        return json_response(api.Descriptors(open=descriptors.count(), limit=descriptors.limit()))

    async def log_level(_: Request) -> Response:
        return json_response(api.LogLevel(daemon.life.logs.filter if daemon.life.logs else ""))

    async def set_log_level(request: Request) -> Response:
        body = await read_body(request, api.LogLevel)
        if daemon.life.logs is not None:
            before = daemon.life.logs.filter
            try:
                daemon.life.logs.set_filter(body.filter)
            except ConfigError as error:
                raise UsageError(problem=error.problem, field="filter", remedy=error.remedy) from error
            _log.info("log lines kept: %s (before: %s)", body.filter, before)
        return await log_level(request)

    return [
        route(api.STOP, stop),
        route(api.DESCRIPTORS, open_descriptors),
        route(api.LOG_LEVEL, log_level),
        route(api.SET_LOG_LEVEL, set_log_level),
    ]
