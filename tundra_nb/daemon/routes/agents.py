"""`POST /api/agent-runs`: a run of an agent begins, and lasts while the answer is held open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from tundra_nb.daemon.answers import json_response, sse
from tundra_nb.daemon.routing import read_body, route
from tundra_nb.protocol import agents as api
from tundra_nb.protocol.words import EVENTS, HEARTBEAT_SECONDS

if TYPE_CHECKING:
    from tundra_nb.daemon.context import Daemon


def routes(daemon: Daemon) -> list[BaseRoute]:
    runs = daemon.runtime.agent_runs

    async def begin(request: Request) -> Response:
        run_id = runs.open(await read_body(request, api.RunBody), daemon.user(request))

        async def body() -> AsyncIterator[bytes]:
            try:
                yield sse("run", {"run_id": str(run_id)})
                while True:
                    await asyncio.sleep(HEARTBEAT_SECONDS)
                    yield b": alive\n\n"
            finally:
                runs.lost(run_id)

        return StreamingResponse(body(), media_type=EVENTS, headers={"Cache-Control": "no-store"})

    async def step(request: Request) -> Response:
        return json_response({"seq": runs.step(request.path_params["id"], await read_body(request, api.StepBody))})

    async def end(request: Request) -> Response:
        runs.end(request.path_params["id"], await read_body(request, api.RunEnd))
        return json_response({})

    return [route(api.BEGIN, begin), route(api.STEP, step), route(api.END, end)]
