"""`/api/tokens` and `/api/gateway`: who may use `/v1`, and where it listens."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tundra_nb.daemon.answers import json_response
from tundra_nb.daemon.gateway.tokens import iso
from tundra_nb.daemon.routing import read_body, route
from tundra_nb.errors import TundraError
from tundra_nb.protocol import doors as api
from tundra_nb.runtime.telemetry.redact import refuse_key

if TYPE_CHECKING:
    from tundra_nb.daemon.context import Daemon


def routes(daemon: Daemon) -> list[BaseRoute]:
    doors = daemon.doors
    tokens = doors.gateway.tokens
    runtime = daemon.runtime

    async def rows(request: Request) -> Response:
        found = tokens.rows()
        for row in found:
            row["spent_usd"] = None
            if row["usd_per_day"] is not None:
                with contextlib.suppress(TundraError):  # without the history nobody knows, and the rest is told
                    row["spent_usd"] = sum(await runtime.budgets.spent(row["name"]))
        return json_response({"rows": found})

    async def new(request: Request) -> Response:
        wanted = await read_body(request, api.NewTokenBody)
        refuse_key(runtime.redactor.text, wanted.name, "name")
        token, secret = tokens.new(wanted, runtime.slots)
        told = {
            "name": token.name,
            "token": secret,
            "profiles": list(token.profiles),
            "rpm": token.rpm,
            "tpm": token.tpm,
            "usd_per_day": token.usd_per_day,
            "expires_at": iso(token.expires_at),
            "urls": doors.urls(),
        }
        return json_response(told, status=201)

    async def revoke(request: Request) -> Response:
        token = tokens.revoke(request.path_params["name"])
        told = {"name": token.name, "revoked_at": iso(token.revoked_at)}
        if count := sum(call.user == token.name for call in runtime.running.values()):  # admitted, and half delivered
            told["note"] = f"calls under way that go on to their end: {count}"
        return json_response(told)

    async def status(request: Request) -> Response:
        return json_response(doors.status())

    async def start(request: Request) -> Response:
        body = await read_body(request, api.StartBody)
        return json_response(await doors.start(None if body.port is None else f"127.0.0.1:{body.port}"))

    async def stop(request: Request) -> Response:
        return json_response(await doors.stop())

    return [
        route(api.TOKENS, rows),
        route(api.NEW_TOKEN, new),
        route(api.REVOKE_TOKEN, revoke),
        route(api.GATEWAY, status),
        route(api.START, start),
        route(api.STOP, stop),
    ]
