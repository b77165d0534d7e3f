"""A daemon of a few scripted answers on the real socket, with the real connection file. Run as a process.

python scripted_daemon.py SOCKET CONNECTION_FILE STARTED_BY
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

VERBS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
MIB = b"x" * (1 << 20)
state: dict[str, object] = {"busy": False, "calls": 0, "ended": {}}


async def echo(request: Request) -> Response:
    state["calls"] = int(str(state["calls"])) + 1
    body = await request.body()
    return JSONResponse(
        {
            "method": request.method,
            "path": request.scope["raw_path"].decode(),
            "query": request.scope["query_string"].decode(),
            "headers": [[name.decode(), value.decode("latin-1")] for name, value in request.scope["headers"]],
            "body": body.decode(),
        },
        headers={"X-Tundra-Meta": "kept", "Set-Cookie": "daemon=1", "Connection": "x-hop", "X-Hop": "dropped"},
    )


async def upload(request: Request) -> Response:
    size, digest = 0, hashlib.sha256()
    async for piece in request.stream():
        size += len(piece)
        digest.update(piece)
    return JSONResponse({"bytes": size, "sha256": digest.hexdigest()})


async def download(request: Request) -> Response:
    count = int(request.query_params["mib"])
    headers = {"Content-Length": str(count << 20)} if "sized" in request.query_params else {}

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield MIB

    return StreamingResponse(pieces(), media_type="application/octet-stream", headers=headers)


async def events(request: Request) -> Response:
    """One event each `every` seconds with the time of its making; remembers under `name` when the client left."""
    name, every = request.query_params.get("name", ""), float(request.query_params.get("every", "0.02"))
    count = int(request.query_params.get("count", "1000000"))

    async def pieces() -> AsyncIterator[bytes]:
        try:
            for number in range(count):
                yield f"data: {number} {time.monotonic()}\n\n".encode()
                await asyncio.sleep(every)
        finally:
            ended = state["ended"]
            assert isinstance(ended, dict)
            ended[name] = time.monotonic()

    return StreamingResponse(pieces(), media_type="text/event-stream")


async def silent(request: Request) -> Response:
    """Answers nothing until the client leaves."""
    while not await request.is_disconnected():  # noqa: ASYNC110 - Starlette has no event for it
        await asyncio.sleep(0.005)
    ended = state["ended"]
    assert isinstance(ended, dict)
    ended[request.query_params["name"]] = time.monotonic()
    return Response()


async def seen(request: Request) -> Response:
    return JSONResponse(state)


async def early(request: Request) -> Response:
    """Answers without looking at the body, and hangs up."""
    return JSONResponse({"said": "too large"}, status_code=413, headers={"Connection": "close"})


async def interim(request: Request) -> Response:
    return Response(status_code=204)


async def die(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"data: the last words\n\n"
        await asyncio.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(10)

    if "silent" in request.query_params:
        os.kill(os.getpid(), signal.SIGKILL)
    headers = {"Content-Length": "1000"} if "sized" in request.query_params else {}
    return StreamingResponse(pieces(), media_type="text/event-stream", headers=headers)


async def busy(request: Request) -> Response:
    state["busy"] = True
    return Response(status_code=204)


async def stop(request: Request) -> Response:
    if state["busy"] and not (await request.json())["force"]:
        return JSONResponse({"code": "Busy"}, status_code=409)
    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
    return JSONResponse({"stopping": True})


async def talk(socket: WebSocket) -> None:
    """Echoes; `close CODE REASON` closes, `flood MIB` sends so much, `headers` tells what arrived."""
    offered = socket.scope["subprotocols"]
    await socket.accept(subprotocol=offered[-1] if offered else None)
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"], message.get("reason"))  # noqa: TRY301 - as Starlette's own
            text = message.get("text")
            if text is None:
                await socket.send_bytes(message["bytes"])
            elif text.startswith("close "):
                _, code, reason = text.split(" ", 2)
                await socket.close(int(code), reason)
                return
            elif text.startswith("flood "):
                for _ in range(int(text.split()[1])):
                    await socket.send_bytes(MIB)
            elif text == "headers":
                headers = [[name.decode(), value.decode("latin-1")] for name, value in socket.scope["headers"]]
                query = socket.scope["query_string"].decode()
                await socket.send_text(json.dumps({"headers": headers, "query": query}))
            else:
                await socket.send_text(text)
    except WebSocketDisconnect as exc:
        ended = state["ended"]
        assert isinstance(ended, dict)
        ended[socket.query_params.get("name", "")] = [exc.code, exc.reason]


async def refuse(socket: WebSocket) -> None:
    await socket.close(4403)


ROUTES = [
    Route("/api/echo", echo, methods=VERBS),
    Route("/api/echo/{rest:path}", echo, methods=VERBS),
    Route("/v1/echo", echo, methods=VERBS),
    Route("/api/upload", upload, methods=["POST", "PUT"]),
    Route("/api/download", download),
    Route("/api/events", events, methods=["GET", "POST"]),
    Route("/api/silent", silent, methods=["GET", "POST"]),
    Route("/api/seen", seen),
    Route("/api/early", early, methods=["POST"]),
    Route("/api/nothing", interim),
    Route("/api/die", die, methods=["GET", "POST"]),
    Route("/api/busy", busy, methods=["POST"]),
    Route("/api/daemon/stop", stop, methods=["POST"]),
    WebSocketRoute("/api/ws", talk),
    WebSocketRoute("/api/refuse", refuse),
]


def main(where: str, connection_file: str, started_by: str) -> None:
    Path(where).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(where)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(where)
    listener.listen(128)
    record = {
        "pid": os.getpid(),
        "socket": where,
        "host": socket.gethostname(),
        "api": 1,
        "version": "0",
        "data_dir": "",
        "started_by": started_by,
        "started_at": time.time(),
        "state": "ready",
    }
    file = Path(connection_file)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def announce() -> None:
        file.write_text(json.dumps(record), encoding="utf-8")

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            announce()  # from here on SIGTERM is heard

    config = uvicorn.Config(
        Starlette(routes=ROUTES), log_level="warning", timeout_graceful_shutdown=1, ws_max_size=64 << 20
    )
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises the signal again when it has finished
    Server(config).run(sockets=[listener])
    file.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
