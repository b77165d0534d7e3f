"""A daemon with a tiny application, for tests of the daemon's life: `python tiny.py [run options]`.

`GET /api/status`, `GET /api/events?attach=WHO`, `GET /slow?seconds=S`, `POST /api/daemon/stop`; `TINY_FAIL`
makes its start fail (`typed`, `defect`, `exit`, `hang`), `TINY_PTYS` is a file whose existence means that a PTY lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tundra_nb.daemon import serve
from tundra_nb.daemon.life import ASGIApp
from tundra_nb.errors import StoreUnavailable, TundraError


@contextlib.asynccontextmanager
async def opened(start: serve.AppParts) -> AsyncIterator[ASGIApp]:
    life = start.life
    match start.environ.get("TINY_FAIL"):
        case "typed":
            raise StoreUnavailable(problem="the tiny store is down", remedy="Lift it.")
        case "defect":
            raise ZeroDivisionError(f"a defect near {start.environ.get('TINY_CANARY_KEY')}")
        case "exit":
            os._exit(77)
        case "hang":
            await asyncio.sleep(3600)
    if flag := start.environ.get("TINY_PTYS"):
        life.living_ptys = Path(flag).exists
    stopping = asyncio.Event()
    life.end_streams = stopping.set

    async def status(_: Request) -> Response:
        told = {"version": life.info.version, "api": life.info.api, "pid": life.info.pid}
        variables = sorted(start.environ)
        return JSONResponse(
            {**told, "attached": life.attached_count, "engine": "tiny", "cwd": os.getcwd(), "variables": variables}
        )

    async def events(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            with life.attached(request.query_params.get("attach", "")):
                yield b"event: hello\ndata: {}\n\n"
                await stopping.wait()
                yield b"event: end\ndata: {}\n\n"

        return StreamingResponse(body(), media_type="text/event-stream")

    async def slow(request: Request) -> Response:
        try:
            await asyncio.sleep(float(request.query_params["seconds"]))
        except asyncio.CancelledError:
            (start.paths.data_dir / "cancelled").touch()
            raise
        return JSONResponse({"slept": True})

    async def stop(request: Request) -> Response:
        asked = await request.json()
        try:
            life.request_stop(force=asked["force"], hold=asked["hold"])
        except TundraError as error:
            return JSONResponse(error.to_wire(), error.http_status)
        return JSONResponse({"stopping": True})

    yield Starlette(
        routes=[
            Route("/api/status", status),
            Route("/api/events", events),
            Route("/slow", slow),
            Route("/api/daemon/stop", stop, methods=["POST"]),
        ]
    )
    if seconds := start.environ.get("TINY_CLOSE_SECONDS"):
        await asyncio.sleep(float(seconds))
    (start.paths.data_dir / "closed").touch()


if __name__ == "__main__":
    sys.exit(serve.main(sys.argv[1:], opened))
